"""`[train]`: reinforcement on the document tree."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from openrpt.config.algorithms import (
    ALGORITHMS,
    OVERRIDABLE,
    Aggregation,
    Algorithm,
    AlgorithmName,
    Estimator,
    ImportanceCorrection,
    Overlong,
    RatioLevel,
)
from openrpt.config.parts import PartName
from openrpt.config.section import MOST, MOST_SAMPLES, MOST_TOKENS, NOTHING, Binds, Section, binds
from openrpt.user_code import is_import_path

_CONSTANT: Aggregation = "constant_length"
_EXACT_ESTIMATORS = ("dr_grpo", "rloo", "maxrl")
"""Advantage estimators that the answer's exact gradient can stand beside."""
_ADVANTAGE = PartName(kind="advantage", known=("auto", *get_args(Estimator)))

_ADVISED = binds("train", "finetune", recorded=True)


class TrainConfig(Section):
    """Reinforcement on the document tree."""

    BINDS: ClassVar[Binds] = binds("train", "finetune")

    steps: Annotated[int, NOTHING] = Field(200, ge=0, le=MOST, description="Optimizer steps")
    time_limit: Annotated[float, NOTHING] = Field(
        0.0, ge=0, description="Begin no step that would end after this many minutes; 0 = none"
    )
    documents_per_step: int = Field(4, ge=1, le=MOST_SAMPLES, description="Documents in a step")
    positions_per_document: int = Field(
        16, ge=1, le=MOST_TOKENS, description="Positions of a document in a step"
    )
    prompts_per_step: int = Field(
        0,
        ge=0,
        le=MOST,
        description="Prompts (positions) in a step, in place of documents_per_step: as many"
        " documents as they take; 0 = documents_per_step says it",
    )
    group_size: Annotated[int, _ADVISED] = Field(
        8, ge=1, le=MOST_SAMPLES, description="Rollouts of a position"
    )
    temperature: float = Field(
        1.0, ge=0.001, le=100, description="Sampling temperature (the loss uses it too)"
    )
    algorithm: AlgorithmName = Field(
        "grpo",
        description="A recipe of advantage, loss, clips and sampling (docs/algorithms.md); the"
        " keys that say 'auto' override single pieces of it",
    )
    advantage: Annotated[str, AfterValidator(_ADVANTAGE)] = Field(
        "auto",
        description="Advantage estimator: one of these, or a function of yours (docs/own_parts.md)",
    )
    aggregation: Literal["auto", Aggregation] = Field(
        "auto",
        description="What the sum over tokens is divided by: the step's tokens, each rollout's"
        " own and then the rollouts, or the rollouts times the longest possible length",
    )
    denominator: Literal["all", "live"] = Field(
        "all",
        description="Which groups count in what the loss is divided by: all, or those with an"
        " advantage other than 0",
    )
    positive_weight: float = Field(
        1.0, ge=0, le=1e6, description="What advantages above 0 are multiplied by"
    )
    ratio_level: Literal["auto", RatioLevel] = Field(
        "auto", description="The ratio of a token, or the geometric mean over the rollout (GSPO)"
    )
    clip_low: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        "auto", description="The ratio is clipped below 1 − this; 1 = not at all"
    )
    clip_high: Annotated[Annotated[float, Field(ge=0)] | Literal["auto"], _ADVISED] = Field(
        "auto", description="The ratio is clipped above 1 + this"
    )
    answer_gradient: Literal["sampled", "exact"] = Field(
        "sampled",
        description="What trains the answer: the sampled answers (sampled), or the probability of a"
        " right one itself, differentiated (exact; with reward expected or log_expected,"
        " docs/algorithms.md)",
    )
    pass_at_k: int = Field(
        2,
        ge=1,
        le=MOST_SAMPLES,
        description="pass_at_k: rollouts of which the best counts (k), at most group_size",
    )
    overlong: Literal["auto", Overlong] = Field(
        "auto",
        description="Completions that do not stop: kept as they are, left out of their group"
        " (mask), or a length penalty on the reward, from 0 down to -1",
    )
    overlong_buffer: float = Field(
        0.2,
        gt=0,
        le=1,
        description="overlong penalty: the last share of the longest possible completion,"
        " over which it grows",
    )
    importance_correction: Literal["auto", ImportanceCorrection] = Field(
        "auto",
        description="For a sampler other than the trainer: weigh tokens by trainer / sampler"
        " probability, cut (truncate) or dropped outside a band (token_mask, sequence_mask); costs"
        " a forward pass. auto: truncate where engine.sampler is not the trainer's, else off",
    )
    importance_min: float = Field(
        0.5, ge=0, description="Masks: tokens or rollouts of a lower weight are dropped"
    )
    importance_max: float = Field(
        2.0, gt=0, description="Greatest weight: cut there (truncate) or dropped beyond (masks)"
    )
    updates_per_batch: int = Field(
        1, ge=1, le=1000, description="Optimizer updates on one batch of rollouts; 1 = on-policy"
    )
    entropy_weight: Annotated[float, _ADVISED] = Field(
        0.0, ge=0, le=1e6, description="Weight of the entropy bonus, nats"
    )
    kl_weight: Annotated[float, _ADVISED] = Field(
        0.0, ge=0, le=1e6, description="Weight of KL(policy || start of this stage), nats a token"
    )
    ntp_weight: float = Field(
        0.5,
        ge=0,
        le=1e6,
        description="Weight of the plain next-token loss on the prefix, nats a token",
    )
    adam_states: Literal["joint", "separate"] = Field(
        "joint",
        description="AdamW's moments: of all losses' gradient together, or of the plain next-token"
        " loss's and the others' each, whose two updates are averaged; costs a second pass over the"
        " prefix",
    )
    dynamic_sampling_from: Annotated[
        Annotated[int, Field(ge=0)] | Literal["auto", "never"], _ADVISED
    ] = Field(
        "auto",
        description="From this step on, flat groups are replaced by others; auto: from the first"
        " under dapo, never under the others",
    )
    dynamic_sampling_rounds: int = Field(
        3, ge=1, le=1000, description="Most rounds of generation a step with dynamic sampling"
    )
    learning_rate: Annotated[float, _ADVISED] = Field(
        2e-5, gt=0, le=1, description="Peak learning rate"
    )
    schedule_steps: int = Field(
        5, ge=0, le=MOST, description="Steps of linear warm-up; then constant"
    )
    eval_every: Annotated[int, NOTHING] = Field(
        20, ge=0, le=MOST, description="Steps between development evaluations; 0 = never"
    )
    eval_positions: Annotated[int, NOTHING] = Field(
        256, ge=1, le=MOST, description="Positions of a development evaluation"
    )

    @property
    def documents(self) -> int:
        """The number of documents in a step."""
        if self.prompts_per_step:
            return self.prompts_per_step // self.positions_per_document
        return self.documents_per_step

    @property
    def prompts(self) -> int:
        """The number of prompts (positions) in a step."""
        return self.documents * self.positions_per_document

    @property
    def has_separate_states(self) -> bool:
        """Whether AdamW keeps moments of its own for the plain loss, where there is one."""
        return self.adam_states == "separate" and self.ntp_weight > 0

    def recipe(self) -> Algorithm:
        """Returns the algorithm that is named, with the pieces that other keys override."""
        pieces = {name: getattr(self, name) for name in OVERRIDABLE}
        given = {name: piece for name, piece in pieces.items() if piece != "auto"}
        if self.dynamic_sampling_from == "never":
            given["dynamic_sampling_from"] = None
        return replace(ALGORITHMS[self.algorithm], **given)

    def _require_exact(self, algorithm: Algorithm) -> None:
        """Raises ValueError for what the answer's exact gradient does not hold with: it is that of
        an expectation under the policy itself, which is not divided by a group's deviation or by a
        rollout's length."""
        if is_import_path(algorithm.advantage):
            raise ValueError(
                "answer_gradient = exact needs to know by what an advantage multiplies the rewards,"
                f" which '{algorithm.advantage}' does not say: leave advantage at auto, with"
                " algorithm dr_grpo, rloo or maxrl"
            )
        if algorithm.advantage not in _EXACT_ESTIMATORS or algorithm.aggregation != _CONSTANT:
            raise ValueError(
                "answer_gradient = exact needs an advantage without a deviation and aggregation"
                f" {_CONSTANT}: algorithm dr_grpo, rloo or maxrl"
            )
        refused = {
            "updates_per_batch": self.updates_per_batch > 1,
            "kl_weight": self.kl_weight > 0,
            "entropy_weight": self.entropy_weight > 0,
            "importance_correction": self.importance_correction not in ("auto", "off"),
            "denominator": self.denominator != "all",
            "overlong": algorithm.overlong != "keep",
            "dynamic_sampling_from": algorithm.dynamic_sampling_from is not None,
        }
        for name, given in refused.items():
            if given:
                raise ValueError(
                    f"answer_gradient = exact does not hold with {name} = {getattr(self, name)}:"
                    " its answers are not sampled; leave it at its default"
                )

    @model_validator(mode="after")
    def _pieces_fit(self) -> "TrainConfig":
        masks = self.importance_correction in ("token_mask", "sequence_mask")
        if masks and self.importance_min >= self.importance_max:
            raise ValueError("importance_min must be below importance_max")
        if self.prompts_per_step % self.positions_per_document:
            raise ValueError(
                f"prompts_per_step = {self.prompts_per_step} is no multiple of"
                f" positions_per_document = {self.positions_per_document}: a document has as many"
                " prompts in a step"
            )
        algorithm = self.recipe()
        if self.answer_gradient == "exact":
            self._require_exact(algorithm)
        if self.adam_states == "separate" and not self.ntp_weight:
            raise ValueError("adam_states = separate needs a plain loss: ntp_weight above 0")
        if self.denominator == "live" and (self.kl_weight or self.entropy_weight):
            raise ValueError(
                "denominator = live does not hold with kl_weight or entropy_weight, which read flat"
                " groups as well: leave it at all"
            )
        if algorithm.advantage == "pass_at_k" and self.pass_at_k > self.group_size:
            raise ValueError("pass_at_k must be at most group_size")
        if algorithm.overlong == "penalty" and algorithm.advantage in ("maxrl", "pass_at_k"):
            raise ValueError(
                f"advantage {algorithm.advantage} needs rewards of at least 0, which the overlong"
                " penalty breaks: use overlong = mask"
            )
        return self
