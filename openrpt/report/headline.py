"""The beginning of a report: one sentence of what has changed, and the numbers to see before all
else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from openrpt.amounts import count, duration, energy, flops
from openrpt.config.sections import Config
from openrpt.report.summary import (
    BEYOND,
    START,
    TRAINED,
    WARMUP,
    difference_verdict,
    recorded_label,
    side_name,
    why_no_difference,
)
from openrpt.runs.spent import Cost
from openrpt.sheets import percent, points, share

_SHORT = {
    (WARMUP, "reasoning"): "warmup",
    (TRAINED, "ntp"): "its own NTP",
    (START, "ntp"): "the start model's NTP",
}
"""The models that reasoning after RPT is compared with, in a few words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grading:
    """Which numbers stand first: graded as the run's reward pays, where it was evaluated."""

    measure: Literal["reasoning", "span"] = "reasoning"
    """By prefix match, or by whole numbers and words."""
    part: Literal["easy", "all"] = "easy"
    """The slice: uncertain positions, or all that a rule has chosen."""

    @classmethod
    def of(cls, config: Config, evaluations: Mapping[str, Any]) -> "Grading":
        """Returns the one for a run's evaluations, as in evaluation.json."""
        labels = [recorded_label(evaluations, model) for model in (TRAINED, WARMUP)]
        where = any(evaluations.get(label, {}).get("where") for label in labels)
        return cls(
            measure="span" if "span" in config.reward.terms else "reasoning",
            part="all" if where else "easy",
        )

    @property
    def how(self) -> str:
        """What it is graded by, in words, where that is not the prefix match."""
        return "by whole numbers and words" if self.measure == "span" else ""

    @property
    def which(self) -> str:
        """Which positions are counted, in words, where these are not all."""
        return "easy and harder" if self.part == "easy" else ""

    def share_of(self, evaluation: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Returns the estimate of reasoning's accuracy; None where that was not measured."""
        cell = (evaluation or {"summary": {}})["summary"].get(self.measure, {}).get(self.part)
        return cell if cell and cell["n"] else None

    def difference_of(self, entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Returns a paired difference of the trained policy; None where it is of another model, or
        was not measured."""
        differences = entry.get("by_span" if self.measure == "span" else "difference", {})
        cell = differences.get(self.part)
        own = entry["a"] == {"label": TRAINED, "mode": "reasoning"}
        return cell if own and cell and cell["n"] else None


def what_changed(
    evaluations: Mapping[str, Any],
    differences: Sequence[Mapping[str, Any]],
    grading: Grading = Grading(),
) -> str:
    """Returns one sentence: how good reasoning is now, and what it differs from beyond noise."""
    label = recorded_label(evaluations, TRAINED)
    after = grading.share_of(evaluations.get(label))
    if after is None:
        return "The trained policy has not been evaluated, so nothing can be said of a change yet."
    sentence = f"Reasoning after RPT is right at {percent(after)} of {count(after['n'])} positions"
    if grading.which:
        sentence += f" ({grading.which})"
    if grading.how:
        sentence += f", {grading.how}"
    if label != TRAINED:
        sentence += f", evaluated under other settings than the run's own, as {label}"
    compared = []
    for entry in differences:
        if difference := grading.difference_of(entry):
            name = side_name(entry["b"])
            name = name.replace("Reasoning", "reasoning").replace("Standard", "standard")
            compared.append(
                f"{points(difference)} points against {name}, {difference_verdict(difference)}"
            )
    if not compared:
        return f"{sentence}. {why_no_difference(evaluations)}"
    return f"{sentence}: {'; '.join(compared)} (in brackets: 95 % interval)."


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One of the numbers to see first."""

    name: str
    value: str
    detail: str
    tone: str = ""
    """The tone, right or wrong: a difference beyond noise; else empty."""


def figures(
    evaluations: Mapping[str, Any],
    differences: Sequence[Mapping[str, Any]],
    spent: Cost,
    grading: Grading = Grading(),
) -> list[Figure]:
    """Returns how good reasoning is, what it differs from, and what the run took."""
    found = []
    for model, name in ((TRAINED, "Reasoning after RPT"), (WARMUP, "Reasoning after warmup")):
        label = recorded_label(evaluations, model)
        if cell := grading.share_of(evaluations.get(label)):
            value, bracket, bounds = share(cell).partition(" [")
            parts = [f"{bracket}{bounds}".strip(), f"{count(cell['n'])} positions"]
            parts += [grading.which, grading.how, "" if label == model else f"as {label}"]
            detail = ", ".join(part for part in parts if part)
            found.append(Figure(name=name, value=f"{value} %", detail=detail))
            break
    for entry in differences:
        if cell := grading.difference_of(entry):
            beyond = difference_verdict(cell) == BEYOND
            tone = ("right" if cell["value"] > 0 else "wrong") if beyond else ""
            name = f"against {_SHORT.get(tuple(entry['b'].values()), side_name(entry['b']))}"
            value, _, bounds = points(cell).partition(" ")
            unit = f"points {bounds}" if bounds else "points"
            detail = f"{unit}, {difference_verdict(cell)}"
            found.append(Figure(name=name, value=value, detail=detail, tone=tone))
    if spent.total_seconds:
        parts = [f"{flops(spent.flops)} FLOPs"] if spent.flops else []
        if spent.joules:
            parts.append(energy(spent.joules) + ("" if spent.measured else " (estimated)"))
        value = duration(spent.total_seconds)
        found.append(Figure(name="Time of all stages", value=value, detail=", ".join(parts)))
    return found
