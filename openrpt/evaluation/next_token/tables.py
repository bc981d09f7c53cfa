"""Evaluations and comparisons as people read them: on the terminal, and as files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from openrpt.data.positions import DIFFICULTIES
from openrpt.data.token_classes import TOKEN_CLASSES
from openrpt.errors import UserError
from openrpt.evaluation.next_token.compare import (
    Comparison,
    Evaluated,
    Line,
    mean_over_difficulties,
    thought_differences,
    verdict,
)
from openrpt.evaluation.next_token.results import (
    BITS_A_BYTE,
    CARRIED,
    KIND,
    THOUGHT_CONTROLS,
    EvaluationResult,
)
from openrpt.files import csv_text, json_text, read_json, write_text
from openrpt.sheets import (
    COST_HEADINGS,
    Sheet,
    cost_cells,
    markdown,
    percent,
    points,
    print_sheet,
)

if TYPE_CHECKING:
    from rich.console import Console

    from openrpt.evaluation.next_token.results import EvaluationResult


SHOWN = ("all", "medium", "hard")
ALL = "all"


def size_of(result: EvaluationResult) -> str:
    documents = result.estimate("ntp").documents
    return f"{result.num_positions:,} positions of {documents:,} documents"


def _cell(result: EvaluationResult, mode: str, part: str) -> str:
    return percent(result.estimate(mode, result.slices()[part]).as_dict())


# ---- sheets -------------------------------------------------------------------------------------


def differences_sheet(comparison: Comparison) -> Sheet:
    """A row a model and mode, with its paired difference to the one compared with."""
    rows = []
    for line in comparison.lines:
        result, difference = line.model.result, line.differences[ALL]
        same = line.name == comparison.against
        rows.append(
            [
                line.model.name,
                line.mode,
                *(_cell(result, line.mode, part) for part in SHOWN),
                *(["", ""] if same else [points(difference.as_dict()), f"{difference.p:.2g}"]),
                _copies(line),
                *cost_cells(line.model.cost),
            ]
        )
    compared = ["difference [95 %]", "p", "= start's argmax"]
    return Sheet(
        title=f"{size_of(comparison.models[0].result)}; differences to {comparison.against}",
        headings=["model", "mode", *SHOWN, *compared, *COST_HEADINGS],
        rows=rows,
        labels=2,
        notes=["± is the standard error by document"],
    )


def _copies(line: Line) -> str:
    """How often the model says just what the start model would have said."""
    if line.mode != "reasoning":
        return ""
    return percent(line.model.result.estimate("agrees_start").as_dict())


TITLES = {"ntp": "standard NTP", "reasoning": "next-token reasoning"}


def table_1(comparison: Comparison) -> Sheet:
    """The paper's Table 1: both modes by difficulty, with n, errors and costs."""
    rows: list[list[str]] = []
    ends = set()
    for mode, title in TITLES.items():
        lines = [line for line in comparison.lines if line.mode == mode]
        for line in lines:
            result = line.model.result
            cells = [_cell(result, mode, part) for part in DIFFICULTIES]
            rows.append([title, line.model.name, *cells, *cost_cells(line.model.cost)])
        ends.add(len(rows) - 1)
    result = comparison.models[0].result
    parts = result.slices()
    counts = [f"{part} (n = {int(parts[part].sum()):,})" for part in DIFFICULTIES]
    return Sheet(
        title=f"Table 1: accuracy by difficulty, {size_of(result)}",
        headings=["mode", "model", *counts, *COST_HEADINGS],
        rows=rows,
        labels=2,
        ends=ends,
        notes=["± is the standard error by document; difficulties are nested"],
    )


