"""The files of a laboratory: what it found (`lab.json`), its tables and its figure."""

from pathlib import Path
from typing import Any

from openrpt.experiments.lab.figure import lab_svg
from openrpt.experiments.lab.outcome import Outcome
from openrpt.experiments.lab.tables import lab_sheets
from openrpt.files import write_text
from openrpt.json_files import checked_as, read_json, write_sealed
from openrpt.sheets import markdown

_FORMAT = 1
OUTCOME, TABLES, FIGURE = "lab.json", "lab.md", "lab.svg"


def write_files(folder: Path, outcome: Outcome) -> None:
    """Writes what was found, then the tables and the figure; each atomic."""
    write_outcome(folder / OUTCOME, outcome)
    write_text(folder / TABLES, tables_text(outcome))
    write_text(folder / FIGURE, lab_svg(outcome))


def tables_text(outcome: Outcome) -> str:
    """Returns all tables as markdown."""
    return "\n".join(map(markdown, lab_sheets(outcome)))


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Writes what was found. Atomic."""
    values: dict[str, Any] = {"format": _FORMAT, **outcome.model_dump()}
    write_sealed(path, values)


def read_outcome(path: Path) -> Outcome:
    """Reads what `write_outcome` wrote. Raises UserError where it is damaged."""
    advice = "run the same openrpt lab again"
    return checked_as(Outcome, read_json(path, advice=advice), path, advice=advice)
