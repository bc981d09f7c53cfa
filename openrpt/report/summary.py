"""The numbers at the top: accuracy with errors, paired differences, and what to make of them in
words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openrpt.amounts import duration, energy, flops
from openrpt.config.sections import Config
from openrpt.data.positions import DIFFICULTIES
from openrpt.runs.spent import Cost

START, WARMUP, TRAINED = "start", "warmup", "trained"
"""Labels in evaluation.json: the start model, the policy after warmup, and after RPT."""

ROWS = {
    (START, "ntp"): "Standard NTP of the start model",
    (TRAINED, "ntp"): "Standard NTP of the trained model",
    (START, "reasoning"): "Reasoning, untrained",
    (WARMUP, "reasoning"): "Reasoning after warmup",
    (TRAINED, "reasoning"): "Reasoning after RPT",
}
"""The accuracy table's rows, in order; other labels follow."""

SHORT = {
    (WARMUP, "reasoning"): "warmup",
    (TRAINED, "ntp"): "its own NTP",
    (START, "ntp"): "the start model's NTP",
}
"""What reasoning after RPT is compared with, in a few words."""
BEYOND = "beyond noise"
FEW_DOCUMENTS = 10
"""With fewer the interval of a difference is too narrow to be trusted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AccuracyRow:
    name: str
    tags: list[str]
    """What the row must not be read without: 'supervised', …"""
    cells: list[dict[str, Any] | None]
    """By difficulty: value, standard_error, n, documents; None = no position there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DifferenceCell:
    text: str
    verdict: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DifferenceRow:
    name: str
    cells: list[DifferenceCell | None]


def tags_of(label: str, mode: str, config: Config) -> list[str]:
    """A result that has seen the true tokens of the text by another way than the reward."""
    tags = []
    supervised = config.warmup.target == "truth" or config.warmup.ntp_weight > 0
    if supervised and label == WARMUP:
        tags.append("supervised")
    if label == TRAINED:
        if supervised:
            tags.append("after a supervised warmup")
        if config.train.ntp_weight > 0:
            tags.append("trained with an NTP loss too")
    return tags


def row_name(label: str, mode: str) -> str:
    return ROWS.get((label, mode), f"{label}, {'NTP' if mode == 'ntp' else mode}")


def accuracy_rows(evaluations: Mapping[str, Any], config: Config) -> list[AccuracyRow]:
    """Those of ROWS that were evaluated, then every other label."""
    found = [
        (label, mode)
        for label, evaluation in evaluations.items()
        for mode in ("ntp", "reasoning")
        if mode in evaluation["summary"]
    ]
    # Warmup's own NTP is no row of the table: not asked for, and easily taken for another.
    others = [key for key in found if key not in ROWS and key != (WARMUP, "ntp")]
    rows = []
    for label, mode in [*(key for key in ROWS if key in found), *others]:
        by_slice = evaluations[label]["summary"][mode]
        cells = [by_slice.get(name) for name in DIFFICULTIES]
        rows.append(
            AccuracyRow(
                name=row_name(label, mode),
                tags=tags_of(label, mode, config),
                cells=[cell if cell and cell["n"] else None for cell in cells],
            )
        )
    return rows


def common_sizes(rows: Sequence[AccuracyRow]) -> list[tuple[int, int] | None]:
    """By difficulty (n, documents) where all rows agree on it: it stands in the head then."""
    found: list[tuple[int, int] | None] = []
    for cells in zip(*(row.cells for row in rows), strict=True):
        sizes = {(cell["n"], cell["documents"]) if cell else None for cell in cells}
        found.append(sizes.pop() if len(sizes) == 1 else None)
    return found


def absent_rows(evaluations: Mapping[str, Any]) -> list[str]:
    return [
        name
        for (label, mode), name in ROWS.items()
        if mode not in evaluations.get(label, {"summary": {}})["summary"]
    ]


def difference_rows(differences: Sequence[Mapping[str, Any]]) -> list[DifferenceRow]:
    return [
        DifferenceRow(
            name=f"{_side(entry['a'])} − {_side(entry['b'])}",
            cells=[_difference_cell(entry["difference"].get(name)) for name in DIFFICULTIES],
        )
        for entry in differences
    ]


def _side(column: Mapping[str, str]) -> str:
    return row_name(column["label"], column["mode"])


def _difference_cell(difference: Mapping[str, Any] | None) -> DifferenceCell | None:
    if not difference or not difference["n"]:
        return None
    return DifferenceCell(text=_interval(difference), verdict=verdict(difference))


