"""The files of a comparison: JSON, CSV, markdown and a figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openrpt.errors import UserError
from openrpt.evaluation.next_token.compare import Comparison, Line
from openrpt.evaluation.next_token.recorded import Recorded
from openrpt.evaluation.next_token.tables import LAYOUTS, settings_sheet
from openrpt.evaluation.reports import write_report
from openrpt.json_files import read_json
from openrpt.sheets import markdown


def write_comparison(comparison: Comparison, folder: Path, sources: Sequence[str]) -> list[Path]:
    """Writes `comparison.json`, `.csv` (a row a model, mode and slice), `.md` (every layout) and
    `.svg`.

    A comparison of the same sources is replaced. Raises UserError where the folder holds one of
    other sources.
    """
    from openrpt.evaluation.next_token.figure import comparison_svg

    path = folder / "comparison.json"
    if path.is_file():
        try:
            before = read_json(path, advice="delete it, or choose another --out")["sources"]
        except (KeyError, TypeError):
            raise UserError(f"{path}: damaged; delete it, or choose another --out") from None
        if before != list(sources):
            raise UserError(f"{folder}: holds the comparison of {before}; choose another --out")
    rows = [row for line in comparison.lines for row in _rows(line)]
    document = {
        "sources": list(sources),
        "against": comparison.against,
        "notes": comparison.notes,
        "verdicts": comparison.verdicts,
        "models": {model.name: _model(model) for model in comparison.models},
        "rows": rows,
    }
    return write_report(
        folder / "comparison",
        document,
        rows,
        _all_layouts(comparison),
        figure=comparison_svg(comparison),
    )


def _all_layouts(comparison: Comparison) -> str:
    """Returns every layout that has something to show, the settings in which runs differ, notes and
    verdicts."""
    sheets = [*(make(comparison) for make in LAYOUTS.values()), settings_sheet(comparison)]
    notes = [f"- {note}" for note in comparison.notes]
    notes += [f"- {name}: {sentence}" for name, sentence in comparison.verdicts.items()]
    parts = [markdown(sheet) for sheet in sheets if sheet.rows]
    return "\n".join([*parts, *notes]).rstrip() + "\n"


def _rows(line: Line) -> list[dict[str, Any]]:
    """Returns a row for each slice: accuracy, difference to the line compared with, cost of
    training."""
    rows = []
    for part, inside in line.model.result.slices().items():
        if part not in line.differences:
            continue  # a token class that only another tokenizer has
        difference = line.differences[part].as_dict()
        names = ("value", "low", "high", "p", "distinguishable")
        rows.append(
            {
                "model": line.model.name,
                "mode": line.mode,
                "slice": part,
                **line.model.result.estimate(line.mode, inside).as_dict(),
                **{f"difference_{name}": difference[name] for name in names},
                **line.model.cost,
            }
        )
    return rows


def _model(model: Recorded) -> dict[str, Any]:
    """Returns what stands beside the accuracies: every measure, on the common positions."""
    return {
        "model": model.entry["model"],
        "run": str(model.run),
        "label": model.label,
        "note": model.entry["note"],
        "cost": model.cost,
        "summary": model.result.summary(),
        "calibration": model.result.calibration(),
    }
