"""Evaluations and comparisons as people read them: on the terminal, and as files."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from openrpt.errors import UserError
from openrpt.evaluation.compare import Comparison, Evaluated, Line
from openrpt.evaluation.controls import thought_differences, verdict
from openrpt.evaluation.results import BITS_A_BYTE, THOUGHT_CONTROLS, EvaluationResult
from openrpt.evaluation.statistics import Difference
from openrpt.evaluation.token_classes import TOKEN_CLASSES
from openrpt.files import write_text
from openrpt.show import percent

FORMAT = 1
SHOWN = ("all", "medium", "hard")


def print_details(result: EvaluationResult, console: Console) -> None:
    """What stands below the accuracies: token classes, controls, likelihoods, calibration."""
    summary = result.summary()
    _print_classes(result, summary, console)
    lines = [*_control_lines(result, summary), *_likelihood_lines(summary)]
    calibration = result.calibration()
    if calibration is not None and calibration["n"]:
        error = 100 * calibration["expected_calibration_error"]
        lines.append(f"calibration: agreement of the samples is off by {error:.1f} points")
    if result.has_reasoning and summary["agrees_start"]["all"]["n"]:
        agrees = percent(summary["agrees_start"]["all"])
        lines.append(f"the same prediction as the start model's argmax: {agrees}")
    if {"emptied", "swapped"} <= result.columns.keys():
        lines.append(verdict(thought_differences(result)))
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _print_classes(
    result: EvaluationResult, summary: dict[str, dict[str, Any]], console: Console
) -> None:
    modes = [mode for mode in ("ntp", "reasoning") if mode in summary]
    table = Table(title="by the class of the true token", title_justify="left")
    table.add_column("")
    for name in ("positions", *modes):
        table.add_column(name, justify="right")
    for name in TOKEN_CLASSES:
        if name in summary["ntp"]:
            cells = [percent(summary[mode][name]) for mode in modes]
            table.add_row(name, f"{summary['ntp'][name]['n']:,}", *cells)
    console.print(table)


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


def print_templates(found: Sequence[tuple[str, EvaluationResult]], console: Console) -> None:
    """Templates side by side: the paper's Random@1 and Pass@k."""
    table = Table(title="prompt templates", title_justify="left")
    samples = found[0][1].samples
    table.add_column("")
    first = "Random@1" if samples else "greedy"
    columns = {"reasoning": first} | ({"any_right": f"Pass@{samples}"} if samples > 1 else {})
    for heading in (*columns.values(), "a prediction"):
        table.add_column(heading, justify="right")
    for label, result in found:
        cells = [percent(result.estimate(name).as_dict()) for name in (*columns, "closed")]
        table.add_row(label, *cells)
    console.print(table)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """One line a model and mode, with differences and costs."""
    result = comparison.models[0].result
    documents = result.estimate("ntp").documents
    table = Table(
        title=f"{result.num_positions:,} positions of {documents:,} documents; differences to"
        f" {comparison.against}",
        title_justify="left",
    )
    table.add_column("model", overflow="fold")
    table.add_column("mode")
    for name in (*SHOWN, "difference [95 %]", "p", "FLOPs", "time"):
        table.add_column(name, justify="right")
    for line in comparison.lines:
        parts = line.model.result.slices()
        cells = [
            percent(line.model.result.estimate(line.mode, parts[part]).as_dict()) for part in SHOWN
        ]
        difference = line.differences["all"]
        same = line.name == comparison.against
        cells += ["", ""] if same else [points(difference), f"{difference.p:.2g}"]
        table.add_row(line.model.name, line.mode, *cells, *_cost_cells(line.model))
    console.print(table)
    console.print(Text("± is the standard error by document; FLOPs and time are training's", "dim"))
    for note in comparison.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    for name, sentence in comparison.verdicts.items():
        console.print(Text(f"{name}: {sentence}"), soft_wrap=True)


def points(difference: Difference) -> str:
    """`+1.2 [-0.3, +2.7]`, in points; no interval from a single document."""
    values = [100 * v for v in (difference.value, difference.low, difference.high)]
    if math.isnan(difference.value):
        return "–"
    if math.isnan(difference.low):
        return f"{values[0]:+.1f}"
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*values)


def _cost_cells(model: Evaluated) -> tuple[str, str]:
    from openrpt.report.summary import duration

    flops, seconds = model.cost["flops"], model.cost["seconds"]
    bound = "≥ " if model.cost["steps_without_flops"] else ""
    return (
        "–" if flops is None else f"{bound}{flops:.2g}",
        "–" if seconds is None else duration(seconds),
    )


def write_comparison(comparison: Comparison, folder: Path, sources: Sequence[str]) -> list[Path]:
    """`comparison.json`, `.csv` (a row a model, mode and slice) and `.svg`; each atomic.

    A comparison of the same sources is replaced. Raises UserError where the folder holds one of
    other sources.
    """
    from openrpt.evaluation.figure import comparison_svg

    path = folder / "comparison.json"
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))["sources"]
        except (json.JSONDecodeError, KeyError):
            raise UserError(f"{path}: damaged; delete it, or choose another --out") from None
        if before != list(sources):
            raise UserError(f"{folder}: holds the comparison of {before}; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
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
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files = {
        path: json.dumps(finite(document), indent=1, allow_nan=False),
        folder / "comparison.csv": text.getvalue(),
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


def finite(value: Any) -> Any:
    """As JSON can say it: numbers that are none become null."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
