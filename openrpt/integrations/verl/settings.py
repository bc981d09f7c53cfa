"""A run's configuration in verl's words, and what of it verl has no words for."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from openrpt.config.algorithms import ALGORITHMS, Aggregation, Algorithm
from openrpt.config.reinforcement import TrainConfig
from openrpt.config.sections import Config
from openrpt.data.prompts import Budget, Layout
from openrpt.errors import UserError

_ESTIMATORS: dict[str, tuple[str, bool]] = {
    "grpo": ("grpo", True),
    "dr_grpo": ("grpo", False),
    "rloo": ("rloo", True),
}
"""Advantage estimator → (`algorithm.adv_estimator`, `algorithm.norm_adv_by_std_in_grpo`)."""
_AGGREGATIONS: dict[Aggregation, str] = {
    "token_mean": "token-mean",
    "sequence_mean": "seq-mean-token-mean",
    "constant_length": "seq-mean-token-sum-norm",
}


def require_exportable(config: Config) -> None:
    """Checks that all that training would do, verl can do. Raises UserError that names the key."""
    for key, value, why, instead in _refused(config):
        raise UserError(
            f"{key} = {value}: {why}; with verl, add --{key} {instead} (docs/verl.md has the list)"
        )


def _refused(config: Config) -> Iterator[tuple[str, object, str, object]]:
    """Yields (key, its value, why verl can't have it, what it can have)."""
    train, reward = config.train, config.reward
    algorithm = train.recipe()
    if config.prompt.candidates:
        seeds = "seeds thoughts with the policy's own candidates, for which verl has no sampler"
        yield "prompt.candidates", config.prompt.candidates, seeds, 0
    if train.ntp_weight:
        yield "train.ntp_weight", train.ntp_weight, "verl has no loss on the prompt", 0
    if list(reward.terms) != ["prefix"]:
        terms = ",".join(f"{name}={weight:g}" for name, weight in reward.terms.items())
        yield "reward.terms", terms, "the agent loop has the prefix match alone", "prefix=1"
    if reward.thought_cost:
        no_cost = "the agent loop's reward has no cost of thoughts"
        yield "reward.thought_cost", reward.thought_cost, no_cost, 0
    if config.selection.curriculum:
        opens = "which kind opens next depends on training"
        yield "selection.curriculum", config.selection.curriculum, opens, 0
    if algorithm.advantage not in _ESTIMATORS:
        own = "verl has no such estimator, or another one of that name"
        yield "train.advantage", algorithm.advantage, own, "grpo"
    if algorithm.overlong == "mask":
        yield "train.overlong", "mask", "verl compares a group's rollouts all", "penalty"
    if algorithm.ratio_level == "sequence" and algorithm.aggregation != "sequence_mean":
        means = "verl's GSPO takes the mean of each sequence"
        yield "train.aggregation", algorithm.aggregation, means, "sequence_mean"
    if train.positive_weight != 1:
        yield "train.positive_weight", train.positive_weight, "verl weighs all alike", 1
    if train.denominator != "all":
        yield "train.denominator", train.denominator, "verl divides by all rollouts", "all"
    if train.answer_gradient != "sampled":
        exact = "verl trains on what was sampled"
        yield "train.answer_gradient", train.answer_gradient, exact, "sampled"


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """verl's keys of advantage and loss for an algorithm."""

    adv_estimator: str
    norm_adv_by_std_in_grpo: bool
    loss_mode: str
    loss_agg_mode: str
    clip_ratio_low: float
    clip_ratio_high: float
    overlong_buffer: float | None
    """The share of the longest completion over which the agent loop's penalty grows; None = no
    penalty."""

    @classmethod
    def of(cls, algorithm: Algorithm, train: TrainConfig) -> "Loss":
        """Returns the keys for an algorithm that `require_exportable` lets pass."""
        estimator, normed = _ESTIMATORS[algorithm.advantage]
        by_level = "gspo" if algorithm.ratio_level == "sequence" else "vanilla"
        return cls(
            adv_estimator=estimator,
            norm_adv_by_std_in_grpo=normed,
            loss_mode="cispo" if algorithm.surrogate == "cispo" else by_level,
            loss_agg_mode=_AGGREGATIONS[algorithm.aggregation],
            clip_ratio_low=algorithm.clip_low,
            clip_ratio_high=algorithm.clip_high,
            overlong_buffer=train.overlong_buffer if algorithm.overlong == "penalty" else None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Phases:
    """The steps of the launches that a run takes: verl can't begin to filter groups midway."""

    unfiltered: int
    """Steps before dynamic sampling begins; 0 = none."""
    all: int
    filtered: bool
    """Whether dynamic sampling begins at all."""

    @classmethod
    def of(cls, train: TrainConfig) -> "Phases":
        """Returns the phases of a training."""
        first = train.recipe().dynamic_sampling_from
        if first is None or first > train.steps:
            return cls(unfiltered=train.steps, all=train.steps, filtered=False)
        return cls(unfiltered=max(first - 1, 0), all=train.steps, filtered=True)


def _importance(train: TrainConfig) -> tuple[str | None, float | str]:
    """Returns (`rollout_is`, `rollout_is_threshold`) for `train.importance_correction`."""
    band = f"{train.importance_min:g}_{train.importance_max:g}"
    match train.importance_correction:
        case "truncate":
            return "token", train.importance_max
        case "token_mask":
            return "token", band
        case "sequence_mask":
            return "sequence", band
    return None, train.importance_max


def template_values(
    config: Config,
    layout: Layout,
    *,
    model: str,
    parameters: int,
    longest_prompt: int,
    has_development: bool,
) -> dict[str, object]:
    """Returns what the templates of the folder's files are filled with, by name.

    `model`: the start model's folder or Hub id, of so many `parameters`; `longest_prompt`: of all
    exported rows, in tokens; `has_development`: whether there are rows to validate on.
    """
    train, evaluate = config.train, config.evaluate
    longest_response = Budget.of(config.prompt).opening(layout) + Budget.of(config.prompt).new(
        layout
    )
    rollout_is, threshold = _importance(train)
    return {
        "config": config,
        "loss": asdict(Loss.of(train.recipe(), train)),
        "dapo": asdict(Loss.of(ALGORITHMS["dapo"], train)),
        "phases": asdict(Phases.of(train)),
        "model": model,
        "prompts": train.prompts,
        "longest_prompt": longest_prompt,
        "longest_response": longest_response,
        "trained_tokens": Budget.of(config.prompt).trained(layout),
        "tokens_per_gpu": max(16_384, longest_prompt + longest_response),
        "tensor_parallel": 2 if parameters > 10_000_000_000 else 1,
        "rollout_is": rollout_is,
        "rollout_is_threshold": threshold,
        "test_every": train.eval_every if has_development and train.eval_every else -1,
        "has_development": has_development,
        "samples": evaluate.samples,
        "sample_temperature": evaluate.temperature,
    }
