"""What `openrpt scaling` reads (runs), writes (JSON, a table, a figure) and prints."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrpt.data.positions import DIFFICULTIES
from openrpt.errors import UserError
from openrpt.evaluation.scaling.scaling import Analysis, Joint, Point, Series
from openrpt.files import csv_text, json_text, write_text
from openrpt.runs.checkpoints import latest_checkpoint
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, existing_run
from openrpt.sheets import Sheet, markdown, print_sheet

if TYPE_CHECKING:
    from rich.console import Console


ACCURACY = "development/reasoning_accuracy"
NAME = "scaling.json"


def read_points(sources: Sequence[str]) -> list[Point]:
    """Of all runs. Raises UserError where one has none."""
    return [point for source in sources for point in run_points(existing_run(Path(source)))]


def run_points(run: Run) -> list[Point]:
    """A point a development evaluation and difficulty; compute is that of the training steps so
    far (generation and update; scoring, warmup and evaluation are not in it)."""
    size = model_size(run)
    points, flops = [], 0.0
    for row in read_metrics(run.metrics):
        if row["stage"] != "train":
            continue
        flops += row["flops/generate"] + row["flops/update"]
        if ACCURACY not in row:
            continue
        by_difficulty = {
            n: row[f"{ACCURACY}/{n}"] for n in DIFFICULTIES if f"{ACCURACY}/{n}" in row
        }
        for name, accuracy in (by_difficulty or {"all": row[ACCURACY]}).items():
            points.append(
                Point(
                    compute=flops,
                    accuracy=accuracy,
                    difficulty=name,
                    model_size=size,
                    source=f"{run.path}, step {row['step']}",
                )
            )
    if not points:
        raise UserError(
            f"{run.metrics}: no development evaluation; train with train.eval_every above 0 and a"
            " development split"
        )
    return points


def model_size(run: Run) -> float | None:
    """Parameters of the run's latest checkpoint, from its files' headers; None without one."""
    from safetensors import safe_open

    folder = latest_checkpoint(run.checkpoints)
    if folder is None:
        return None
    total = 0
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            total += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    return float(total)


def output_folder(sources: Sequence[str], output: str | None) -> Path:
    """Where the files go. Raises UserError for a folder that holds something else."""
    folder = Path(output or (Path(sources[0]) / "scaling" if len(sources) == 1 else "scaling"))
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: a file of that name stands there")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / NAME).is_file():
        raise UserError(f"--out {folder}: the folder is not empty and not of openrpt scaling")
    return folder


def write_scaling(found: Analysis, folder: Path) -> list[Path]:
    """scaling.json (everything, the points too), .csv (a row a fit), .md (the tables), .svg."""
    texts = {
        "scaling.csv": csv_text(fit_rows(found)),
        "scaling.md": "\n".join(map(markdown, scaling_sheets(found))),
        "scaling.svg": figure(found.series),
        NAME: json_text(asdict(found)),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def fit_rows(found: Analysis) -> list[dict[str, Any]]:
    """A row a fit; ΔAIC is to the best of the same points."""
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
    """'A = −3.1 [−8, −1.2], α = 0.21 [0.1, 0.34]'"""
    parts = []
    for name, value in parameters.items():
        text = f"{name} = {value:.4g}"
        if intervals:
            low, high = intervals[name]
            text += f" [{low:.3g}, {high:.3g}]"
        parts.append(text)
    return ", ".join(parts)


def figure(series: Sequence[Series]) -> str:
    """SVG: points, the paper's form, and the band of its resamples, over the logarithm of C."""
    import altair as alt
    import vl_convert

    def name(one: Series) -> str:
        size = "" if one.model_size is None else f", {one.model_size:.3g} parameters"
        return one.difficulty + size

    curve = [
        {"series": name(one), "compute": c, "accuracy": p, "low": low, "high": high}
        for one in series
        for c, p, low, high in one.curve
    ]
    points = [
        {"series": name(one), "compute": point.compute, "accuracy": point.accuracy}
        for one in series
        for point in one.points
    ]
    x = alt.X(
        "compute:Q",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format="~e"),
        title="training compute, FLOPs",
    )

    def y(field: str) -> alt.Y:
        scale, axis = alt.Scale(zero=False), alt.Axis(format="~%")
        return alt.Y(field, title="accuracy", scale=scale, axis=axis)

    color = alt.Color("series:N", sort=None, title=None)
    base = alt.Chart(alt.Data(values=curve)).encode(x=x, color=color)
    band = base.mark_area(opacity=0.15).encode(y=y("low:Q"), y2="high:Q")
    line = base.mark_line().encode(y=y("accuracy:Q"))
    dots = (
        alt.Chart(alt.Data(values=points))
        .mark_point(filled=True, size=50)
        .encode(x=x, y=y("accuracy:Q"), color=color)
    )
    chart = alt.LayerChart(layer=[band, line, dots]).properties(width=480, height=300)
    svg: str = vl_convert.vegalite_to_svg(chart.to_dict())
    return svg


def scaling_sheets(found: Analysis) -> list[Sheet]:
    """A table a series and a joint fit; what the points can't tell stands under each."""
    return [*map(_series_sheet, found.series), *map(_joint_sheet, found.joint)]


def _series_sheet(series: Series) -> Sheet:
    size = "" if series.model_size is None else f", {series.model_size:.3g} parameters"
    reach = f"{series.points[0].compute:.2g} to {series.points[-1].compute:.2g} FLOPs"
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
        error = f"off by {100 * series.prediction_error:+.1f} points"
        notes.insert(0, f"last point left out: predicted {series.predicted_last:.1%}, {error}")
    return Sheet(
        title=f"{series.difficulty}{size}: {len(series.points)} points, {reach}",
        headings=["form", "parameters [95 % interval]", "R²", "Δ AIC"],
        rows=rows,
        labels=2,
        notes=notes,
    )


def _joint_sheet(joint: Joint) -> Sheet:
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


def print_scaling(found: Analysis, console: "Console") -> None:
    for sheet in scaling_sheets(found):
        print_sheet(sheet, console)
