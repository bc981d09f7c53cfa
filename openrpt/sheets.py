"""Tables as sheets of text, shown on the terminal or as markdown, and how their cells are written.

Whatever an instrument, a stage or a command has to show in rows is a `Sheet`. CSV and JSON hold
the bare numbers instead (`openrpt.files.csv_text`, `openrpt.json_files.json_text`).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from openrpt.amounts import duration, flops

NOTHING = "–"
"""The cell of what was not measured or is not known."""
_UNBROKEN = 28
"""Characters up to which a cell is not folded: the longest interval has fewer."""
_LABEL = 12
"""Characters up to which a label behind the first is not folded."""
_BORDER = 3
"""Characters between two columns."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of cells that are written already."""

    title: str
    """Empty where what stands before the table says what it is."""
    headings: list[str]
    rows: list[list[str]]
    labels: int = 1
    """Leading columns that are words: they stand on the left."""
    whole: int = 0
    """Leading columns whose cells are never broken, however narrow the terminal."""
    ends: set[int] = field(default_factory=set)
    """Rows under which there is a line."""
    notes: list[str] = field(default_factory=list)
    """What must be known to read it, a line each."""
    styles: Mapping[str, str] = field(default_factory=dict)
    """The terminal's style of cells with this text; it only repeats what the text says."""


def print_sheet(sheet: Sheet, console: Console, *, pasted: bool = False) -> None:
    """The sheet in the terminal's width: as several tables with the same rows where it is wider. No
    number is ever broken; words are folded. `pasted`: in markdown's own lines, so that what was
    printed can be pasted."""
    for place, part in enumerate(parts_of(sheet, console.width)):
        title = sheet.title if place == 0 else ""
        table = Table(
            title=Text(title) if title else None,
            title_justify="left",
            box=box.MARKDOWN if pasted else box.HEAVY_HEAD,
        )
        widths = _widths(sheet, part, console.width)
        for i in part:
            table.add_column(
                Text("\n".join(_heading_lines(sheet, i, console.width))),
                overflow="fold",
                no_wrap=_unbroken(sheet, i, console.width),
                justify="left" if i < sheet.labels else "right",
                width=widths[i],
            )
        for number, row in enumerate(sheet.rows):
            # Text, not str: the brackets of "openrpt[lora]" are no markup.
            cells = [Text(_folded(row[i], widths[i]), sheet.styles.get(row[i], "")) for i in part]
            table.add_row(*cells, end_section=number in sheet.ends)
        console.print(table)
    for note in sheet.notes:
        console.print(Text(note, "dim"), soft_wrap=True)


def _widths(sheet: Sheet, part: Sequence[int], width: int) -> dict[int, int]:
    """Returns the characters of each column of a table: what it needs, and of what is left over as
    much as its longest line takes, from the first column on."""
    widths = {i: _least_width(sheet, i, width) for i in part}
    left = width - 1 - sum(widths.values()) - _BORDER * len(part)
    for i in part:
        more = max(0, min(_longest(sheet, i) - widths[i], left))
        widths[i] += more
        left -= more
    return widths


def _folded(cell: str, width: int) -> str:
    """Returns a cell in lines of at most `width` characters, which end behind a sign that joins
    names where there is one; a name that is longer is broken where the line ends.

    >>> _folded("general-text/trained-template=v0", 20)
    'general-text/\\ntrained-template=v0'
    >>> _folded("for openrpt.integrations.trl", 16)
    'for openrpt.\\nintegrations.trl'
    """
    return "\n".join(line for text in cell.split("\n") for line in _lines(text, width))


def _lines(text: str, width: int) -> list[str]:
    lines = [""]
    for piece in re.split(r"(?<=[-/,_= ])|(?<=[a-z]\.)(?=[a-z])", text):
        if lines[-1] and cell_len(lines[-1]) + cell_len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def parts_of(sheet: Sheet, width: int) -> list[list[int]]:
    """Returns the columns of each table that a sheet is printed as: the labels, and as many others
    as fit beside them; one at least."""
    labels = [*range(sheet.labels)]
    left = width - 1 - sum(_least_width(sheet, i, width) + _BORDER for i in labels)
    parts, room = [[*labels]], left
    for i in range(sheet.labels, len(sheet.headings)):
        needed = _least_width(sheet, i, width) + _BORDER
        if needed > room and len(parts[-1]) > len(labels):
            parts.append([*labels])
            room = left
        parts[-1].append(i)
        room -= needed
    return parts