def table_8(models: Sequence[Evaluated]) -> Sheet:
    """The paper's Table 8: by prompt template, one sample (Random@1) and the best of k (Pass@k).

    Models that were evaluated greedily have no Pass@k.
    """
    thinking = [model for model in models if model.result.has_reasoning]
    sizes = sorted({model.result.samples for model in thinking if model.result.samples > 1})
    passes = [f"Pass@{size}" for size in sizes]
    rows = []
    for model in thinking:
        result = model.result
        drawn = [
            percent(result.estimate("any_right").as_dict()) if result.samples == size else ""
            for size in sizes
        ]
        rows.append(
            [
                model.name,
                model.entry.get("template", ""),
                "Random@1" if result.samples else "greedy",
                *(percent(result.estimate(name).as_dict()) for name in ("reasoning", "closed")),
                *drawn,
                *cost_cells(model.entry.get("evaluation_cost") or {}),
            ]
        )
    return Sheet(
        title="Table 8: accuracy by prompt template"
        + (f", {size_of(thinking[0].result)}" if thinking else ""),
        headings=[
            *("model", "template", "decoding", "accuracy", "a prediction", *passes),
            *("evaluation FLOPs", "evaluation time"),
        ],
        rows=rows,
        labels=3,
        notes=["± is the standard error by document"]
        if rows
        else ["none of these models was evaluated in reasoning; --against chooses another first"],
    )


def figure_4(comparison: Comparison) -> Sheet:
    """The paper's Figure 4 in numbers: the mean over difficulties, the best first."""
    found = [(line, mean_over_difficulties(line)) for line in comparison.lines]
    found = [(line, mean) for line, mean in found if line.mode in TITLES and mean.n]
    found.sort(key=lambda pair: -pair[1].value)
    return Sheet(
        title="Figure 4: mean of the accuracies at easy, medium and hard positions, "
        + size_of(comparison.models[0].result),
        headings=["model", "mode", "mean", *COST_HEADINGS],
        rows=[
            [
                line.model.name,
                TITLES[line.mode],
                percent(mean.as_dict()),
                *cost_cells(line.model.cost),
            ]
            for line, mean in found
        ],
        labels=2,
        notes=["± is the standard error by document"],
    )


LAYOUTS: dict[str, Callable[[Comparison], Sheet]] = {
    "differences": differences_sheet,
    "table-1": table_1,
    "table-8": lambda comparison: table_8(comparison.models),
    "figure-4": figure_4,
}


FORMAT = 1
KINDS_SHOWN = 24
"""The first kinds of documents in their order; evaluation.json has all."""


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
    if CARRIED in summary and summary[CARRIED]["all"]["n"]:
        share = percent(summary[CARRIED]["all"])
        lines.append(f"the prediction that belongs to the other's thought: {share}")
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


SLICES = {
    "all": "all",
    "easy": "easy (> 0.5 nats)",
    "medium": "medium (> 1.0)",
    "hard": "hard (> 1.5)",
    "<=0.5": "band ≤ 0.5",
    "0.5-1.0": "band 0.5 to 1.0",
    "1.0-1.5": "band 1.0 to 1.5",
    ">1.5": "band > 1.5",
}
MODES = {
    "ntp": "ntp",
    "reasoning": "reasoning",
    "any_right": "any of the samples",
    "majority": "majority",
}


def print_evaluation(
    result: "EvaluationResult", title: str, modes: Sequence[str], samples: int, console: Console
) -> None:
    """Accuracy by difficulty and band: percent ± standard error by document, with n."""
    summary = result.summary()
    columns = [mode for mode in modes if mode in summary] or ["ntp"]
    if samples > 1 and "reasoning" in columns:
        columns += ["any_right", "majority"]
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("entropy of the scorer")
    for name in ("positions", "documents", *(MODES[column] for column in columns)):
        table.add_column(name, justify="right")
    for part, heading in SLICES.items():
        estimates = [summary[column][part] for column in columns]
        counts = [f"{estimates[0]['n']:,}", f"{estimates[0]['documents']:,}"]
        table.add_row(heading, *counts, *map(percent, estimates), end_section=part == "hard")
    if "reasoning" in columns:
        whole = {name: values["all"] for name, values in summary.items()}
        table.caption = (
            f"reasoning: a prediction {percent(whole['closed'])}, the same as ntp"
            f" {percent(whole['agrees'])}, right and one token long"
            f" {percent(whole['single_token'])}"
        )
        if whole["predicted_tokens"]["n"]:
            length = whole["predicted_tokens"]["value"]
            table.caption += f"; a right one has {length:.2f} tokens in the mean"
    console.print(table)
    console.print(Text("± is the standard error by document", style="dim"))
