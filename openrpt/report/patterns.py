"""The table of `openrpt patterns` in the report: what the thoughts are like, over the steps."""

from dataclasses import dataclass
from pathlib import Path

from openrpt.errors import UserError
from openrpt.evaluation.patterns.table import pattern_cell
from openrpt.json_files import read_json
from openrpt.sheets import NOTHING

_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class PatternTable:
    """The table of thinking patterns, a column a range of steps."""

    ranges: list[str]
    """The steps of each column, `1–3`."""
    rows: list[tuple[str, str, list[str]]]
    """The rows: (measure, what it is, a cell a range)."""


def read_patterns(path: Path, run: Path) -> PatternTable | None:
    """Reads the ranges of this run in its `patterns.json`; None without one.

    Raises UserError for a file of another layout.
    """
    if not path.is_file():
        return None
    try:
        document = read_json(path, advice="run openrpt patterns again")
        if document["format"] != _FORMAT:
            raise UserError(f"{path}: format {document['format']!r}, written by another version")
        bins = document["bins"]
        own = [one for one in bins if Path(one["run"]).name == run.resolve().name] or bins
        rows = [
            (
                name,
                document["measures"].get(name, ""),
                [pattern_cell(name, one["measures"][name]) for one in own],
            )
            for name in own[0]["measures"]
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not readable ({error!r}); run openrpt patterns again") from None
    ranges = [f"{one['first_step']}–{one['last_step']}" for one in own]
    return PatternTable(ranges=ranges, rows=[row for row in rows if set(row[2]) != {NOTHING}])
