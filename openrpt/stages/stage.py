"""The protocol of a training stage: it says what one step does, and `run_stage` does the rest.

A stage stands in memory alone. Whoever opens one by hand takes its steps without a file written:

    from openrpt.runs.run import existing_run
    from openrpt.stages.train import open_train

    stage = open_train(existing_run(Path("runs/maths")))
    metrics = stage.step()
    print(stage.describe(metrics), stage.evaluate())
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from openrpt.config.loading import with_overrides
from openrpt.config.sections import Config, StageName
from openrpt.engine.average import MovingAverage
from openrpt.engine.checkpoint_record import TrainerState, read_record
from openrpt.engine.engine import Engine, open_engine
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.errors import UserError
from openrpt.rl.optimizer import make_optimizer
from openrpt.rl.workers import ALONE, Workers
from openrpt.runs.checkpoints import latest_checkpoint, require_own, restore
from openrpt.runs.run import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits at which a stage ends: whichever comes first, over all its starts."""

    steps: int
    seconds: float = math.inf
    """The seconds that a stage has: no step begins that might end later."""
    count_evaluations: bool = True
    """Whether the time that evaluations take counts, too."""

    @classmethod
    def of(cls, steps: int, minutes: float) -> "Limits":
        """Makes them of `steps` and `time_limit`, where 0 minutes are no limit."""
        return cls(steps=steps, seconds=minutes * 60 or math.inf)

    def share_done(self, state: TrainerState) -> float:
        """Returns the share of the whole that is done, by the limit that is nearer: how far a
        cosine has fallen."""
        return min(1.0, max(state.step / self.steps, state.seconds / self.seconds))


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The outcome of a stage."""

    steps: int
    seconds: float
    """Time spent in steps, over all starts."""
    checkpoint: Path
    """The folder of the model that it made."""


class Stage(Protocol):
    """A training stage, opened: what it trains, what one step does, and where it ends."""

    @property
    def run(self) -> Run:
        """The run folder that the stage writes into."""

    @property
    def config(self) -> Config:
        """The configuration as the stage reads it, which checkpoints keep."""

    @property
    def engine(self) -> Engine:
        """The engine of the policy, which is trained."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the policy's parameters."""

    @property
    def state(self) -> TrainerState:
        """The state that steps change, weights and optimizer aside; its `stage` is the stage's
        name."""

    @property
    def workers(self) -> Workers:
        """The processes that share the steps; of them the first writes files and evaluates."""

    @property
    def limits(self) -> Limits:
        """The steps and the time at which the stage ends."""

    @property
    def eval_every(self) -> int:
        """Steps between two evaluations; 0 = never."""

    @property
    def baseline(self) -> MovingAverage | None:
        """The average of the policy that checkpoints keep; None where no reward reads one."""

    def step(self, *, store: bool = False) -> dict[str, Any]:
        """Takes one step (`state.step` counts it) and returns its metrics.

        `store`: what it trains on is written into the run folder before the weights change, where
        the stage keeps that (`StageFacts.rollouts`); otherwise no file is written. Where it raises,
        the state belongs to no whole step.
        """

    def evaluate(self) -> dict[str, float]:
        """Measures the policy as it is; the metrics."""

    def describe(self, metrics: dict[str, Any]) -> str:
        """Says a step's metrics in a few words."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Opened:
    """The things that every stage trains with, as they stand in the run folder."""

    engine: Engine
    """The engine of the policy."""
    optimizer: torch.optim.Optimizer
    state: TrainerState
    checkpoint: Path | None
    """The checkpoint that the stage goes on from; None where it begins."""


def open_trained(
    run: Run,
    new: TrainerState,
    *,
    begin: Path | None = None,
    candidates_from: Engine | None = None,
    weight_decay: float | None = None,
    paired: bool = False,
    workers: Workers = ALONE,
) -> Opened:
    """Opens policy, optimizer and state from a stage's last checkpoint; `new` is the state of a
    stage that has none, and names it.

    It begins from the model in `begin`, else from the start model. `candidates_from`: whose
    candidates seed the thought, where not the policy's own. `weight_decay` takes the place of
    `optim.weight_decay`; `paired`: the optimizer is a PairedAdamW; `workers`: those among which
    `parallel.shard` divides it. Only reads. Raises UserError for a checkpoint that is damaged,
    another stage's, or made with another value of a binding key.
    """
    config = run.config
    _require_divisible(config, paired=paired)
    last = _last_checkpoint(run, new.stage)
    # LoRA adapters sit on the weights that training began from; the merged ones are for others.
    weights = begin if last is None or config.model.lora_rank else last
    divided = config.parallel.divides_weights and workers.count > 1
    engine = open_engine(
        # In the host's memory there is room for all of it.
        with_overrides(config, {"model.device": "cpu"}) if divided else config,
        path=None if weights is None else str(weights),
        trained=True,
        recompute=config.memory.gradient_checkpointing,
        start=candidates_from,
    )
    decay = config.optim.weight_decay if weight_decay is None else weight_decay
    if divided:
        from openrpt.engine.divided import divide

        divide(engine.model, workers, by_layer=config.parallel.shard == "layers")
    optimizer = make_optimizer(
        engine.model,
        config.optim,
        weight_decay=decay,
        paired=paired,
        shared_by=workers if config.parallel.shard == "optimizer" else ALONE,
    )
    if last is not None:
        state = restore(last, engine.model, optimizer)
    else:
        state = replace(new, start_model=model_fingerprint(config.model.path))
    return Opened(engine=engine, optimizer=optimizer, state=state, checkpoint=last)


def _last_checkpoint(run: Run, stage: StageName) -> Path | None:
    """Returns a stage's last checkpoint, which fits the run's configuration; None where there is
    none yet."""
    last = latest_checkpoint(run.checkpoints_of(stage))
    if last is None:
        return None
    record = read_record(last)
    if record.state.stage != stage:
        raise UserError(
            f"{last}: a checkpoint of '{record.state.stage}': give '{stage}' a run of its own"
            " (--run)"
        )
    require_own(record, last, run.config, stage=stage)
    return last


def _require_divisible(config: Config, *, paired: bool) -> None:
    """Raises UserError for what can't be where `parallel.shard` divides something."""
    shard = config.parallel.shard
    if shard != "none" and paired:
        raise UserError(
            f"parallel.shard = '{shard}' divides one AdamW, and train.adam_states = 'separate' has"
            " two; set one of them only"
        )
    if not config.parallel.divides_weights:
        return
    refused = {
        "engine.trainer = 'flat'": config.engine.trainer == "flat",
        f"engine.sampler = '{config.engine.sampler}'": config.engine.sampler != "same",
        "reward.terms 'information_gain', whose moving average is a whole model": (
            "information_gain" in config.reward.terms
        ),
    }
    for what, is_asked in refused.items():
        if is_asked:
            raise UserError(
                f"parallel.shard = '{shard}' doesn't go with {what}; set one of them only"
            )
