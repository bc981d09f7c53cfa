"""Evaluations of one call as people read them: each model's own tables, then all side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from openrpt.config.evaluation import EvaluateConfig
from openrpt.data.token_classes import COMPUTED, TOKEN_CLASSES
from openrpt.evaluation.next_token.compare import compare
from openrpt.evaluation.next_token.recorded import find_evaluated
from openrpt.evaluation.next_token.results import (
    BITS_A_BYTE,
    CARRIED,
    KIND,
    SIDES,
    THOUGHT_CONTROLS,
    EvaluationResult,
)
from openrpt.evaluation.next_token.tables import table_1, table_8
from openrpt.evaluation.next_token.verdict import result_verdict
from openrpt.evaluation.records import read_evaluation
from openrpt.runs.run import Run
from openrpt.sheets import Sheet, cost_cells, percent, points, print_sheet
from openrpt.terminal import say

_KINDS_SHOWN = 24
"""The first kinds of documents in their order; evaluation.json has all."""
_SLICES = {
    "all": "all",
    "easy": "easy (> 0.5 nats)",
    "medium": "medium (> 1.0)",
    "hard": "hard (> 1.5)",
    "<=0.5": "band ≤ 0.5",
    "0.5-1.0": "band 0.5 to 1.0",
    "1.0-1.5": "band 1.0 to 1.5",
    ">1.5": "band > 1.5",
}
_GRADINGS = {"reasoning": "prefix match", "first_token": "first token", "span": "whole span"}
_DIFFERENCE = "difference [95 %]"
_MODES = {
    "ntp": "ntp",
    "reasoning": "reasoning",
    "any_right": "any of the samples",
    "majority": "majority",
}


def print_evaluations(
    run: Run,
    found: Sequence[tuple[str, EvaluationResult]],
    settings: EvaluateConfig,
    *,
    models: int,
    console: Console,
) -> None:
    """Prints results by their labels, `models` models' under all templates and at extra positions:
    one after another, then those at the same positions side by side as the paper has them. Other
    gradings and classes of tokens are shown of a single model."""
    entries = read_evaluation(run.evaluation)["evaluations"]
    for name, result in found:
        title = f"{name}: accuracy on the {settings.split} split{_where(entries[name]['where'])}"
        print_evaluation(result, title, settings.modes, settings.samples, console)
        if models == 1:
            _print_details(result, entries[name]["thought_value"], console)
        if seen := entries[name]["supervision"]:
            say(f"{name} comes of a supervised warmup: it saw {seen}")
    if models > 1:
        say("by grading and by class of token: openrpt evaluate MODEL, one alone (not made again)")
    recorded = find_evaluated([str(run.path)])
    for rule in dict.fromkeys(entries[name]["where"] for name, _ in found):
        labels = {name for name, _ in found if entries[name]["where"] == rule}
        alike = [one for one in recorded if one.label in labels]
        if rule and len(alike) > 1:
            say(f"side by side{_where(rule)}:")
        if models > 1:
            print_sheet(table_1(compare(alike)), console)
        if len(settings.templates) > 1 and "reasoning" in settings.modes:
            print_sheet(table_8(alike), console)


def _where(rule: str) -> str:
    return f", only at positions of {rule}" if rule else ""


def print_evaluation(
    result: EvaluationResult, title: str, modes: Sequence[str], samples: int, console: Console
) -> None:
    """Prints accuracy by difficulty and band: percent ± standard error by document, with n."""
    summary = result.summary()
    columns = [mode for mode in modes if mode in summary] or ["ntp"]
    if samples > 1 and "reasoning" in columns:
        columns += ["any_right", "majority"]
    rows = []
    for part, heading in _SLICES.items():
        estimates = [summary[column][part] for column in columns]
        counts = [f"{estimates[0]['n']:,}", f"{estimates[0]['documents']:,}"]
        rows.append([heading, *counts, *map(percent, estimates)])
    notes = [_form(summary)] if "reasoning" in columns else []
    sheet = Sheet(
        title=title,
        headings=[
            "entropy of the scorer",
            "positions",
            "documents",
            *(_MODES[column] for column in columns),
        ],
        rows=rows,
        ends={[*_SLICES].index("hard")},
        notes=[*notes, "± is the standard error by document, [ ] an exact 95 % interval"],
    )
    print_sheet(sheet, console)


def _form(summary: Mapping[str, Any]) -> str:
    """Returns how often reasoning predicts at all, as standard prediction does, and how much."""
    whole = {name: values["all"] for name, values in summary.items()}
    said = (
        f"reasoning: a prediction {percent(whole['closed'])}, the same as ntp"
        f" {percent(whole['agrees'])}, right and one token long {percent(whole['single_token'])}"
    )
    if whole["predicted_tokens"]["n"]:
        said += f"; a right one has {whole['predicted_tokens']['value']:.2f} tokens in the mean"
    return said


def _print_details(
    result: EvaluationResult, value: Mapping[str, Mapping[str, Any]], console: Console
) -> None:
    """Prints what stands below the accuracies: ways of grading, token classes, controls,
    likelihoods, calibration. `value`: the result's `thought_value`."""
    summary = result.summary()
    _print_gradings(summary, value, console)
    classes = {name: name for name in (*TOKEN_CLASSES, COMPUTED)}
    _print_parts("by the class of the true token", classes, summary, value, console)
    kinds = [part for part in summary["ntp"] if part.startswith(KIND)]
    named = {part: part.removeprefix(KIND) for part in kinds[:_KINDS_SHOWN]}
    _print_parts("by the kind of document", named, summary, value, console)
    if len(kinds) > _KINDS_SHOWN:
        console.print(Text(f"… and {len(kinds) - _KINDS_SHOWN} more kinds in evaluation.json"))
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
        lines.append(result_verdict(result))
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _print_gradings(
    summary: Mapping[str, Any], value: Mapping[str, Mapping[str, Any]], console: Console
) -> None:
    """Prints, over all positions, what each way of grading makes of both modes."""
    rows = [
        [
            words,
            f"{summary[SIDES[name]]['all']['n']:,}",
            percent(summary[SIDES[name]]["all"]),
            percent(summary[name]["all"]),
            points(value[name]["all"]),
        ]
        for name, words in _GRADINGS.items()
        if name in value
    ]
    if rows:
        headings = ["right by", "n", "ntp", "reasoning", _DIFFERENCE]
        print_sheet(Sheet(title="", headings=headings, rows=rows), console)


