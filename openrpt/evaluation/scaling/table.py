"""The findings of `openrpt scaling` in rows: of the CSV file, and as sheets."""

from collections.abc import Mapping
from typing import Any

from openrpt.amounts import flops
from openrpt.evaluation.scaling.scaling import Analysis, Joint, Series, size_words
from openrpt.sheets import Sheet, interval


def fit_rows(found: Analysis) -> list[dict[str, Any]]:
    """Returns a row a fit; `difference` is its AIC (or AICc) over the least of the same points."""
    rows = []
    for series in found.series:
        corrected = all(fit.aicc is not None for fit in series.fits)
        values = [fit.aicc if corrected else fit.aic for fit in series.fits]
        least = min(value for value in values if value is not None)
        for fit, value in zip(series.fits, values, strict=True):
            rows.append(
                {
                    "difficulty": series.difficulty,
                    "model_size": series.model_size,
                    "points": len(series.points),
                    "form": fit.form,
                    "parameters": _spelled(fit.parameters, fit.intervals),
                    "r_squared": fit.r_squared,
                    "criterion": "AICc" if corrected else "AIC",
                    "difference": (value or 0.0) - least,
                }
            )
    for joint in found.joint:
        if joint.fit is not None:
            rows.append(
                {
                    "difficulty": joint.difficulty,
                    "model_size": "all",
                    "points": "",
                    "form": joint.fit.formula,
                    "parameters": _spelled(joint.fit.parameters, joint.fit.intervals),
                    "r_squared": joint.fit.r_squared,
                    "criterion": "",
                    "difference": "",
                }
            )
    return rows


def _spelled(
    parameters: Mapping[str, float], intervals: Mapping[str, tuple[float, float]] | None
) -> str:
    """Returns the parameters in words: `A = -3.1 [-8, -1.2], α = 0.21 [0.1, 0.34]`."""
    parts = []
    for name, value in parameters.items():
        low, high = intervals[name] if intervals else (None, None)
        parts.append(f"{name} = {interval({'value': value, 'low': low, 'high': high}, '.4g')}")
    return ", ".join(parts)


def scaling_sheets(found: Analysis) -> list[Sheet]:
    """Returns a table a series and a joint fit; what the points can't tell stands under each."""
    return [*map(_series_sheet, found.series), *map(_joint_sheet, found.joint)]


def _series_sheet(series: Series) -> Sheet:
    """Returns a row a form, fitted to one difficulty and model size."""
    least, greatest = (flops(series.points[end].compute) for end in (0, -1))
    rows = [
        [
            row["form"],
            row["parameters"],
            f"{row['r_squared']:.3f}",
            f"{row['difference']:.1f} ({row['criterion']})",
        ]
        for row in fit_rows(Analysis(series=[series], joint=[]))
    ]
    notes = [f"can't tell: {remark}" for remark in series.remarks]
    if series.prediction_error is not None:
        off = interval({"value": series.prediction_error}, scale=100.0)
        predicted = interval({"value": series.predicted_last}, ".1f", scale=100.0)
        notes.insert(0, f"last point left out: predicted {predicted} %, off by {off} points")
    return Sheet(
        title=f"{series.difficulty}{size_words(series.model_size)}: {len(series.points)} points,"
        f" {least} to {greatest} FLOPs",
        headings=["form", "parameters [95 % interval]", "R²", "Δ AIC"],
        rows=rows,
        labels=2,
        notes=notes,
    )


def _joint_sheet(joint: Joint) -> Sheet:
    """Returns the joint form's row; none where the points can't determine it."""
    rows = []
    if joint.fit is not None:
        spelled = _spelled(joint.fit.parameters, joint.fit.intervals)
        rows.append([joint.fit.formula, spelled, f"{joint.fit.r_squared:.3f}"])
    return Sheet(
        title=f"{joint.difficulty}, {len(joint.sizes)} model sizes together",
        headings=["form", "parameters [95 % interval]", "R²"],
        rows=rows,
        labels=2,
        notes=[f"can't tell: {remark}" for remark in joint.remarks],
    )
