"""The charts of the report: what each draws, of which stages, and where it stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from openrpt.report.glossary import DERIVED, METRICS, Meaning

_Axis = Literal["", "flops", "hours", "energy", "money"]
_Section = Literal["learning", "policy", "machine", "warmup", "pretrain", "cost", "patterns"]

SECTIONS: dict[_Section, str] = {
    "learning": "What is learned",
    "policy": "How the policy behaves",
    "machine": "What the machine does",
    "warmup": "Warmup",
    "pretrain": "Plain pre-training",
}
"""The sections of the curves, in order, with their headings."""
RL_STAGES = ("train", "finetune")
"""Stages with the same metrics."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A chart to be: which metrics of which stages, under which names. The first one's line in
    the glossary says how to read it."""

    title: str
    series: Mapping[str, str]
    """The name that stands in the legend, by metric."""
    section: _Section
    stages: Sequence[str] = RL_STAGES
    """A chart for each that the run has."""
    stacked: bool = False
    axis: _Axis = ""
    """The quantity in the place of steps; "" = what the reader chooses."""

    @property
    def meaning(self) -> Meaning:
        """The meaning of its first series."""
        return _meaning_of(next(iter(self.series)))

    @property
    def healthy(self) -> str:
        """One range where the series share it, else each series' own."""
        ranges = {name: _meaning_of(metric).healthy for metric, name in self.series.items()}
        if len(set(ranges.values())) == 1:
            return self.meaning.healthy
        return "; ".join(f"{name}: {healthy}" for name, healthy in ranges.items())

    def narrowed(self, metrics: set[Any]) -> "Plan":
        """Returns the plan with the series of these metrics alone."""
        return replace(self, series={m: name for m, name in self.series.items() if m in metrics})


def _meaning_of(metric: str) -> Meaning:
    return METRICS.get(metric) or DERIVED[metric]


_TERMS = {key for key in METRICS if key.startswith("reward/")}
_TERMS -= {"reward/mean", "reward/exact", "reward/prefix", "reward/errors"}
REASONING, NTP = "development/reasoning_accuracy", "development/ntp_accuracy"


def _last(metric: str) -> str:
    return metric.rpartition("/")[2]


def _development(difficulty: str) -> Plan:
    names = {f"{REASONING}/{difficulty}": "reasoning", f"{NTP}/{difficulty}": "standard (NTP)"}
    return Plan(title=f"Development accuracy, {difficulty}", series=names, section="learning")


def _against(title: str, axis: _Axis) -> Plan:
    names = {REASONING: "reasoning", NTP: "standard (NTP)"}
    return Plan(title=f"Accuracy against {title}", series=names, section="cost", axis=axis)