def _interval(difference: Mapping[str, Any]) -> str:
    value, low, high = (points(difference[key]) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def verdict(difference: Mapping[str, Any]) -> str:
    documents = difference["documents"]
    if documents < 2:
        return "one document: no error can be given"
    if not difference["distinguishable"]:
        return "not distinguishable"
    if documents < FEW_DOCUMENTS:
        return f"only {documents} documents: not to be relied on"
    return BEYOND


def points(value: float) -> str:
    """A fraction as percentage points, signed: '+1.7'."""
    return f"{100 * value:+.1f}".replace("-", "−")


def what_changed(evaluations: Mapping[str, Any], differences: Sequence[Mapping[str, Any]]) -> str:
    """One sentence: how good reasoning is now, and what it differs from beyond noise."""
    after = evaluations.get(TRAINED, {"summary": {}})["summary"].get("reasoning", {}).get("easy")
    if not after or not after["n"]:
        return "The trained policy has not been evaluated, so nothing can be said of a change yet."
    error = after["standard_error"]
    spread = f" ± {100 * error:.1f}" if math.isfinite(error) else ""
    sentence = (
        f"Reasoning after RPT is right at {100 * after['value']:.1f}{spread} % of"
        f" {after['n']:,} positions (easy and harder)"
    )
    compared = []
    for entry in differences:
        difference = entry["difference"].get("easy")
        if entry["a"] == {"label": TRAINED, "mode": "reasoning"} and difference["n"]:
            name = _side(entry["b"])
            name = name.replace("Reasoning", "reasoning").replace("Standard", "standard")
            compared.append(
                f"{points(difference['value'])} points against {name} (95 % interval"
                f" {points(difference['low'])} to {points(difference['high'])}),"
                f" {verdict(difference)}"
            )
    if not compared:
        return sentence + "; paired differences have not been computed."
    return sentence + ": " + "; ".join(compared) + "."


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One of the numbers to see first."""

    name: str
    value: str
    detail: str
    tone: str = ""
    """right, wrong: a difference beyond noise; else empty."""


def figures(
    evaluations: Mapping[str, Any], differences: Sequence[Mapping[str, Any]], spent: Cost
) -> list[Figure]:
    """How good reasoning is, what it differs from, and what the run took."""
    found = []
    for label, name in ((TRAINED, "Reasoning after RPT"), (WARMUP, "Reasoning after warmup")):
        cell = evaluations.get(label, {"summary": {}})["summary"].get("reasoning", {}).get("easy")
        if cell and cell["n"]:
            value = f"{100 * cell['value']:.1f} %"
            found.append(Figure(name=name, value=value, detail=_spread(cell)))
            break
    for entry in differences:
        cell = entry["difference"].get("easy")
        if entry["a"] == {"label": TRAINED, "mode": "reasoning"} and cell and cell["n"]:
            beyond = verdict(cell) == BEYOND
            tone = ("right" if cell["value"] > 0 else "wrong") if beyond else ""
            name = f"against {SHORT.get(tuple(entry['b'].values()), _side(entry['b']))}"
            detail = f"points ({points(cell['low'])} to {points(cell['high'])}), {verdict(cell)}"
            found.append(Figure(name=name, value=points(cell["value"]), detail=detail, tone=tone))
    if spent.total_seconds:
        parts = [f"{flops(spent.flops)} FLOPs"] * bool(spent.flops)
        how = "" if spent.measured else " (estimated)"
        parts += [f"{energy(spent.joules)}{how}"] * bool(spent.joules)
        value = duration(spent.total_seconds)
        found.append(Figure(name="Time of all stages", value=value, detail=", ".join(parts)))
    return found


def _spread(cell: Mapping[str, Any]) -> str:
    error = f"± {100 * cell['standard_error']:.1f}, " if cell["documents"] > 1 else ""
    return f"{error}{cell['n']:,} positions, easy and harder"


def essentials(config: Config) -> list[tuple[str, str]]:
    """What one asks first of a run: (name, value)."""
    train, prompt, warmup = config.train, config.prompt, config.warmup
    per_step = train.documents_per_step * train.positions_per_document
    if prompt.candidates:
        thought = f"seeded with {prompt.candidates} candidates of the {prompt.candidate_source}"
        thought += " model" if prompt.candidate_source == "start" else " itself"
    else:
        thought = "unseeded"
    budget = prompt.think_budget
    thought += f", then at most {budget} free tokens" if budget else ", no free tokens"
    supervised = warmup.target == "truth" or warmup.ntp_weight > 0
    cold = "target " + ("the text's own token" if warmup.target == "truth" else "the model itself")
    cold += " (supervised)" if supervised else " (form only)"
    adapters = f", LoRA rank {config.model.lora_rank}" if config.model.lora_rank else ""
    return [
        ("Model", f"{config.model.path} ({config.model.dtype}{adapters})"),
        ("Corpus", config.corpus.path),
        ("Prompt", f"{prompt.template}, window {prompt.window} tokens"),
        ("Thought", thought),
        ("Warmup", cold),
        (
            "Reinforcement",
            f"{train.algorithm}, {train.documents_per_step} documents ×"
            f" {train.positions_per_document} positions × {train.group_size} rollouts ="
            f" {per_step * train.group_size:,} rollouts a step; learning rate"
            f" {train.learning_rate:g}, NTP loss × {train.ntp_weight:g}",
        ),
        (
            "Positions",
            f"by {config.selection.strategy}"
            + (
                f" above {config.selection.min_entropy:g} nats"
                if config.selection.strategy == "entropy"
                else ""
            ),
        ),
    ]
