"""Reinforcement on the document tree: generate, reward, compare within groups, update.

What differs from the paper (arXiv 2506.08007, Section 3 and Appendix B), all of it by default
and all of it an option:
1. the thought is seeded with the model's own candidates (`prompt.candidates`; 0 = the paper);
2. a plain next-token loss on the shared prefix rides along (`train.ntp_weight`; 0 = the paper);
3. advantages, clipping and aggregation are GRPO's, strictly on-policy as in the paper, but the
   positions of a step come from few documents with many positions each: that is what the tree
   makes cheap.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from openrpt.config.section import Stage
from openrpt.config.sections import Config
from openrpt.costs.meters import StepMeter
from openrpt.data.prompts import Layout
from openrpt.engine.checkpoint_record import TrainerState, read_record
from openrpt.engine.engine import Engine, open_engine
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.errors import UserError
from openrpt.progress import SILENT, Progress
from openrpt.rl.batch import Graded, Weighted
from openrpt.rl.collect import Collector, batch_metrics
from openrpt.rl.cost import step_cost
from openrpt.rl.nonfinite import attempted
from openrpt.rl.optimizer import make_optimizer, set_learning_rate
from openrpt.rl.rewards.terms import make_terms, reward_metrics
from openrpt.rl.task import Task
from openrpt.rl.thinking import thought_metrics
from openrpt.rl.update import update_policy
from openrpt.rl.workers import ALONE, Workers
from openrpt.runs.checkpoints import (
    BASELINE,
    latest_checkpoint,
    prune,
    read_tensors,
    require_own,
    restore,
    save_checkpoint,
    step_folder,
)
from openrpt.runs.metrics import PhaseTimer, peak_memory_gib, truncate_metrics
from openrpt.runs.rollouts import (
    rollout_folder,
    rollout_path,
    rollout_rows,
    stored_steps,
    write_rollouts,
)
from openrpt.runs.run import Run, works_in_run
from openrpt.runs.works import forget_works, record_works
from openrpt.stages.loop import run_steps
from openrpt.stages.text_task import text_task

STAGE: Final = "train"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSummary:
    steps: int
    seconds: float
    checkpoint: Path


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainer:
    """All that the loop holds on to; `train_step` below and `Collector.collect` are the method."""

    run: Run
    config: Config
    engine: Engine
    """Of the policy."""
    layout: Layout
    task: Task
    optimizer: torch.optim.Optimizer
    reference: Engine | None
    meter: StepMeter
    state: TrainerState
    workers: Workers = ALONE

    @property
    def collector(self) -> Collector:
        return Collector(
            config=self.config,
            engine=self.engine,
            task=self.task,
            layout=self.layout,
            workers=self.workers,
        )


@works_in_run
def train(run: Run, *, progress: Progress = SILENT) -> TrainSummary:
    """Trains from the warmed-up policy (or the start model where there was no warmup).

    Resumes from the last checkpoint of the run folder. Raises UserError for bad configuration
    and damaged checkpoints.
    """
    make_terms(run.config)  # what is wrong with a reward is said before anything is loaded
    return run_training(set_up(run), progress)


def run_training(trainer: Trainer, progress: Progress) -> TrainSummary:
    """The loop over a trainer's steps, whatever its task."""
    run, settings = trainer.run, trainer.config.train

    def evaluate() -> dict[str, float]:
        due = settings.eval_every and trainer.state.step % settings.eval_every == 0
        return development_evaluation(trainer) if due else {}

    run_steps(
        trainer.state,
        config=trainer.config,
        optimizer=trainer.optimizer,
        steps=settings.steps,
        time_limit=settings.time_limit,
        checkpoint_every=trainer.config.checkpoints.every,
        checkpoints=run.checkpoints,
        metrics_path=run.metrics,
        step=lambda: train_step(trainer),
        evaluate=evaluate,
        save=lambda: save(trainer),
        describe=describe,
        progress=progress,
    )
    state = trainer.state
    folder = step_folder(run.checkpoints, state.step)
    return TrainSummary(steps=state.step, seconds=state.seconds, checkpoint=folder)


def train_step(trainer: Trainer) -> dict[str, Any]:
    """One batch of rollouts and its update(s); returns the step's metrics."""
    timer = PhaseTimer()
    trainer.meter.begin()
    with timer("generate"):
        batch, generated = trainer.collector.collect(trainer.state)
    with timer("store"):  # before the weights change: where it fails, they are the last step's
        store(trainer, batch, generated)
    set_learning_rate(trainer.optimizer, trainer.config, trainer.state.step)
    with timer("update"):
        updated = attempted(
            lambda: update(trainer, batch), trainer.config.optim, step=trainer.state.step
        )
    cost = step_cost(trainer.engine.model, generated, batch, trainer.config, trainer.layout)
    seconds = sum(timer.seconds.values())
    return (
        batch_metrics(batch, generated)
        | thought_metrics(
            generated, trainer.layout, trainer.engine.model.table, trainer.config.prompt
        )
        | reward_metrics([g for graded in generated for g in graded.groups], trainer.config.reward)
        | updated
        | {"optim/learning_rate": trainer.optimizer.param_groups[0]["lr"]}
        | timer.metrics()
        | {"time/step": seconds}
        | cost
        | trainer.meter.metrics(cost, timer.seconds)
        | {"memory/peak_gib": peak_memory_gib()}
    )


