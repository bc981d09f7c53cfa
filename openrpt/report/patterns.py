"""The table of `openrpt patterns`, where it was run: what the thoughts are like, over the steps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrpt.errors import UserError
from openrpt.files import read_json

FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class PatternTable:
    ranges: list[str]
    """Of steps: a column each."""
    rows: list[tuple[str, str, list[str]]]
    """(measure, what it is, a cell a range)"""


def read_patterns(path: Path, run: Path) -> PatternTable | None:
    """Of patterns.json the ranges of this run. Raises UserError for a file of another layout."""
    if not path.is_file():
        return None
    try:
        document = read_json(path, advice="run openrpt patterns again")
        if document["format"] != FORMAT:
            raise UserError(f"{path}: format {document['format']!r}, written by another version")
        bins = document["bins"]
        own = [one for one in bins if Path(one["run"]).name == run.resolve().name] or bins
        rows = [
            (
                name,
                document["measures"].get(name, ""),
                [_cell(one["measures"][name]) for one in own],
            )
            for name in own[0]["measures"]
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not readable ({error!r}); run openrpt patterns again") from None
    ranges = [f"{one['first_step']}–{one['last_step']}" for one in own]
    return PatternTable(ranges=ranges, rows=[row for row in rows if any(row[2])])


def _cell(numbers: Mapping[str, Any]) -> str:
    """'0.12 (0.10–0.15)'; empty where nothing was measured."""
    value, low, high = (numbers.get(name) for name in ("value", "low", "high"))
    if value is None or not math.isfinite(value):
        return ""
    if low is None or high is None or not math.isfinite(low):
        return f"{value:.3g}"
    return f"{value:.3g} ({low:.3g}–{high:.3g})"
