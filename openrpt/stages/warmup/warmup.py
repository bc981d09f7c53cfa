"""The cold start: the form of a rollout, learned from the model itself.

A small model can't do the task at first: any tail after the text destroys its next-token
prediction. Two ways, both made from the model's own predictions (`target = self`: form only):

- seeded (`prompt.candidates` > 0): the thought is the candidates; the imitation's answer copies one
  of them. The answer's target mixes the first candidate with the candidates' probabilities.
- unseeded: first the distribution after the tail is drawn to the frozen model's on plain text
  (dense distillation of the tail), then imitations whose thought is a short look-ahead draft and
  whose box holds the draft's first token. Where there is no room for a thought
  (`prompt.think_budget` = 0), its close and the opened box belong to the tail.

Where thoughts are given (`warmup.traces`), those take the place of the model's own: the thought,
its end and the prediction are trained, which is supervised by whoever wrote them.

A KL on the plain text keeps the model's language; the tree's prefix gives it for nothing. With
`target = truth` the answers are the text's own: that is supervised, and is labelled so.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from openrpt.config.sections import Config
from openrpt.costs.flops import prefix_passes
from openrpt.costs.meters import CountingEngine, StepMeter
from openrpt.data.prompts import Layout
from openrpt.data.scored import ScoredCorpus
from openrpt.data.training_work import take_work
from openrpt.data.work import Work
from openrpt.engine.checkpoint_record import TrainerState
from openrpt.engine.engine import Engine, open_engine
from openrpt.errors import UserError
from openrpt.progress import SILENT, Progress
from openrpt.rl.nonfinite import Places, attempted
from openrpt.rl.optimizer import apply_update, learning_rate, set_learning_rate
from openrpt.rl.workers import ALONE, Workers, summed
from openrpt.runs.checkpoints import latest_checkpoint
from openrpt.runs.metrics import PhaseTimer, memory_metrics
from openrpt.runs.run import Run, next_name
from openrpt.runs.scores import scores_of
from openrpt.stages.finished import done_before
from openrpt.stages.harness import run_stage
from openrpt.stages.own_parts import require_own_parts
from openrpt.stages.stage import Limits, open_trained
from openrpt.stages.warmup.cost import StepCost
from openrpt.stages.warmup.given import GivenThoughts, open_given, traces_hash
from openrpt.stages.warmup.imitations import ImitationMaker
from openrpt.stages.warmup.loss import WarmupLoss


@dataclass(frozen=True, kw_only=True, eq=False)
class Warmup:
    """The stage (`openrpt.stages.stage.Stage`)."""

    run: Run
    config: Config
    engine: Engine
    """The policy's."""
    start: Engine
    """The frozen start model's."""
    layout: Layout
    corpus: ScoredCorpus
    given: GivenThoughts
    optimizer: torch.optim.Optimizer
    meter: StepMeter
    state: TrainerState
    workers: Workers = ALONE
    eval_every: ClassVar[int] = 0
    baseline: ClassVar[None] = None

    @property
    def limits(self) -> Limits:
        """The steps and the minutes of `[warmup]`."""
        settings = self.config.warmup
        return Limits.of(steps=settings.steps, minutes=settings.time_limit)

    def step(self, *, store: bool = False) -> dict[str, Any]:
        """Takes one optimizer step over a few documents; returns its metrics."""
        config, state = self.config, self.state
        is_cosine = config.warmup.schedule == "cosine"
        share = self.limits.share_done(state) if is_cosine else 0.0
        state.step += 1
        timer, cost = PhaseTimer(), StepCost()
        self.meter.begin()
        tail_only = not config.prompt.candidates and state.step <= config.warmup.tail_steps
        works = self._take(tail_only=tail_only)
        loss, maker = self.loss(works), self.maker(cost)
        rate = learning_rate(config.warmup, state.step, share=share)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        policy, own = self.engine.model, self.workers.share(works)
        with timer("generate"), nullcontext() if tail_only else policy.reading():
            made = [None if tail_only else maker.imitations(work, state.step) for work in own]
        with timer("update"):
            with summed(policy, self.workers):
                loss.accumulate(own, made)
            for work, imitations in zip(own, made, strict=True):
                cost.count(loss, work, imitations)
            loss.sum_over(self.workers)
            places = Places.of_all(self.workers.gather(loss.places))
            updated = attempted(lambda: self._update(places), config.optim, step=state.step)
        whole = StepCost()
        for part in self.workers.gather(cost):
            whole.add(part)
        flops = whole.flops(loss)
        return (
            loss.terms()
            | timer.metrics()
            | flops
            | self.meter.metrics(flops, timer.seconds)
            | updated
            | {"optim/learning_rate": rate}
            | memory_metrics(self.engine.model.device)
        )

    def evaluate(self) -> dict[str, float]:
        """Returns nothing: a warmup is not evaluated between steps."""
        return {}

    def describe(self, metrics: dict[str, Any]) -> str:
        """Returns a step's losses in one line."""
        names = {"loss/imitation": "loss", "loss/trace": "traces"}
        if not names.keys() & metrics.keys():  # the steps that learn what follows the tail alone
            names = {"loss/tail_kl": "tail's KL"}
        return " · ".join(f"{names[key]} {metrics[key]:.3f}" for key in names if key in metrics)

    def maker(self, cost: StepCost) -> ImitationMaker:
        """Gives what makes the imitations, whose passes are counted in `cost`."""
        passes = prefix_passes(self.config.prompt)
        return ImitationMaker(
            config=self.config,
            layout=self.layout,
            engine=CountingEngine(engine=self.engine, ledger=cost.made, passes=passes),
            start=CountingEngine(engine=self.start, ledger=cost.made),
            given=self.given,
        )

    def loss(self, works: list[Work]) -> WarmupLoss:
        """Gives the loss of a step over these documents."""
        return WarmupLoss(
            config=self.config,
            layout=self.layout,
            engine=self.engine,
            start=self.start,
            works=works,
            places=Places(work.document.document_id for work in works),
        )

    def _take(self, *, tail_only: bool) -> list[Work]:
        """Returns the step's documents; of tails alone, more positions fit into a step."""
        settings, works = self.config.warmup, []
        count = settings.positions_per_document * (2 if tail_only else 1)
        supply = take_work(
            self.corpus,
            self.given.elsewhere(self.config),
            cursor=self.state.cursor,
            count=count,
            purpose="warmup",
        )
        for _ in range(settings.documents_per_step):
            self.state.cursor, work = next(supply)
            if not tail_only:
                work = self.given.add(work, cursor=self.state.cursor, count=count)
            works.append(work)
        return works

    def _update(self, places: Places) -> dict[str, float]:
        most = self.config.optim.max_grad_norm
        norm = apply_update(self.engine.model, self.optimizer, most, places, stage="warmup")
        return {"optim/grad_norm": norm}


