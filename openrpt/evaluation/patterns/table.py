"""Reasoning patterns of runs, as a sheet for the terminal and as JSON and CSV."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console

from openrpt.evaluation.intervals import Interval
from openrpt.evaluation.patterns.bins import (
    DECIMALS,
    MEASURES,
    THOUGHT_MEASURES,
    Bin,
    compared,
    difference,
)
from openrpt.evaluation.patterns.measures import KEYWORDS, Keywords
from openrpt.files import csv_text, write_text
from openrpt.json_files import finite_json, write_sealed
from openrpt.sheets import (
    COST_HEADINGS,
    NOTHING,
    Sheet,
    cost_cells,
    extreme_bounds,
    interval,
    print_sheet,
)

_FORMAT = 1


def write_patterns(
    runs: Sequence[Sequence[Bin]], stem: Path, *, keywords: Keywords = KEYWORDS
) -> tuple[Path, Path]:
    """Writes `STEM.json` and `STEM.csv` (a row a run, bin and measure), atomically."""
    names = list(runs[0][0].measures)
    document = {
        "format": _FORMAT,
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
                "measures": {n: finite_json(difference(a, b, n).as_dict()) for n in names},
            }
            for a, b in compared(runs)
        ],
    }
    rows = [
        _place(one) | {"measure": name} | _numbers(one, name)
        for bins in runs
        for one in bins
        for name in names
    ]
    paths = stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".csv")
    write_sealed(paths[0], document)
    write_text(paths[1], csv_text(rows))
    return paths


def _place(one: Bin) -> dict[str, Any]:
    return {"run": one.run, "first_step": one.first, "last_step": one.last}


def _numbers(one: Bin, name: str) -> dict[str, Any]:
    return finite_json(one.measures[name].interval().as_dict())


def print_patterns(runs: Sequence[Sequence[Bin]], console: Console) -> None:
    """Prints the patterns of one run or several, as `_patterns_sheet` puts them."""
    print_sheet(_patterns_sheet(runs), console)


def _patterns_sheet(runs: Sequence[Sequence[Bin]]) -> Sheet:
    """Returns a row a measure. One run: its bins side by side, and last − first. Several: the last
    bin of each, and its difference from the first run's."""
    alone = len(runs) == 1
    shown = list(runs[0]) if alone else [bins[-1] for bins in runs]
    pairs = [(a, b) for a, b in compared(runs) if alone or b is runs[0][-1]]
    headings = [_steps(one) if alone else f"{one.run}\n{_steps(one)}" for one in shown]
    headings += [f"{a.name} − {b.name}" if alone else f"{a.run}\n− {b.run}" for a, b in pairs]
    measured = [
        name for name in shown[0].measures if any(len(one.measures[name].values) for one in shown)
    ]
    rows = [
        [
            name,
            *(pattern_cell(name, one.measures[name].interval().as_dict()) for one in shown),
            *(_difference_cell(name, difference(a, b, name)) for a, b in pairs),
        ]
        for name in measured
    ]
    sections = [*map(_section, measured), "cost"]
    ends = {i for i, (one, next_) in enumerate(pairwise(sections)) if one != next_}
    costs = [cost_cells({"flops": one.flops, "seconds": one.seconds}) for one in shown]
    for heading, cells in zip(COST_HEADINGS, zip(*costs, strict=True), strict=True):
        rows.append([heading, *cells, *("" for _ in pairs)])
    return Sheet(
        title="Reasoning patterns of the stored rollouts",
        headings=["measure", *headings],
        rows=rows,
        ends=ends,
        notes=_legend(measured),
    )


def _steps(one: Bin) -> str:
    """Returns a bin's name, `steps 1–3`; for an evaluation its name."""
    if not one.steps:
        return one.name
    return f"step{'s' if len(one.steps) > 1 else ''} {one.name}"


def _legend(measured: Sequence[str]) -> list[str]:
    """Returns what the measures are, and how the cells are to be read."""
    lines = [f"{name}: {MEASURES[name]}" for name in measured if name in MEASURES]
    if _section(measured[0]) == "keywords":
        lines.insert(0, "keywords/…: thoughts with a keyword of the group")
    lines.append(
        "In brackets: 95 % of resamples of documents. Differences of shares are in points;"
        " * the interval leaves 0 out."
    )
    return lines


def _section(name: str) -> str:
    """Returns what a measure is about: its rows stand together."""
    if name.startswith("keywords/"):
        return "keywords"
    return "thoughts" if name in THOUGHT_MEASURES else "predictions"


def pattern_cell(name: str, numbers: Mapping[str, Any]) -> str:
    """Returns a measure's cell, `12.5 [10.1, 14.9] %`, or without the unit where the measure is no
    share; a dash where there is nothing to measure. `numbers`: value, low, high and documents.

    A share that is 0 or all in every document has the exact interval, as accuracies have: resamples
    of such documents give it no width.
    """
    if name in DECIMALS:
        return interval(numbers, f".{DECIMALS[name]}f")
    if numbers.get("documents") and numbers["low"] == numbers["high"]:
        low, high = extreme_bounds({**numbers, "standard_error": 0.0}) or (numbers["low"],) * 2
        numbers = {**numbers, "low": low, "high": high}
    cell = interval(numbers, ".1f", scale=100.0)
    return cell if cell == NOTHING else f"{cell} %"


def _difference_cell(name: str, found: Interval) -> str:
    """Returns a difference's cell, `+2.4 [+0.1, +4.9] *`, in points where the measure is a
    share."""
    decimals, scale = (DECIMALS[name], 1.0) if name in DECIMALS else (1, 100.0)
    star = " *" if found.low > 0 or found.high < 0 else ""
    return interval(found.as_dict(), f"+.{decimals}f", scale=scale) + star
