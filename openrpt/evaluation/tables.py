"""Evaluations and comparisons as people read them: on the terminal, and as files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from openrpt.errors import UserError
from openrpt.evaluation.compare import Comparison, Evaluated, Line
from openrpt.evaluation.results import BITS_A_BYTE, KIND, THOUGHT_CONTROLS, EvaluationResult
from openrpt.evaluation.sheets import (
    LAYOUTS,
    Sheet,
    cost_cells,
    markdown,
    print_sheet,
)
from openrpt.evaluation.token_classes import TOKEN_CLASSES
from openrpt.evaluation.verdict import thought_differences, verdict
from openrpt.files import csv_text, json_text, read_json, write_text
from openrpt.show import percent

FORMAT = 1
KINDS_SHOWN = 12
"""The commonest kinds of documents; evaluation.json has all."""


def print_details(result: EvaluationResult, console: Console) -> None:
    """What stands below the accuracies: token classes, controls, likelihoods, calibration."""
    summary = result.summary()
    classes = {name: name for name in TOKEN_CLASSES}
    _print_parts("by the class of the true token", classes, summary, console)
    kinds = [part for part in summary["ntp"] if part.startswith(KIND)]
    named = {part: part.removeprefix(KIND) for part in kinds[:KINDS_SHOWN]}
    _print_parts("by the kind of document", named, summary, console)
    if len(kinds) > KINDS_SHOWN:
        console.print(Text(f"… and {len(kinds) - KINDS_SHOWN} more kinds in evaluation.json"))
    lines = [*_control_lines(result, summary), *_likelihood_lines(summary)]
    calibration = result.calibration()
    if calibration is not None and calibration["n"]:
        error = 100 * calibration["expected_calibration_error"]
        lines.append(f"calibration: agreement of the samples is off by {error:.1f} points")
    if result.has_reasoning and summary["agrees_start"]["all"]["n"]:
        agrees = percent(summary["agrees_start"]["all"])
        lines.append(f"the same prediction as the start model's argmax: {agrees}")
    if result.cost:
        flops, seconds = cost_cells(result.cost)
        lines.append(f"this evaluation took {flops} FLOPs, {seconds}")
    if {"emptied", "swapped"} <= result.columns.keys():
        lines.append(verdict(thought_differences(result)))
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _print_parts(
    title: str, parts: dict[str, str], summary: dict[str, dict[str, Any]], console: Console
) -> None:
    """Accuracy by slices that `parts` names, as it calls them; nothing where there are none."""
    modes = [mode for mode in ("ntp", "reasoning") if mode in summary]
    found = {part: name for part, name in parts.items() if part in summary["ntp"]}
    rows = [
        [name, f"{summary['ntp'][part]['n']:,}", *(percent(summary[mode][part]) for mode in modes)]
        for part, name in found.items()
    ]
    if rows:
        headings = ["", "positions", *modes]
        print_sheet(Sheet(title=title, headings=headings, rows=rows), console)


def _control_lines(result: EvaluationResult, summary: dict[str, dict[str, Any]]) -> list[str]:
    words = {"emptied": "emptied", "cut": "cut at half", "swapped": "swapped with another's"}
    lines = [
        f"with its thought {words[name]}: {percent(summary[name]['all'])}"
        for name in THOUGHT_CONTROLS
        if name in summary
    ]
    if "ntp_voting" in summary:
        draws = summary["voting_draws"]["all"]["value"]
        lines.append(
            f"NTP voting at equal inference FLOPs: {percent(summary['ntp_voting']['all'])}"
            f" ({draws:.0f} draws a position)"
        )
    return lines


def _likelihood_lines(summary: dict[str, dict[str, Any]]) -> list[str]:
    if "nll_ntp" not in summary:
        return []
    plain = summary["nll_ntp"]["all"]["value"]
    if "nll" not in summary:
        return [f"negative log-likelihood of the true token: {plain:.3f} nats"]
    after, gain = summary["nll"]["all"]["value"], summary["information_gain"]["all"]
    bits = summary[BITS_A_BYTE]["all"]["value"]
    return [
        f"negative log-likelihood of the true token: {plain:.3f} nats without a thought,"
        f" {after:.3f} after it: information gain {gain['value']:+.3f} ±"
        f" {gain['standard_error']:.3f} nats, {bits:+.3f} bits a byte"
    ]


def print_comparison(comparison: Comparison, console: Console, layout: str = "differences") -> None:
    """One of LAYOUTS, and what must be known to read it."""
    print_sheet(LAYOUTS[layout](comparison), console)
    for note in comparison.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    for name, sentence in comparison.verdicts.items():
        console.print(Text(f"{name}: {sentence}"), soft_wrap=True)


def comparison_markdown(comparison: Comparison) -> str:
    """Every layout that has something to show, notes and verdicts."""
    sheets = [make(comparison) for make in LAYOUTS.values()]
    notes = [f"- {note}" for note in comparison.notes]
    notes += [f"- {name}: {sentence}" for name, sentence in comparison.verdicts.items()]
    parts = [markdown(sheet) for sheet in sheets if sheet.rows]
    return "\n".join([*parts, *notes]).rstrip() + "\n"


def write_comparison(comparison: Comparison, folder: Path, sources: Sequence[str]) -> list[Path]:
    """`comparison.json`, `.csv` (a row a model, mode and slice), `.md` (every layout) and `.svg`.

    A comparison of the same sources is replaced. Raises UserError where the folder holds one of
    other sources.
    """
    from openrpt.evaluation.figure import comparison_svg

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
        "format": FORMAT,
        "sources": list(sources),
        "against": comparison.against,
        "notes": comparison.notes,
        "verdicts": comparison.verdicts,
        "models": {model.name: _model(model) for model in comparison.models},
        "rows": rows,
    }
    files = {
        path: json_text(document),
        folder / "comparison.csv": csv_text(rows),
        folder / "comparison.md": comparison_markdown(comparison),
        folder / "comparison.svg": comparison_svg(comparison),
    }
    for file, content in files.items():
        write_text(file, content)
    return list(files)


def _rows(line: Line) -> list[dict[str, Any]]:
    """One a slice: accuracy, difference to the line compared with, cost of training."""
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


def _model(model: Evaluated) -> dict[str, Any]:
    """What stands beside the accuracies: every measure, on the common positions."""
    return {
        "model": model.entry["model"],
        "run": str(model.run),
        "label": model.label,
        "note": model.entry["note"],
        "cost": model.cost,
        "summary": model.result.summary(),
        "calibration": model.result.calibration(),
    }
