"""What an experiment measured: a value an arm, a seed and a measure, with what the arm cost."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from openrpt.errors import UserError
from openrpt.evaluation.next_token.results import CARRIED, KIND
from openrpt.experiments.answers.experiment import Size, size_named
from openrpt.experiments.lab.sampled import SampledCounts

_TOKENS = "predicted_tokens"
MEASURES = {
    "accuracy": "right, %",
    "first_token": "first token, %",
    "span": "whole, %",
    "within": "depths shown, %",
    "beyond": "beyond them, %",
    "standard": "standard, %",
    "span_ntp": "standard, whole, %",
    _TOKENS: "tokens right",
    "emptied": "emptied, %",
    "swapped": "swapped, %",
    CARRIED: "carried, %",
    "reward": "exact at the end, %",
    "flat": "flat groups, %",
    "entropy": "entropy, 0.01 nats",
    "thought": "thought, bytes",
    "before": "before, %",
    "worked": "worked at first, %",
    "read": "right where worked, %",
}
"""The measures, and how a table heads each. All are shares, shown as percent; a thought is kept in
hundreds of bytes, and the tokens that a right prediction covers in hundreds, so that bytes and
tokens are shown."""
OF_TOKENS = ("first_token", "span", "span_ntp", _TOKENS)
"""The measures of answers of several tokens: on real text."""
_FROM_METRICS = {
    "reward": "reward/exact",
    "flat": "group/flat_fraction",
    "entropy": "policy/entropy",
    "thought": "completion/thought_bytes_mean",
}
OF_FIRST_ROLLOUTS = ("worked", "read")
"""The measures of the rollouts of reinforcement's first step, before any update, at depths that
thoughts were shown for: whose thought is the worked one, and who of these is right."""
_LAST = 5
"""Steps at the end of training that a measure from its metrics is the mean of."""


class Measured(BaseModel):
    """An arm at a seed."""

    model_config = ConfigDict(frozen=True)

    arm: str
    seed: int
    values: dict[str, float]
    """The measures that it has, as MEASURES names them."""
    parameters: int
    """The model's weights."""
    steps: int
    flops: float
    """The FLOPs of its own training, as the next two."""
    seconds: float
    joules: float
    warnings: list[str]
    """The failure signatures that showed, `NAME at step N: what was seen`."""


class ArmRow(BaseModel):
    """What an arm was."""

    model_config = ConfigDict(frozen=True)

    name: str
    what: str
    origin: str
    series: str


class Outcome(BaseModel):
    """An experiment's results, of all seeds that are whole: `results.json`."""

    model_config = ConfigDict(frozen=True)

    experiment: str
    budget: str
    planned: int
    """The seeds that the budget has."""
    setting: dict[str, str]
    """The text, the models and the steps, in words."""
    environment: dict[str, Any]
    """Commit, versions and machine, as in a run's `environment.json`."""
    arms: list[ArmRow]
    measured: list[Measured]

    @property
    def size(self) -> Size:
        """The budget."""
        return size_named(self.budget)

    @property
    def compared(self) -> str:
        """The measure that arms are compared by."""
        return self.size.compared

    @property
    def seeds(self) -> list[int]:
        """The seeds with results, in order."""
        return sorted({one.seed for one in self.measured})

    def joined(self, other: "Outcome") -> "Outcome":
        """Returns these results and the seeds that `other` alone has, of another machine or day.

        Raises UserError where the two are not the same experiment.
        """
        for name in ("experiment", "budget", "setting", "arms"):
            if getattr(self, name) != getattr(other, name):
                raise UserError(f"{self.experiment}: the results to join differ in '{name}'")
        more = [one for one in other.measured if one.seed not in self.seeds]
        if not more:
            return self
        commits = dict.fromkeys([other.environment["commit"], self.environment["commit"]])
        return self.model_copy(
            update={
                "measured": [*self.measured, *more],
                "environment": {
                    **self.environment,
                    "commit": ", ".join(commit for commit in commits if commit),
                },
            }
        )

    def of(self, arm: str) -> list[Measured]:
        """Returns an arm's results, a seed each, in order of the seeds."""
        found = [one for one in self.measured if one.arm == arm]
        return sorted(found, key=lambda one: one.seed)

    def values(self, arm: str, measure: str) -> list[float]:
        """Returns a measure of an arm, a seed each; NaN where it has none."""
        return [one.values.get(measure, math.nan) for one in self.of(arm)]

    def has(self, arm: str, measure: str) -> bool:
        """Returns whether every seed of an arm has the measure."""
        found = self.values(arm, measure)
        return bool(found) and not any(map(math.isnan, found))

    def mean(self, arm: str, what: str) -> float:
        """Returns the mean over seeds of a field of Measured."""
        found = [float(getattr(one, what)) for one in self.of(arm)]
        return sum(found) / len(found)


def measured_values(summary: Mapping[str, Any], shown: int | None) -> dict[str, float]:
    """Returns the measures of an evaluation's summary. `shown`: a laboratory's deepest thoughts, on
    either side of which accuracy is given, too."""
    right = summary.get("reasoning", summary["ntp"])
    found = {"accuracy": right["all"]["value"], "standard": summary["ntp"]["all"]["value"]}
    for name in ("emptied", "swapped", CARRIED):
        if name in summary and summary[name]["all"]["n"]:
            found[name] = summary[name]["all"]["value"]
    if shown is None:
        for name in OF_TOKENS:
            if name in summary and summary[name]["all"]["n"]:
                value = summary[name]["all"]["value"]
                found[name] = value / 100 if name == _TOKENS else value
    else:
        kinds = {int(part.removeprefix(KIND)): part for part in right if part.startswith(KIND)}
        sides = {
            "within": [right[part] for depth, part in kinds.items() if depth <= shown],
            "beyond": [right[part] for depth, part in kinds.items() if depth > shown],
        }
        for name, parts in sides.items():
            if total := sum(part["n"] for part in parts):
                found[name] = sum(part["n"] * (part["value"] or 0.0) for part in parts) / total
    return found


def first_rollouts(counts: SampledCounts) -> dict[str, float]:
    """Returns OF_FIRST_ROLLOUTS: `worked` only where there are rollouts at such depths, `read` only
    where one of them has a worked thought."""
    if not counts.rollouts:
        return {}
    found = {"worked": counts.worked / counts.rollouts}
    return found | ({"read": counts.worked_right / counts.worked} if counts.worked else {})


def last_of_metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the measures that training's metrics end with."""
    found = {}
    for name, key in _FROM_METRICS.items():
        known = [row[key] for row in rows[-_LAST:] if key in row]
        if known:
            found[name] = sum(known) / len(known) / (100 if name == "thought" else 1)
    return found
