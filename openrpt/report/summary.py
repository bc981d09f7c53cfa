"""The report's tables of accuracy and of paired differences, and what to make of a difference in
words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openrpt.config.sections import Config
from openrpt.data.positions import DIFFICULTIES
from openrpt.data.token_classes import COMPUTED, TOKEN_CLASSES
from openrpt.sheets import points, share

START, WARMUP, TRAINED = "start", "warmup", "trained"
"""Labels in evaluation.json: the start model, the policy after warmup, and after RPT."""

_ROWS = {
    (START, "ntp"): "Standard NTP of the start model",
    (TRAINED, "ntp"): "Standard NTP of the trained model",
    (START, "reasoning"): "Reasoning, untrained",
    (WARMUP, "reasoning"): "Reasoning after warmup",
    (TRAINED, "reasoning"): "Reasoning after RPT",
}
"""The accuracy table's rows, in order; other labels follow."""
BEYOND = "beyond noise"
_FEW_DOCUMENTS = 10
"""The least number of documents: with fewer the interval of a difference is too narrow to be
trusted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AccuracyCell:
    """A cell of the accuracy table."""

    text: str
    n: int
    """The number of positions."""
    documents: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AccuracyRow:
    """A row of the accuracy table: a model in one mode."""

    name: str
    tags: list[str]
    """Words that the row must not be read without: 'supervised', …"""
    cells: list[AccuracyCell | None]
    """A cell for each difficulty; None where no position is so hard."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DifferenceCell:
    """A paired difference, and what it may be taken for."""

    text: str
    verdict: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DifferenceRow:
    """A row of paired differences."""

    name: str
    cells: list[DifferenceCell | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueRow:
    """What the trained policy's thought adds in one slice of the positions."""

    name: str
    n: int
    """The number of positions."""
    ntp: str
    reasoning: str
    cells: list[DifferenceCell | None]
    """Reasoning − the same weights' standard prediction, by each way of grading."""


def _is_of(label: str, model: str) -> bool:
    """Returns whether a label is of a model's evaluation, under the run's own settings or under
    others: those are named as KEY=VALUE (`trained-positions=400`), the controls (`warmup-self`) are
    not."""
    return label == model or (label.startswith(f"{model}-") and "=" in label)


def recorded_label(evaluations: Mapping[str, Any], model: str) -> str:
    """Returns the label of a model's evaluation: under the run's own settings, else the latest one
    under others; empty where there is none."""
    labels = [label for label in evaluations if _is_of(label, model)]
    return model if model in labels else labels[-1] if labels else ""


def why_no_difference(evaluations: Mapping[str, Any]) -> str:
    """Returns why no paired difference of the trained policy is recorded, and where to see one."""
    label = recorded_label(evaluations, TRAINED)
    if not label:
        return "No paired difference is recorded: the trained policy has not been evaluated."
    if label == TRAINED:
        return "No paired difference is recorded: no other model was evaluated where this one was."
    return (
        "Paired differences are recorded under the run's own settings alone, and the trained policy"
        f" was evaluated under others: openrpt compare RUN --against {label} shows them."
    )


def _tags_of(label: str, where: str, config: Config, sources: Sequence[str]) -> list[str]:
    """Returns what a model has learned from beside itself and the reward, and at which positions
    alone it was evaluated."""
    tags = [f"only at positions of {where}"] if where else []
    seen = config.warmup.supervision(sources)
    if seen and _is_of(label, WARMUP):
        tags.append(f"supervised: it saw {seen}")
    if _is_of(label, TRAINED):
        if seen:
            tags.append(f"after a supervised warmup: it saw {seen}")
        if config.train.ntp_weight > 0:
            tags.append("trained with an NTP loss too")
    return tags


def _row_name(label: str, mode: str) -> str:
    """Returns a result's name in the accuracy table."""
    return _ROWS.get((label, mode), f"{label}, {'NTP' if mode == 'ntp' else mode}")


def accuracy_rows(
    evaluations: Mapping[str, Any], config: Config, sources: Sequence[str] = ()
) -> list[AccuracyRow]:
    """Returns those of _ROWS that were evaluated, then every other label. `sources`: who made the
    thoughts that the warmup was given."""
    found = [
        (label, mode)
        for label, evaluation in evaluations.items()
        for mode in ("ntp", "reasoning")
        if mode in evaluation["summary"]
    ]
    # Warmup's own NTP is no row of the table: not asked for, and easily taken for another.
    others = [key for key in found if key not in _ROWS and key != (WARMUP, "ntp")]
    rows = []
    for label, mode in [*(key for key in _ROWS if key in found), *others]:
        by_slice = evaluations[label]["summary"][mode]
        cells = [by_slice.get(name) for name in DIFFICULTIES]
        rows.append(
            AccuracyRow(
                name=_row_name(label, mode),
                tags=_tags_of(label, evaluations[label].get("where", ""), config, sources),
                cells=[_accuracy_cell(cell) for cell in cells],
            )
        )
    return rows


def _accuracy_cell(estimate: Mapping[str, Any] | None) -> AccuracyCell | None:
    if not estimate or not estimate["n"]:
        return None
    return AccuracyCell(text=share(estimate), n=estimate["n"], documents=estimate["documents"])


def common_sizes(rows: Sequence[AccuracyRow]) -> list[tuple[int, int] | None]:
    """Returns, by difficulty, (n, documents) where all rows agree on it: it stands in the head
    then."""
    found: list[tuple[int, int] | None] = []
    for cells in zip(*(row.cells for row in rows), strict=True):
        sizes = {(cell.n, cell.documents) if cell else None for cell in cells}
        found.append(sizes.pop() if len(sizes) == 1 else None)
    return found


def absent_rows(evaluations: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Returns the names of those rows that were not evaluated; and of those that were, but under
    other settings than the run's own alone, each with the rows that it has instead."""
    absent, elsewhere = [], []
    for (label, mode), name in _ROWS.items():
        found = [
            other
            for other, evaluation in evaluations.items()
            if _is_of(other, label) and mode in evaluation["summary"]
        ]
        if not found:
            absent.append(name)
        elif label not in found:
            rows = ", ".join(_row_name(other, mode) for other in found)
            elsewhere.append(f"{name} (see {rows})")
    return absent, elsewhere


def difference_rows(differences: Sequence[Mapping[str, Any]]) -> list[DifferenceRow]:
    """Returns the paired differences that the evaluation has recorded, by difficulty."""
    return [
        DifferenceRow(
            name=f"{side_name(entry['a'])} − {side_name(entry['b'])}",
            cells=[_difference_cell(entry["difference"].get(name)) for name in DIFFICULTIES],
        )
        for entry in differences
    ]


def value_rows(evaluations: Mapping[str, Any]) -> list[ValueRow]:
    """Returns what the thought adds to the trained policy (as `recorded_label` names it), over all
    positions and by the class of the true token; then, over all of theirs, in its evaluations at
    positions of a rule."""
    trained = evaluations.get(recorded_label(evaluations, TRAINED), {})
    rows = []
    for part in ("all", *TOKEN_CLASSES, COMPUTED):
        if part in trained.get("thought_value", {}).get("reasoning", {}):
            rows.append(_value_row(part, trained, part))
    for entry in evaluations.values():
        rule = entry.get("where")
        own = rows and entry is not trained and entry["model"] == trained["model"]
        if own and rule and entry.get("thought_value"):
            rows.append(_value_row(f"only at positions of {rule}", entry, "all"))
    return rows


def _value_row(name: str, evaluation: Mapping[str, Any], part: str) -> ValueRow:
    summary, value = evaluation["summary"], evaluation["thought_value"]
    return ValueRow(
        name=name,
        n=summary["reasoning"][part]["n"],
        ntp=share(summary["ntp"][part]),
        reasoning=share(summary["reasoning"][part]),
        cells=[_difference_cell(by_slice[part]) for by_slice in value.values()],
    )


def side_name(column: Mapping[str, str]) -> str:
    """Returns the name of one side of a difference."""
    return _row_name(column["label"], column["mode"])


def _difference_cell(difference: Mapping[str, Any] | None) -> DifferenceCell | None:
    if not difference or not difference["n"]:
        return None
    return DifferenceCell(text=points(difference), verdict=difference_verdict(difference))


def difference_verdict(difference: Mapping[str, Any]) -> str:
    """Returns what a paired difference may be taken for."""
    documents = difference["documents"]
    if documents < 2:
        return "one document: no error can be given"
    if not difference["distinguishable"]:
        return "not distinguishable"
    if documents < _FEW_DOCUMENTS:
        return f"only {documents} documents: not to be relied on"
    return BEYOND