def _print_parts(
    title: str,
    parts: Mapping[str, str],
    summary: Mapping[str, Any],
    value: Mapping[str, Mapping[str, Any]],
    console: Console,
) -> None:
    """Prints accuracy by slices that `parts` names, as it calls them, and what the thought adds in
    each, by prefix match and by the other ways of grading; nothing where there are none."""
    modes = [mode for mode in ("ntp", "reasoning") if mode in summary]
    found = {part: name for part, name in parts.items() if part in summary["ntp"]}
    if not found:
        return
    rows = [
        [
            name,
            f"{summary['ntp'][part]['n']:,}",
            *(percent(summary[mode][part]) for mode in modes),
            *([points(value["reasoning"][part])] if value else []),
        ]
        for part, name in found.items()
    ]
    headings = ["", "n", *modes, *([_DIFFERENCE] if value else [])]
    print_sheet(Sheet(title=title, headings=headings, rows=rows), console)
    if value:
        others = {name: words for name, words in _GRADINGS.items() if name != "reasoning"}
        rows = [
            [name, *(points(value[grading][part]) for grading in others)]
            for part, name in found.items()
        ]
        title = f"reasoning − ntp {title}, graded otherwise"
        print_sheet(Sheet(title=title, headings=["", *others.values()], rows=rows), console)


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
