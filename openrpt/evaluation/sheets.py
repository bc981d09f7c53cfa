"""Sheets: tables of text, shown on the terminal or as markdown, and how their cells are written."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from openrpt.costs.amounts import duration


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of cells that are written already."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    labels: int = 1
    """Leading columns that are words: they stand on the left."""
    whole: int = 0
    """Leading columns whose cells are never broken, however narrow the terminal."""
    ends: set[int] = field(default_factory=set)
    """Rows under which there is a line."""
    notes: list[str] = field(default_factory=list)


def print_sheet(sheet: Sheet, console: Console) -> None:
    """The sheet as a table, and its notes below."""
    table = Table(title=sheet.title, title_justify="left")
    for i, heading in enumerate(sheet.headings):
        whole = i < sheet.whole
        if i < sheet.labels:
            table.add_column(heading, overflow="fold", no_wrap=whole)
        else:
            table.add_column(heading, justify="right", no_wrap=whole)
    for i, row in enumerate(sheet.rows):
        table.add_row(*row, end_section=i in sheet.ends)
    console.print(table)
    for note in sheet.notes:
        console.print(Text(note, "dim"), soft_wrap=True)


def markdown(sheet: Sheet) -> str:
    """The sheet as a markdown table under its title."""
    rules = ["---" if i < sheet.labels else "---:" for i in range(len(sheet.headings))]
    rows = [sheet.headings, rules, *sheet.rows]
    lines = [f"| {' | '.join(map(_markdown_cell, row))} |" for row in rows]
    return "\n\n".join([f"**{sheet.title}**", "\n".join(lines), *sheet.notes]) + "\n"


def _markdown_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


# ---- cells --------------------------------------------------------------------------------------

COST_HEADINGS = ["training FLOPs", "training time"]
"""What stands over `cost_cells`, of training."""


def cost_cells(cost: Mapping[str, Any]) -> list[str]:
    """FLOPs and time, of training as `training_cost` says it, or of other work as WorkMeter does;
    dashes for what is not known."""
    flops, seconds = cost.get("flops"), cost.get("seconds")
    bound = "≥ " if cost.get("steps_without_flops") else ""
    return [
        "–" if flops is None else f"{bound}{flops:.2g}",
        "–" if seconds is None else duration(seconds),
    ]


def percent(estimate: dict[str, Any]) -> str:
    """`52.9 ± 1.6 %`; a dash where nothing was measured, no error from a single document."""
    if not estimate["n"]:
        return "–"
    if math.isnan(estimate["standard_error"]):
        return f"{100 * estimate['value']:.1f} %"
    return f"{100 * estimate['value']:.1f} ± {100 * estimate['standard_error']:.1f} %"


def points(difference: Mapping[str, Any]) -> str:
    """`+1.2 [−0.3, +2.7]`, in points; a dash where nothing was measured, no interval from a single
    document."""
    value, low, high = (100 * difference[name] for name in ("value", "low", "high"))
    if math.isnan(value):
        return "–"
    interval = "" if math.isnan(low) else f" [{low:+.1f}, {high:+.1f}]"
    return f"{value:+.1f}{interval}".replace("-", "−")
