"""The findings of instruments, put together: shown as sheets, and written as JSON, CSV, markdown
and a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from openrpt.files import csv_text, write_text
from openrpt.json_files import json_text
from openrpt.sheets import Sheet, markdown, print_sheet

_FORMAT = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """The results of several models side by side."""

    name: str
    """The name of its files, without their ending."""
    about: Mapping[str, Any]
    """The description of what was measured, as JSON holds it."""
    models: Mapping[str, Mapping[str, Any]]
    """Label → where the model lies, what its training cost, and what measuring it cost."""
    rows: Sequence[Mapping[str, Any]]
    """The numbers: a row a measure and model."""
    sheets: Sequence[Sheet]
    figure: str = field(default="", repr=False)
    """The figure as SVG; empty where there is none."""

    def show(self, console: Console) -> None:
        """Prints the sheets."""
        for sheet in self.sheets:
            print_sheet(sheet, console)

    def write(self, folder: Path) -> list[Path]:
        """Writes the report's files, in the place of an earlier one's; returns their paths."""
        document = {**self.about, "models": self.models, "rows": self.rows}
        text = "\n".join(map(markdown, self.sheets))
        return write_report(folder / self.name, document, self.rows, text, figure=self.figure)


def write_report(
    stem: Path,
    document: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    text: str,
    *,
    figure: str = "",
) -> list[Path]:
    """Writes `STEM.json`, `.csv` (the rows), `.md` and, with a figure, `.svg`; each in one step."""
    contents = {
        "json": json_text({"format": _FORMAT, **document}),
        "csv": csv_text(rows),
        "md": text,
    }
    if figure:
        contents["svg"] = figure
    files = {stem.with_name(f"{stem.name}.{kind}"): text for kind, text in contents.items()}
    for path, content in files.items():
        write_text(path, content)
    return list(files)
