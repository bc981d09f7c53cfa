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
from dataclasses import dataclass
from typing import Any

import torch

from openrpt.config.sections import Config
from openrpt.costs.meters import StepMeter
from openrpt.data.curriculum import read_curriculum
from openrpt.data.prompts import Layout
from openrpt.engine.average import MovingAverage
from openrpt.engine.checkpoint_record import TrainerState, read_record
from openrpt.engine.engine import Engine, open_engine, open_seeding_start
from openrpt.engine.samplers import open_sampler
from openrpt.errors import UserError
from openrpt.progress import SILENT, Progress
from openrpt.rl.batch import Graded, Weighted
from openrpt.rl.collect import Collector, batch_metrics
from openrpt.rl.cost import step_cost
from openrpt.rl.nonfinite import attempted
from openrpt.rl.optimizer import learning_rate, set_learning_rate
from openrpt.rl.rewards.reward import reward_metrics
from openrpt.rl.task import Task
from openrpt.rl.thinking import thought_metrics
from openrpt.rl.update import update_policy
from openrpt.rl.weight_sync import WeightSync
from openrpt.rl.workers import ALONE, Workers
from openrpt.runs.checkpoints import BASELINE, latest_checkpoint, read_tensors, require_own
from openrpt.runs.metrics import PhaseTimer, memory_metrics
from openrpt.runs.rollouts import rollout_rows, write_rollouts
from openrpt.runs.run import Run
from openrpt.runs.scores import scores_of
from openrpt.runs.works import record_works
from openrpt.stages.finished import finished
from openrpt.stages.harness import run_stage
from openrpt.stages.own_parts import require_own_parts
from openrpt.stages.stage import Limits, Summary, open_trained
from openrpt.stages.text_task import text_task

_MakeTask = Callable[[Run, Engine, Layout], Task]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainer:
    """The stage of `train` and `finetune`, whatever its task (`openrpt.stages.stage.Stage`)."""

    run: Run
    config: Config
    engine: Engine
    """The policy's."""
    weights: WeightSync | None
    """What draws the rollouts with a copy of the weights; None where the policy's engine does."""
    layout: Layout
    task: Task
    optimizer: torch.optim.Optimizer
    reference: Engine | None
    """The engine of the model that the KL term compares with; None where there is no such term."""
    meter: StepMeter
    state: TrainerState
    workers: Workers = ALONE

    @property
    def limits(self) -> Limits:
        """The steps and the minutes of `[train]`."""
        return limits_of(self.config)

    @property
    def eval_every(self) -> int:
        """Steps between two evaluations; 0 = never."""
        return self.config.train.eval_every

    @property
    def baseline(self) -> MovingAverage | None:
        """The moving average that advantages are taken against; None where there is none."""
        return self.task.baseline

    @property
    def collector(self) -> Collector:
        """The collector of the next step's groups."""
        return Collector(
            config=self.config,
            sampler=self.engine if self.weights is None else self.weights.sampler,
            task=self.task,
            layout=self.layout,
            workers=self.workers,
        )

    def step(self, *, store: bool = False) -> dict[str, Any]:
        """Collects one batch of rollouts and updates the policy on it; returns the metrics."""
        state, timer = self.state, PhaseTimer()
        state.step += 1
        self.meter.begin()
        version = state.step - 1
        if self.weights is not None:
            with timer("hand_over"):
                version = self.weights.policy_version(state.step)
        with timer("generate"), self.engine.model.reading():
            batch, generated = self.collector.collect(state)
        groups = [group for graded in generated for group in graded.groups]
        followed = self.task.follow(state, groups)
        if store:
            with timer("store"):  # where it fails, the weights are still the last step's
                self._store(batch, generated, version)
        rate = learning_rate(self.config.train, state.step)
        set_learning_rate(self.optimizer, rate)
        with timer("update"):
            updated = attempted(lambda: self._update(batch), self.config.optim, step=state.step)
        cost = step_cost(self.engine.model, generated, batch, self.config, self.layout)
        return (
            batch_metrics(batch, generated)
            | ({} if self.weights is None else {"sampler/staleness": state.step - 1.0 - version})
            | thought_metrics(generated, self.layout, self.engine.model.table, self.config.prompt)
            | reward_metrics(groups, self.config.reward)
            | followed
            | updated
            | {"optim/learning_rate": rate}
            | timer.metrics()
            | {"time/step": sum(timer.seconds.values())}
            | cost
            | self.meter.metrics(cost, timer.seconds)
            | memory_metrics(self.engine.model.device)
        )

    def evaluate(self) -> dict[str, float]:
        """Measures accuracy on the development split, whose rollouts are stored."""
        return self.task.development(self.engine, self.state.step)

    def describe(self, metrics: dict[str, Any]) -> str:
        """Returns a step's reward and what else is worth watching, in one line."""
        parts = [
            f"reward {metrics['reward/mean']:.3f}",
            f"flat {metrics['group/flat_fraction']:.0%}",
        ]
        if "development/reasoning_accuracy" in metrics:
            parts.append(f"dev {metrics['development/reasoning_accuracy']:.1%}")
        return " · ".join(parts)

    def _update(self, batch: Sequence[Weighted]) -> dict[str, float]:
        """Makes the step's optimizer update(s), and the baseline's. Raises NotFinite as
        `update_policy`."""
        metrics = update_policy(
            self.engine,
            self.optimizer,
            batch,
            self.config,
            self.layout,
            reference=self.reference,
            workers=self.workers,
        )
        if self.baseline is not None:
            self.baseline.update(self.engine.model)
        return metrics

    def _store(
        self, batch: Sequence[Weighted], generated: Sequence[Graded], policy_version: int
    ) -> None:
        """Keeps the rollouts that are trained on, and where all were generated."""
        rows: list[dict[str, Any]] = []
        for graded in batch:
            rows += rollout_rows(
                self.state.step,
                graded.groups,
                graded.advantages.tolist(),
                self.task.truth(graded.work),
                self.engine.model.table,
                policy_version=policy_version,
            )
        write_rollouts(self.run.path, self.state.step, rows)
        record_works(
            self.run.path,
            stage=self.state.stage,
            step=self.state.step,
            cursor=self.state.cursor,
            works=[graded.work for graded in generated],
        )


