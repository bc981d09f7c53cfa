"""Files of JSON lines, a step's or an answer's each: a line is on the disk before the next step
begins, and holds its own hash (under `sha256`), so that a flipped bit is noticed.

A last line that is no whole object, nor ends, was being written when a process ended.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrpt.errors import UserError
from openrpt.files import append_line, reason_of, write_text
from openrpt.json_files import SEAL, is_sealed, sealed

Row = dict[str, Any]
"""One line's JSON object."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonLines:
    """The content of a file of JSON lines: its rows, and the lines that can't be taken for rows."""

    rows: list[Row]
    """The whole rows, without their hashes."""
    damaged: list[int]
    """Numbers of the lines, from 1, that are not what was written."""
    cut: bool
    """Whether the last line has no end and is no whole JSON object; it counts neither as a row nor
    as damaged."""


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Appends a row, which is on the disk when this returns: 1 ms on an SSD. Raises UserError where
    it can't be written."""
    append_line(path, _line(row))


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes the file anew, in one step. Raises UserError where it can't be written."""
    write_text(path, "".join(_line(row) + "\n" for row in rows))


def read_lines(path: Path, *, fits: Callable[[Row], bool] = lambda row: True) -> JsonLines:
    """Reads a file of JSON lines; an absent one is empty. `fits`: whether a row is one of such a
    file. Raises UserError for a file that may not be read."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        lines = []
    except OSError as error:
        raise UserError(f"{path}: cannot be read {reason_of(error)}") from None
    found = {number: _object(line) for number, line in enumerate(lines, 1) if line.strip()}
    cut = found.get(len(lines), {}) is None
    if cut:
        del found[len(lines)]
    hashed = False  # an earlier version wrote rows without, and a later one may have gone on
    damaged, rows = [], []
    for number, row in found.items():
        hashed |= row is not None and SEAL in row
        if row is None or (hashed and not is_sealed(row)) or not fits(row):
            damaged.append(number)
        else:
            row.pop(SEAL, None)
            rows.append(row)
    return JsonLines(rows=rows, damaged=damaged, cut=cut)


def whole_rows(path: Path, *, advice: str) -> list[Row]:
    """Returns all rows but one that was cut off. Raises UserError where one is damaged."""
    lines = read_lines(path)
    if lines.damaged:
        raise UserError(f"{path}:{lines.damaged[0]}: damaged or changed by hand; {advice}")
    return lines.rows


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(sealed(row))


def _object(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, or no UTF-8
        return None
    return row if isinstance(row, dict) else None