def warmup(run: Run, *, workers: Workers = ALONE, progress: Progress = SILENT) -> None:
    """Runs the cold start and leaves the policy in `run.start`; resumes where it was. `workers`:
    the processes that share each step, all of which call this.

    Raises UserError for bad configuration and damaged checkpoints, and where training has begun
    without a warmup.
    """
    with run.at_work(writes=workers.rank == 0):
        if run.start.is_dir():
            progress.say(done_before(run, "warmup"))
            return
        _require_useful(run)
        require_own_parts(run.config, "warmup")
        progress.begin("load the models", 0)
        stage = open_warmup(run, workers=workers)
        if stage.given.summary:
            progress.say(stage.given.summary)
        run_stage(stage, progress)


def check_input(run: Run) -> None:
    """Checks that a warmup could begin. Raises UserError for absent scores or traces, and for a
    part of the user's own that can't be had."""
    require_own_parts(run.config, "warmup")
    traces_hash(run.config)
    scores_of(run)


def _require_useful(run: Run) -> None:
    if not run.start.is_dir() and latest_checkpoint(run.checkpoints) is not None:
        raise UserError(
            f"{run.path}: its training began without a warmup, and goes on without one; for"
            f" another run: openrpt warmup --from {run.path} --run {next_name(run.path)}"
        )


def open_warmup(run: Run, *, workers: Workers = ALONE) -> Warmup:
    """Opens the stage: the policy of the last checkpoint, or the start model. Only reads.

    Raises UserError for bad configuration, scores or traces that do not fit, and damaged
    checkpoints.
    """
    config = run.config
    start = open_engine(config)
    opened = open_trained(
        run,
        TrainerState(stage="warmup", traces=traces_hash(config)),
        candidates_from=start if config.prompt.candidate_source == "start" else None,
        weight_decay=0.0,  # few steps, held to the start model by a KL
        workers=workers,
    )
    policy, corpus = opened.engine.model, scores_of(run)
    given = open_given(run, opened.state, corpus, policy.tokenizer)
    opened.state.trace_sources = given.sources
    return Warmup(
        run=run,
        config=config,
        engine=opened.engine,
        start=start,
        layout=policy.layout(config.prompt),
        corpus=corpus,
        given=given,
        optimizer=opened.optimizer,
        meter=StepMeter(policy, config, processes=workers.count),
        state=opened.state,
        workers=workers,
    )
