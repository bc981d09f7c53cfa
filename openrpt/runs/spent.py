"""What a run took, stage by stage: time, tokens, FLOPs, energy, memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrpt.json_files import read_json
from openrpt.runs.metrics import numbers

SCORING_COST = "cost.json"
"""The file with what scoring has taken, all starts together, beside the scores; their own files
hold nothing of the machine."""
_SAVERS = ("sharing", "merging", "skipping")
"""What saves tokens: a prefix that is run once, equal rollouts, flat groups."""


@dataclass(kw_only=True, slots=True)
class Cost:
    """The sums over the steps of a stage; a step that did not record a figure adds nothing."""

    stage: str
    steps: int = 0
    """Number of steps; 0 = it has none."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by phase."""
    tokens_run: float = 0.0
    tokens_saved: dict[str, float] = field(default_factory=dict)
    """Tokens that separate sequences would have run, by what saved them (`_SAVERS`)."""
    flops: float = 0.0
    """FLOPs of all phases."""
    joules: float = 0.0
    measured: bool = True
    """Whether the energy was measured throughout, not estimated from seconds."""
    peak_gib: float = 0.0

    @property
    def total_seconds(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values())

    @property
    def total_saved(self) -> float:
        """Tokens that separate sequences would have run."""
        return sum(self.tokens_saved.values())

    @property
    def times_fewer(self) -> float:
        """How many times more tokens separate sequences would have run."""
        return 1 + self.total_saved / self.tokens_run


def costs(rows: Sequence[Mapping[str, Any]]) -> list[Cost]:
    """Returns the cost of each stage that has metrics, in the order in which they ran."""
    found: dict[str, Cost] = {}
    for row in rows:
        cost = found.setdefault(row["stage"], Cost(stage=row["stage"]))
        cost.steps += 1
        for key, value in row.items():
            if key.startswith("time/") and key != "time/step":
                phase = key.removeprefix("time/")
                cost.seconds[phase] = cost.seconds.get(phase, 0.0) + value
        cost.tokens_run += row.get("tokens/generate", 0.0) + row.get("tokens/update", 0.0)
        for saver in _SAVERS:
            saved = row.get(f"tokens/saved_by_{saver}", 0.0)
            cost.tokens_saved[saver] = cost.tokens_saved.get(saver, 0.0) + saved
        cost.flops += row.get("flops/generate", 0.0) + row.get("flops/update", 0.0)
        cost.joules += row.get("energy/joules", 0.0)
        cost.measured &= bool(row.get("energy/measured", True))
        cost.peak_gib = max(cost.peak_gib, row.get("memory/peak_gib", 0.0))
    return list(found.values())


def scoring_cost(scored: Path) -> dict[str, float]:
    """Returns what the scores of a folder have taken so far: tokens, flops, seconds, joules, and
    money where it has a price; empty where it was not recorded. Raises UserError for a damaged
    file."""
    path = scored / SCORING_COST
    advice = "delete it: the costs of scoring are lost and left out"
    return numbers(read_json(path, advice=advice)) if path.is_file() else {}


def all_costs(
    scoring: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    evaluations: Mapping[str, Any],
) -> list[Cost]:
    """Returns the costs of scoring (`scoring_cost`), of the stages with steps, and of the
    evaluations: those on the development split, and those of models."""
    development = Cost(stage="development evaluations", measured=False)
    for row in rows:
        development.flops += row.get("development/flops", 0.0)
        _spend(development, row["stage"], row.get("development/seconds", 0.0))
    models = Cost(stage="evaluations")
    for label, evaluation in evaluations.items():
        _add(models, label, evaluation.get("evaluation_cost") or {})
    score = Cost(stage="score")
    _add(score, "score", scoring)
    found = [score, *costs(rows), development, models]
    return [cost for cost in found if cost.steps or cost.total_seconds]


def _spend(cost: Cost, phase: str, seconds: float) -> None:
    if seconds:
        cost.seconds[phase] = cost.seconds.get(phase, 0.0) + seconds


def _add(cost: Cost, phase: str, spent: Mapping[str, Any]) -> None:
    """Adds a piece of work as WorkMeter counts it; nothing where it was not counted."""
    spent = numbers(spent)
    _spend(cost, phase, spent.get("seconds", 0.0))
    cost.tokens_run += spent.get("tokens", 0.0)
    cost.flops += spent.get("flops", 0.0)
    cost.joules += spent.get("joules", 0.0)
    cost.measured &= bool(spent.get("energy_measured", True))


def together(parts: Sequence[Cost]) -> Cost:
    """Returns the sum of all; its phases are the stages."""
    return Cost(
        stage="all",
        seconds={cost.stage: cost.total_seconds for cost in parts},
        flops=sum(cost.flops for cost in parts),
        joules=sum(cost.joules for cost in parts),
        measured=all(cost.measured for cost in parts if cost.joules),
        peak_gib=max((cost.peak_gib for cost in parts), default=0.0),
    )