PLANS = (
    Plan(
        title="Development accuracy",
        series={REASONING: "reasoning", NTP: "standard (NTP)"},
        section="learning",
    ),
    _development("easy"),
    _development("medium"),
    _development("hard"),
    Plan(title="Reward", series={"reward/mean": "reward"}, section="learning"),
    Plan(
        title="Exactly right in training",
        series={"reward/exact": "exactly right"},
        section="learning",
    ),
    Plan(
        title="Terms of the reward",
        series={key: _last(key).replace("_", " ") for key in METRICS if key in _TERMS},
        section="learning",
    ),
    Plan(
        title="Pass rate by difficulty",
        series={"pass_rate/easy": "easy", "pass_rate/medium": "medium", "pass_rate/hard": "hard"},
        section="learning",
    ),
    Plan(title="Plain next-token loss", series={"loss/ntp": "NTP loss"}, section="learning"),
    Plan(title="Flat groups", series={"group/flat_fraction": "flat"}, section="policy"),
    Plan(title="Entropy of the policy", series={"policy/entropy": "entropy"}, section="policy"),
    Plan(
        title="Thought length",
        series={"completion/thought_bytes_mean": "thought"},
        section="policy",
    ),
    Plan(
        title="Closed boxes",
        series={
            "completion/closed_fraction": "box closed",
            "completion/stopped_fraction": "stopped by itself",
        },
        section="policy",
    ),
    Plan(
        title="What predictions are made of",
        series={
            "completion/content_fraction": "with content",
            "completion/commonest_fraction": "the commonest one",
        },
        section="policy",
    ),
    Plan(title="Gradient norm", series={"optim/grad_norm": "norm"}, section="policy"),
    Plan(title="Policy loss", series={"loss/policy": "policy loss"}, section="policy"),
    Plan(
        title="Mismatch of sampler and trainer",
        series={"policy/sampler_difference": "now − sampler", "policy/mismatch": "old − sampler"},
        section="policy",
    ),
    Plan(
        title="Time by phase",
        series={
            "time/generate": "generate",
            "time/update": "update",
            "time/store": "store",
            "time/hand_over": "hand over",
        },
        section="machine",
        stacked=True,
    ),
    Plan(
        title="Share of the machine's limit",
        series={
            "efficiency/step": "whole step",
            "efficiency/generate": "generate",
            "efficiency/update": "update",
        },
        section="machine",
    ),
    Plan(
        title="FLOPs by phase",
        series={"flops/generate": "generate", "flops/update": "update"},
        section="machine",
        stacked=True,
    ),
    Plan(
        title="Speed",
        series={"speed/generate": "generate", "speed/update": "update"},
        section="machine",
    ),
    Plan(
        title="Tokens a step",
        series={
            "tokens/generate": "run in generation",
            "tokens/update": "run in update",
            "tokens/saved_by_sharing": "saved by sharing",
            "tokens/saved_by_merging": "saved by merging",
            "tokens/saved_by_skipping": "saved by skipping",
        },
        section="machine",
        stacked=True,
    ),
    Plan(title="Energy a step", series={"energy/joules": "energy"}, section="machine"),
    Plan(
        title="Memory",
        series={
            "memory/resident_gib": "after the step",
            "memory/peak_gib": "peak so far",
            "memory/gpu_peak_gib": "peak so far on the GPU",
        },
        section="machine",
    ),
    Plan(title="Processor", series={"efficiency/cores_busy": "cores busy"}, section="machine"),
    *(
        Plan(title=title, series=series, section="warmup", stages=("warmup",))
        for title, series in {
            "Imitations": {"loss/imitation": "imitation loss"},
            "Given thoughts": {"loss/trace": "trace loss"},
            "Drift on plain text": {"loss/text_kl": "KL"},
            "Tail": {"loss/tail_kl": "KL after the tail"},
            "Gradient norm": {"optim/grad_norm": "norm"},
        }.items()
    ),
    Plan(
        title="Time by phase",
        series={"time/generate": "generate", "time/update": "update"},
        section="warmup",
        stages=("warmup",),
        stacked=True,
    ),
    *(
        Plan(title=title, series=series, section="pretrain", stages=("pretrain",))
        for title, series in {
            "Development accuracy": {NTP: "standard (NTP)"},
            "Perplexity": {"development/perplexity": "perplexity"},
            "Next-token loss": {"loss/ntp": "NTP loss"},
            "Gradient norm": {"optim/grad_norm": "norm"},
            "Time a step": {"time/step": "step"},
            "Peak memory": {"memory/peak_gib": "peak"},
        }.items()
    ),
    _against("FLOPs", "flops"),
    _against("time", "hours"),
    _against("energy", "energy"),
    _against("money", "money"),
    Plan(
        title="What is predicted",
        series={
            "predicted/standard": "standard prediction's",
            "predicted/candidate": "another candidate",
            "predicted/other": "none of the candidates",
            "predicted/none": "no prediction",
        },
        section="patterns",
        stacked=True,
    ),
    Plan(
        title="Right, by what is predicted",
        series={
            "predicted_right/standard": "standard prediction's",
            "predicted_right/candidate": "another candidate",
            "predicted_right/other": "none of the candidates",
        },
        section="patterns",
    ),
)
