"""Writing of several models as people read it: a row a measure, beside the real text's."""

import math
from collections.abc import Sequence
from typing import Any

from openrpt.evaluation.instrument import Measured, models_of
from openrpt.evaluation.intervals import Interval
from openrpt.evaluation.reports import Report
from openrpt.evaluation.writing.writing import DECIMALS, MEASURES, OF_REAL, WritingResult
from openrpt.sheets import Sheet, cost_cells

_REAL = "real text"


def writing_report(name: str, measured: Sequence[Measured[WritingResult]]) -> Report:
    """Returns a sheet of all measures; `name` is the text's, and that of the report's files."""
    first, rows = measured[0], _writing_rows(measured)
    return Report(
        name=name,
        about={
            "text": name,
            "against": first.model.label,
            "measures": MEASURES,
            "features": f"mean of the last layer's states over the text, {first.result.features}",
            "settings": first.result.settings,
        },
        models=models_of(measured),
        rows=rows,
        sheets=[_sheet(name, measured, rows)],
    )


def _writing_rows(measured: Sequence[Measured[WritingResult]]) -> list[dict[str, Any]]:
    """Returns a row a measure and model, the real text's first; differences are to the first
    model."""
    first = measured[0]
    rows = []
    for name in MEASURES:
        if name in OF_REAL:
            rows.append(_row(name, _REAL, first.result.measure(name, "real").interval(), None))
        basis = first.result.measure(name)
        for one in measured:
            value = one.result.measure(name)
            difference = None if one is first else value.minus(basis).interval()
            rows.append(_row(name, one.model.label, value.interval(), difference))
    return rows


def _row(name: str, label: str, value: Interval, difference: Interval | None) -> dict[str, Any]:
    row: dict[str, Any] = {"measure": name, "model": label, **value.as_dict()}
    for key in ("value", "low", "high"):
        row[f"difference_{key}"] = None if difference is None else getattr(difference, key)
    return row


def _sheet(
    name: str, measured: Sequence[Measured[WritingResult]], rows: Sequence[dict[str, Any]]
) -> Sheet:
    """Returns one row a measure: the real text, each model, and its difference to the first."""
    first = measured[0]
    settings = first.result.settings
    headings = ["measure", _REAL]
    for one in measured:
        headings.append(one.model.label)
        if one is not first:
            headings.append(f"− {first.model.label}")
    lines = []
    for measure in MEASURES:
        by = {row["model"]: row for row in rows if row["measure"] == measure}
        cells = [measure, _cell(measure, by[_REAL]) if _REAL in by else "–"]
        for one in measured:
            cells.append(_cell(measure, by[one.model.label]))
            if one is not first:
                cells.append(_cell(measure, by[one.model.label], "difference_"))
        lines.append(cells)
    legend = [f"{measure}: {text}" for measure, text in MEASURES.items()]
    legend.append(
        "in brackets: 95 % by document (bootstrap; distinct-n: jackknife), differences paired;"
        f" features: states of {first.result.features}"
    )
    return Sheet(
        title=f"{first.result.documents} documents of {name}, completed by at most"
        f" {settings['completion_tokens']} tokens at temperature {settings['temperature']:g}",
        headings=headings,
        rows=[*lines, *_cost_rows(measured)],
        whole=1,
        notes=legend,
    )


def _cost_rows(measured: Sequence[Measured[WritingResult]]) -> list[list[str]]:
    """Returns FLOPs of training, FLOPs and time of measuring; nothing under the differences."""
    rows = [["training FLOPs", ""], ["evaluation FLOPs", ""], ["time", ""]]
    for one in measured:
        cells = [cost_cells(one.model.cost or {})[0], *cost_cells(one.result.cost)]
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell)
            if one is not measured[0]:
                row.append("")
    return rows


def _cell(measure: str, row: dict[str, Any], kind: str = "") -> str:
    """Returns a measure's cell, `12.5 % [10.1, 14.9]`; differences of shares in points."""
    value, low, high = (row[f"{kind}{key}"] for key in ("value", "low", "high"))
    if math.isnan(value):
        return "–"
    share = measure not in DECIMALS
    scale, decimals = (100.0, 1) if share else (1.0, DECIMALS[measure])
    sign = "+" if kind else ""

    def number(found: float) -> str:
        return f"{scale * found:{sign}.{decimals}f}".replace("-", "−")

    unit = " %" if share and not kind else ""
    text = number(value) + unit
    return text if math.isnan(low) else f"{text} [{number(low)}, {number(high)}]"
