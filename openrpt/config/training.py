"""`[warmup]` and `[pretrain]`, and what every training stage shares: `[optim]`, `[checkpoints]`."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from openrpt.config.section import (
    MOST,
    MOST_SAMPLES,
    MOST_TOKENS,
    NOTHING,
    Binds,
    OptionalPath,
    Section,
    binds,
)

_RECORDED = binds("warmup", "train", "finetune", "pretrain", recorded=True)


class OptimConfig(Section):
    """What the optimizers of warmup, train, finetune and pretrain share."""

    BINDS: ClassVar[Binds] = binds("warmup", "train", "finetune", "pretrain")

    max_grad_norm: Annotated[float, _RECORDED] = Field(
        1.0, gt=0, le=1e9, description="Gradient clipping, global L2 norm"
    )
    weight_decay: Annotated[float, binds("train", "finetune", "pretrain")] = Field(
        0.01, ge=0, le=1, description="AdamW's decoupled weight decay; warmup has none"
    )
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first decay")
    adam_beta2: float = Field(0.99, ge=0, lt=1, description="AdamW's second decay")
    on_nonfinite: Annotated[Literal["stop", "skip"], _RECORDED] = Field(
        "stop",
        description="A gradient that is not finite: stop, or leave the update out (skip), say where"
        " it came from and go on",
    )
    nonfinite_limit: Annotated[int, _RECORDED] = Field(
        3, ge=1, description="skip: stop after so many steps in a row whose update was left out"
    )


class CheckpointsConfig(Section):
    """When a training stage writes what a restart goes on from."""

    BINDS: ClassVar[Binds] = NOTHING

    every: int = Field(
        20, ge=1, le=MOST, description="Steps between checkpoints; warmup goes by minutes alone"
    )
    minutes: float = Field(
        10.0, gt=0, description="A checkpoint is written at least this often, in minutes"
    )
    kept: int = Field(
        2, ge=1, le=MOST, description="Latest checkpoints kept (and the best one); of warmup's, one"
    )


class WarmupConfig(Section):
    """The cold start: the form of a rollout, learned from the model itself."""

    BINDS: ClassVar[Binds] = binds("warmup")

    target: Literal["self", "truth"] = Field(
        "self",
        description="Answers of the imitations: the model's own prediction (form only) or the"
        " text's (supervised, and labelled so)",
    )
    traces: OptionalPath = Field(
        "",
        description="File of given thoughts (docs/traces.md) to imitate where it has any"
        " (supervised, and labelled so); '' = none",
    )
    trace_weight: float = Field(
        1.0, ge=0, le=1e6, description="Weight of a given thought's tokens (its prediction = 1)"
    )
    trace_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of a document's positions that is drawn from its given thoughts, as far"
        " as there are any in the window",
    )
    steps: Annotated[int, binds("warmup", under=("warmup", "warmup.schedule", "cosine"))] = Field(
        24, ge=0, le=MOST, description="Optimizer steps"
    )
    time_limit: Annotated[float, NOTHING] = Field(
        0.0, ge=0, description="Begin no step that would end after this many minutes; 0 = none"
    )
    documents_per_step: int = Field(2, ge=1, le=MOST_SAMPLES, description="Documents in a step")
    positions_per_document: int = Field(
        24, ge=1, le=MOST_TOKENS, description="Positions of a document in a step"
    )
    learning_rate: Annotated[float, binds("warmup", recorded=True)] = Field(
        1.5e-4, gt=0, le=1, description="Peak learning rate"
    )
    schedule: Literal["constant", "cosine"] = Field(
        "constant",
        description="After the first steps: constant, or half a cosine to 0 over the whole, by"
        " steps or by time, whichever is further",
    )
    schedule_steps: int = Field(4, ge=0, le=MOST, description="Steps of linear warm-up")
    answer_sharpness: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Seeded: weight of the first candidate in the answer's"
        " target; the rest is the candidates' renormalised probabilities",
    )
    form_weight: float = Field(
        0.5, ge=0, le=1e6, description="Weight of the box's end and the end of turn (answer = 1)"
    )
    draft_weight: float = Field(
        0.1,
        ge=0,
        le=1e6,
        description="Unseeded: weight of the drafted thought's tokens (answer = 1)",
    )
    draft_tokens: int = Field(
        8,
        ge=1,
        le=MOST_TOKENS,
        description="Unseeded: tokens of look-ahead that make an imitation's thought",
    )
    tail_steps: int = Field(
        16,
        ge=0,
        le=MOST,
        description="Unseeded: steps of dense distillation of the tail, before the form",
    )
    text_kl_weight: float = Field(
        1.0,
        ge=0,
        le=1e6,
        description="Weight of KL(start || policy) on the plain text, nats a token",
    )
    ntp_weight: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="Weight of plain next-token loss on the text, nats a token (makes"
        " the warmup supervised; labelled so)",
    )

    def distils_tails(self, candidates: int) -> bool:
        """Returns whether what the policy says behind a tail is drawn to what the frozen start
        model says without one: where no candidates (`prompt.candidates`) lead the thought."""
        return not candidates and self.target == "self"

    def reads_start(self, candidates: int) -> bool:
        """Returns whether a loss compares with the frozen start model, whose pass is spared
        otherwise."""
        return self.text_kl_weight > 0 or self.distils_tails(candidates)

    def supervision(self, sources: Sequence[str] = ()) -> str:
        """Returns what it learns from beside the model's own predictions; empty: form only.

        `sources`: who made the given thoughts.

        >>> WarmupConfig(traces="data/sums.jsonl").supervision(["calculator"])
        'given thoughts (sums.jsonl, by calculator)'
        """
        seen = []
        if self.target == "truth" or self.ntp_weight > 0:
            seen.append("the true tokens")
        if self.traces:
            by = f", by {' and '.join(sources)}" if sources else ""
            seen.append(f"given thoughts ({PurePath(self.traces).name}{by})")
        return " and ".join(seen)


class PretrainConfig(Section):
    """Plain next-token training: the control for RPT, and a trainer in its own right."""

    BINDS: ClassVar[Binds] = binds("pretrain")

    steps: Annotated[int, binds("pretrain", under=("pretrain", "pretrain.schedule", "cosine"))] = (
        Field(200, ge=0, le=MOST, description="Optimizer steps, where match is empty")
    )
    time_limit: Annotated[float, NOTHING] = Field(
        0.0, ge=0, description="Stop after this many minutes; 0 = none"
    )
    flops: float = Field(
        0.0, ge=0, description="Steps up to so many FLOPs, in place of steps; 0 = none"
    )
    match: OptionalPath = Field(
        "", description="Run folder whose training this is a control for; '' = none"
    )
    match_by: Literal["documents", "flops", "time"] = Field(
        "documents",
        description="What is equal to that run: documents (the same windows in the same order and"
        " steps, and the same selected positions), flops or time (its total, warmup included)",
    )
    tokens: Literal["full", "selected"] = Field(
        "full", description="Trained tokens: full (all), selected (where selection.strategy passes)"
    )
    tokens_per_step: int = Field(
        2048,
        ge=1,
        le=MOST,
        description="Least tokens of text run in a step (whole pieces are taken)",
    )
    sequence_length: int = Field(
        512,
        ge=8,
        le=MOST_TOKENS,
        description="Longer documents are cut into even pieces of at most this, in tokens",
    )
    microbatch_tokens: Annotated[int, NOTHING] = Field(
        2048, ge=1, le=MOST, description="Tokens packed into one pass: memory, never results"
    )
    learning_rate: Annotated[float, binds("pretrain", recorded=True)] = Field(
        1e-5, gt=0, le=1, description="Peak learning rate"
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="After the warm-up: half a cosine to 0 over the whole, or constant"
    )
    schedule_steps: int = Field(5, ge=0, le=MOST, description="Steps of linear warm-up")
    eval_every: Annotated[int, NOTHING] = Field(
        20, ge=0, le=MOST, description="Steps between development evaluations; 0 = never"
    )
    eval_tokens: Annotated[int, NOTHING] = Field(
        10_000, ge=1, le=MOST, description="Least tokens of a development evaluation's perplexity"
    )

    @model_validator(mode="after")
    def _has_one_budget(self) -> "PretrainConfig":
        if self.flops and self.match:
            raise ValueError("flops and match both say how much is trained: give one")
        return self
