"""Reasoning patterns of runs, as a table on the terminal and as JSON and CSV."""

import csv
import io
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from openrpt.evaluation.patterns.bins import (
    DECIMALS,
    MEASURES,
    THOUGHT_MEASURES,
    Bin,
    compared,
    difference,
)
from openrpt.evaluation.patterns.measures import KEYWORDS, Keywords
from openrpt.evaluation.statistics import Interval
from openrpt.files import write_sealed, write_text
from openrpt.sheets import COST_HEADINGS, cost_cells

FORMAT = 1


def write_patterns(
    runs: Sequence[Sequence[Bin]], stem: Path, *, keywords: Keywords = KEYWORDS
) -> tuple[Path, Path]:
    """Writes `STEM.json` and `STEM.csv` (a row a run, bin and measure), atomically."""
    names = list(runs[0][0].measures)
    document = {
        "format": FORMAT,
        "keywords": {group: list(words) for group, words in keywords.items()},
        "measures": MEASURES,
        "bins": [
            _place(one)
            | {"flops": one.flops, "seconds": one.seconds, "steps": one.steps}
            | {"measures": {n: _numbers(one, n) for n in names}}
            for bins in runs
            for one in bins
        ],
        "differences": [
            {
                "a": _place(a),
                "b": _place(b),
                "measures": {n: _plain(difference(a, b, n)) for n in names},
            }
            for a, b in compared(runs)
        ],
    }
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    columns = ("value", "low", "high", "n", "documents")
    writer.writerow(["run", "first_step", "last_step", "measure", *columns])
    for one in (one for bins in runs for one in bins):
        for name in names:
            numbers = _numbers(one, name)
            cells = [numbers[column] for column in columns]
            writer.writerow([one.run, one.first, one.last, name, *cells])
    paths = stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".csv")
    write_sealed(paths[0], document)
    write_text(paths[1], table.getvalue())
    return paths


def _place(one: Bin) -> dict[str, Any]:
    return {"run": one.run, "first_step": one.first, "last_step": one.last}


def _numbers(one: Bin, name: str) -> dict[str, Any]:
    return _plain(one.measures[name].interval())


def _plain(interval: Interval) -> dict[str, Any]:
    """For JSON and CSV: what is no number is null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in interval.as_dict().items()
    }


def print_patterns(runs: Sequence[Sequence[Bin]], console: Console) -> None:
    """One run: its bins side by side, and last − first. Several: the last bin of each, and its
    difference from the first run's."""
    alone = len(runs) == 1
    shown = list(runs[0]) if alone else [bins[-1] for bins in runs]
    pairs = [(a, b) for a, b in compared(runs) if alone or b is runs[0][-1]]
    table = Table(title="Reasoning patterns of the stored rollouts", title_justify="left")
    table.add_column("measure", no_wrap=True, min_width=max(map(len, MEASURES)))
    for one in shown:
        steps = f"steps {one.name}" if len(one.steps) > 1 else f"step {one.name}"
        steps = steps if one.steps else one.name
        table.add_column(steps if alone else f"{one.run}\n{steps}", justify="right")
    for a, b in pairs:
        heading = f"{a.name} − {b.name}" if alone else f"{a.run}\n− {b.run}"
        table.add_column(heading, justify="right")
    measured = [
        name for name in shown[0].measures if any(len(one.measures[name].values) for one in shown)
    ]
    for name, after in pairwise([*measured, ""]):
        table.add_row(
            name,
            *(_pattern_cell(name, one.measures[name].interval()) for one in shown),
            *(_pattern_cell(name, difference(a, b, name), sign="+") for a, b in pairs),
            end_section=_section(name) != _section(after),
        )
    none = [""] * len(pairs)
    table.add_section()
    costs = [cost_cells({"flops": one.flops, "seconds": one.seconds}) for one in shown]
    for heading, cells in zip(COST_HEADINGS, zip(*costs, strict=True), strict=True):
        table.add_row(heading, *cells, *none)
    console.print(table)
    legend = "\n".join(f"{name}: {MEASURES[name]}" for name in measured if name in MEASURES)
    notes = (
        "In brackets: 95 % of resamples of documents. Differences of shares are in points;"
        " * the interval leaves 0 out."
    )
    if _section(measured[0]) == "keywords":
        legend = f"keywords/…: thoughts with a keyword of the group\n{legend}"
    console.print(Text(f"{legend}\n{notes}", "dim"))


def _section(name: str) -> str:
    """What a measure is of."""
    if name.startswith("keywords/"):
        return "keywords"
    return "thoughts" if name in THOUGHT_MEASURES else "predictions"


def _pattern_cell(name: str, interval: Interval, sign: str = "") -> str:
    """`12.5 % (10.1 to 14.9)`; a dash where there is nothing to measure."""
    if math.isnan(interval.value):
        return "–"
    share = name not in DECIMALS
    scale, decimals = (100.0, 1) if share else (1.0, DECIMALS[name])

    def number(value: float) -> str:
        return f"{scale * value:{sign}.{decimals}f}".replace("-", "−")

    text = number(interval.value) + " %" * (share and not sign)
    if math.isnan(interval.low):
        return text
    star = " *" if sign and (interval.low > 0 or interval.high < 0) else ""
    return f"{text} ({number(interval.low)} to {number(interval.high)}){star}"