def update(trainer: Trainer, batch: Sequence[Weighted]) -> dict[str, float]:
    """The step's optimizer update(s), and the baseline's. Raises NotFinite as `update_policy`."""
    metrics = update_policy(
        trainer.engine,
        trainer.optimizer,
        batch,
        trainer.config,
        trainer.layout,
        reference=trainer.reference,
        workers=trainer.workers,
    )
    if trainer.task.baseline is not None:
        trainer.task.baseline.update(trainer.engine.model)
    return metrics


def store(trainer: Trainer, batch: Sequence[Weighted], generated: Sequence[Graded]) -> None:
    """Keeps the rollouts that were trained on, and where all were generated."""
    rows: list[dict[str, Any]] = []
    for graded in batch:
        rows += rollout_rows(
            trainer.state.step,
            graded.groups,
            graded.advantages.tolist(),
            trainer.task.truth(graded.work),
            trainer.engine.model.table,
        )
    write_rollouts(trainer.run.path, trainer.state.step, rows)
    record_works(
        trainer.run.path,
        stage=trainer.state.stage,
        step=trainer.state.step,
        cursor=trainer.state.cursor,
        works=[graded.work for graded in generated],
    )


def development_evaluation(trainer: Trainer) -> dict[str, float]:
    """Accuracy on the development split; the best policy so far is kept in checkpoints/best."""
    config, state = trainer.config, trainer.state
    metrics = trainer.task.development(trainer.engine, state.step)
    accuracy = metrics.get("development/reasoning_accuracy", -1.0)
    if accuracy > state.best_accuracy:
        best = replace(state, best_step=state.step, best_accuracy=accuracy)
        save_checkpoint(trainer.run.checkpoints / "best", trainer.engine.model, best, config)
        state.best_step, state.best_accuracy = best.best_step, best.best_accuracy
    return metrics


def save(trainer: Trainer) -> None:
    folder = step_folder(trainer.run.checkpoints, trainer.state.step)
    baseline = trainer.task.baseline
    save_checkpoint(
        folder,
        trainer.engine.model,
        trainer.state,
        trainer.config,
        optimizer=trainer.optimizer,
        baseline=None if baseline is None else baseline.weights,
    )
    prune(trainer.run.checkpoints, trainer.config.checkpoints.kept)


def set_up(
    run: Run,
    *,
    stage: Stage = STAGE,
    make_task: Callable[[Run, Engine, Layout], Task] = text_task,
) -> Trainer:
    """Loads the policy (of the last checkpoint, of the warmup, or the start model), the
    optimizer and the frozen models that the config asks for."""
    config = run.config
    last = latest_checkpoint(run.checkpoints)
    begin = str(run.start) if run.start.is_dir() else config.model.path
    if last is not None:
        record = read_record(last)
        if record.state.stage != stage:
            raise UserError(
                f"{last}: a checkpoint of '{record.state.stage}': give '{stage}' a run of its own"
                " (--run)"
            )
        require_own(record, last, config, stage=stage)
    elif run.start.is_dir():
        record = read_record(run.start)
        if record.config["run"] == config.run:  # else it was taken over, or its folder copied
            require_own(record, run.start, config, stage="warmup")
    # LoRA adapters sit on the weights that training began from; the merged ones are for others.
    weights = begin if last is None or config.model.lora_rank else str(last)
    start = None
    if config.prompt.candidates and config.prompt.candidate_source == "start":
        start = open_engine(config.model)
    engine = open_engine(
        config.model,
        path=weights,
        trained=True,
        recompute=config.memory.gradient_checkpointing,
        start=start,
    )
    policy = engine.model
    reference = None
    if config.train.kl_weight:
        reference = open_engine(config.model, path=begin)
    layout = policy.layout(config.prompt)
    optimizer = make_optimizer(policy, config, paired=config.train.has_separate_states)
    if last is not None:
        state = restore(last, policy, optimizer)
    else:
        known = model_fingerprint(config.model.path)
        state = TrainerState(stage=stage, warmed_up=run.start.is_dir(), start_model=known)
    task = make_task(run, engine, layout)
    if last is not None and task.baseline is not None:
        task.baseline.load(read_tensors(last / BASELINE))
    forget_after(run, state)
    return Trainer(
        run=run,
        config=config,
        engine=engine,
        layout=layout,
        task=task,
        optimizer=optimizer,
        reference=reference,
        meter=StepMeter(policy, config),
        state=state,
    )


def forget_after(run: Run, state: TrainerState) -> None:
    """Steps after the checkpoint are about to be run again: their traces go."""
    truncate_metrics(run.metrics, state.stage, state.step)
    forget_works(run.path, state.stage, state.step)
    for development in (False, True):
        for step in stored_steps(rollout_folder(run.path, development=development)):
            if step > state.step:
                rollout_path(run.path, step, development=development).unlink()


def describe(metrics: dict[str, Any]) -> str:
    parts = [
        f"reward {metrics['reward/mean']:.3f}",
        f"flat {metrics['group/flat_fraction']:.0%}",
    ]
    if "development/reasoning_accuracy" in metrics:
        parts.append(f"dev {metrics['development/reasoning_accuracy']:.1%}")
    return " · ".join(parts)