def _unbroken(sheet: Sheet, i: int, width: int) -> bool:
    """Returns whether a column's cells stand in one line: numbers always, the names of the rows
    where they leave room for numbers."""
    if i < sheet.whole:
        return True
    if i >= sheet.labels:
        return _longest(sheet, i) <= _UNBROKEN
    if i > 0:
        return _longest(sheet, i) <= _LABEL
    numbers = [_longest(sheet, other) for other in range(sheet.labels, len(sheet.headings))]
    widest = max((size for size in numbers if size <= _UNBROKEN), default=0)
    left = width - 1 - (_LABEL + _BORDER) * (sheet.labels - 1) - widest - 2 * _BORDER
    return _longest(sheet, i) <= min(_UNBROKEN, width // 3, left)


def _least_width(sheet: Sheet, i: int, width: int) -> int:
    """Returns the characters that a column needs: all of what isn't broken, room for words of
    what is."""
    longest = _longest(sheet, i)
    cells = longest if _unbroken(sheet, i, width) else min(longest, width // 5)
    return max(cells, *map(len, _heading_lines(sheet, i, width)), 1)


def _longest(sheet: Sheet, i: int) -> int:
    lines = (line for row in sheet.rows for line in row[i].split("\n"))
    return max(map(cell_len, lines), default=0)


def _heading_lines(sheet: Sheet, i: int, width: int) -> list[str]:
    """Returns a heading as wide as its column's cells, broken between words."""
    words = re.split(r" (?![^\[(]*[\])])", sheet.headings[i])  # `[95 %]` stays one
    room = max(min(_longest(sheet, i), width // 5), *map(len, words))
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def markdown(sheet: Sheet) -> str:
    """The sheet as a markdown table under its title, its notes below."""
    rules = ["---" if i < sheet.labels else "---:" for i in range(len(sheet.headings))]
    lines = [_markdown_line(row) for row in (sheet.headings, rules, *sheet.rows)]
    title = [f"**{sheet.title}**"] if sheet.title else []
    return "\n\n".join([*title, "\n".join(lines), *sheet.notes]) + "\n"


def _markdown_line(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", r"\|").replace("\n", "<br>") for cell in cells]
    return f"| {' | '.join(escaped)} |"


# ---- cells --------------------------------------------------------------------------------------

COST_HEADINGS = ["training FLOPs", "training time"]
"""Headings of `cost_cells`, where they are of training."""


def cost_cells(cost: Mapping[str, Any]) -> list[str]:
    """FLOPs and time, of training as `models.training_cost` says it, or of other work as WorkMeter
    does; dashes for what is not known."""
    count, seconds = cost.get("flops"), cost.get("seconds")
    bound = "≥ " if cost.get("steps_without_flops") else ""
    return [
        NOTHING if count is None else bound + flops(count),
        NOTHING if seconds is None else duration(seconds),
    ]


def extreme_bounds(estimate: Mapping[str, Any]) -> tuple[float, float] | None:
    """Returns the exact 95 % interval of a share where all of it, or none, was right in every
    document, so that they do not differ; else None.

    With D documents (observations, where documents are not told) it reaches 1 − 0.025^(1/D) from
    the end: Clopper and Pearson's interval of 0 of D. As by the standard error, a document counts
    once: those of its positions are not independent.
    """
    size, value = estimate.get("documents", estimate["n"]), estimate["value"]
    if size < 2 or estimate["standard_error"] or value not in (0, 1):
        return None
    reach = _unseen(size)
    return (1 - reach, 1.0) if value else (0.0, reach)


def alike_bounds(value: float, documents: int) -> tuple[float, float]:
    """Returns the exact 95 % interval of a difference of shares that is the same in every document,
    so that resampling them gives it no width.

    By Clopper and Pearson's bound for 0 of D at most 1 − 0.025^(1/D) of all documents are unlike
    those that were seen; in these the difference could be anything from −1 to 1.
    """
    reach = _unseen(documents)
    return (1 - reach) * value - reach, (1 - reach) * value + reach


def _unseen(size: int) -> float:
    """Returns the greatest share (at 97.5 %) of what none of `size` observations was."""
    return float(1 - 0.025 ** (1 / size))


def share(estimate: Mapping[str, Any]) -> str:
    """`52.9 ± 1.6`, in percent, where the heading says so; `0.0 [0.0, 3.8]` where no error can be
    read off the documents; a dash where nothing was measured, no error from a single document.

    >>> share({"value": 0.0, "standard_error": 0.0, "n": 384, "documents": 96})
    '0.0 [0.0, 3.8]'
    """
    if not estimate["n"]:
        return NOTHING
    if bounds := extreme_bounds(estimate):
        low, high = bounds
        return f"{100 * estimate['value']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    error = 100 * estimate["standard_error"]
    spread = "" if math.isnan(error) else f" ± {error:.1f}"
    return f"{100 * estimate['value']:.1f}{spread}"


def percent(estimate: Mapping[str, Any]) -> str:
    """`52.9 ± 1.6 %`: as `share`, with its unit."""
    return f"{share(estimate)} %" if estimate["n"] else NOTHING


def share_with_n(estimate: Mapping[str, Any]) -> str:
    """`52.9 ± 1.6 (140)`: as `share`, with n in brackets."""
    return f"{share(estimate)} ({estimate['n']:,})" if estimate["n"] else NOTHING


def interval(found: Mapping[str, Any], format: str = "+.1f", *, scale: float = 1.0) -> str:
    """`+1.2 [−0.3, +2.7]`: a value, and from where to where 95 % of the resamples lie.

    `found`: value, low and high, None or NaN where there is none: a dash where nothing was
    measured, no bounds from a single document. `format` and `scale`: of each of the three.
    """
    value, low, high = (_scaled(found.get(name), scale) for name in ("value", "low", "high"))
    if not math.isfinite(value):
        return NOTHING
    known = math.isfinite(low) and math.isfinite(high)
    bounds = f" [{low:{format}}, {high:{format}}]" if known else ""
    return f"{value:{format}}{bounds}".replace("-", "−")


def points(difference: Mapping[str, Any]) -> str:
    """`+1.2 [−0.3, +2.7]`: a difference of shares, in points. Where it was recorded with bounds
    that are one, it is the same in every document: as `alike_bounds` says.

    >>> points({"value": 0.0, "low": 0.0, "high": 0.0, "documents": 12})
    '+0.0 [−26.5, +26.5]'
    """
    documents = difference.get("documents", 0)
    if documents > 1 and difference["low"] == difference["high"]:
        low, high = alike_bounds(difference["value"], documents)
        difference = {**difference, "low": low, "high": high}
    return interval(difference, scale=100.0)


def _scaled(value: float | None, scale: float) -> float:
    return math.nan if value is None else scale * value