def train(run: Run, *, workers: Workers = ALONE, progress: Progress = SILENT) -> Summary:
    """Trains from the warmed-up policy (or the start model where there was no warmup).

    `workers`: the processes that share each step, all of which call this. Resumes from the last
    checkpoint of the run folder, by however many processes it was written. Raises UserError for bad
    configuration and damaged checkpoints.
    """
    require_own_parts(run.config, "train")
    with run.at_work(writes=workers.rank == 0):
        if done := finished(run, "train", run.config, limits_of(run.config), progress):
            return done
        progress.begin("load the models", 0)
        return run_stage(open_train(run, workers=workers), progress)


def limits_of(config: Config) -> Limits:
    """Returns the steps and the minutes of `[train]`."""
    return Limits.of(steps=config.train.steps, minutes=config.train.time_limit)


def check_input(run: Run) -> None:
    """Checks that training could begin. Raises UserError for bad rewards, a part of the user's own
    that can't be had, and absent scores."""
    require_own_parts(run.config, "train")
    read_curriculum(scores_of(run), run.config.selection)


def open_train(run: Run, *, workers: Workers = ALONE) -> Trainer:
    """Opens the stage: the policy of the last checkpoint, of the warmup, or the start model.

    Only reads, as do its steps: `open_train(run).step()` is one step of training. Raises UserError
    for bad configuration, scores that do not fit, a warmup that has not ended, and damaged
    checkpoints.
    """
    _require_whole_warmup(run)
    new = TrainerState(stage="train", warmed_up=run.start.is_dir())
    if latest_checkpoint(run.checkpoints_of("train")) is None and run.start.is_dir():
        record = read_record(run.start)
        new.trace_sources = record.state.trace_sources
        if record.config["run"] == run.config.run:  # else it was taken over, or its folder copied
            require_own(record, run.start, run.config, stage="warmup")
    return open_trainer(run, new, make_task=text_task, workers=workers)


def _require_whole_warmup(run: Run) -> None:
    begun = latest_checkpoint(run.checkpoints_of("warmup")) is not None
    if begun and not run.start.is_dir() and latest_checkpoint(run.checkpoints) is None:
        raise UserError(
            f"{run.path}: its warmup has not ended: openrpt warmup --run {run.path} goes on"
        )


def open_trainer(
    run: Run, new: TrainerState, *, make_task: _MakeTask, workers: Workers = ALONE
) -> Trainer:
    """Opens a trainer for a task: with the policy, its optimizer and the frozen models that the
    configuration asks for. `new`: the state of a stage that begins, which it names."""
    config = run.config
    begin = run.start if run.start.is_dir() else None
    opened = open_trained(
        run,
        new,
        begin=begin,
        candidates_from=open_seeding_start(config),
        paired=config.train.has_separate_states,
        workers=workers,
    )
    policy = opened.engine.model
    reference = None
    if config.train.kl_weight:
        reference = open_engine(config, path=None if begin is None else str(begin))
    layout = policy.layout(config.prompt)
    task = make_task(run, opened.engine, layout)
    if opened.checkpoint is not None and task.baseline is not None:
        task.baseline.load(read_tensors(opened.checkpoint / BASELINE))
    return Trainer(
        run=run,
        config=config,
        engine=opened.engine,
        weights=_weight_sync(opened.engine, config, layout),
        layout=layout,
        task=task,
        optimizer=opened.optimizer,
        reference=reference,
        meter=StepMeter(policy, config, processes=workers.count),
        state=opened.state,
        workers=workers,
    )


def _weight_sync(engine: Engine, config: Config, layout: Layout) -> WeightSync | None:
    """Opens the sampler that the configuration asks for, where it is not the policy's engine."""
    sampler = open_sampler(engine, config, layout)
    if sampler is engine:
        return None
    return WeightSync(sampler=sampler, policy=engine, max_staleness=config.engine.max_staleness)
