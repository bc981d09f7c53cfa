"""Plain next-token training on the scored corpus, documents packed: the control for RPT, and a
trainer in its own right.

As a control it takes another run's documents, FLOPs or time (`matched.py`). It shares that
run's optimizer, clipping and checkpoints: only what is learned from differs. Documents are plain
text as the scorer reads it, without an end-of-text token, so that RPT's own next-token loss
(`train.ntp_weight`) and this one are the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import torch

from openrpt.config.sections import Config, StageName
from openrpt.costs.flops import Shape, model_shape
from openrpt.costs.meters import StepMeter
from openrpt.data.scored import ScoredCorpus
from openrpt.engine.checkpoint_record import TrainerState
from openrpt.engine.engine import Engine
from openrpt.engine.loading import resolve_model
from openrpt.evaluation.next_token.evaluate import evaluate_policy
from openrpt.evaluation.perplexity.perplexity import measure_perplexity, sampled_texts
from openrpt.progress import SILENT, Progress
from openrpt.rl.nonfinite import Places, attempted
from openrpt.rl.optimizer import apply_update, learning_rate, set_learning_rate
from openrpt.rl.workers import ALONE, Workers, summed
from openrpt.runs.metrics import PhaseTimer, memory_metrics
from openrpt.runs.run import Run
from openrpt.stages.harness import run_stage
from openrpt.stages.own_parts import require_own_parts
from openrpt.stages.pretrain.batches import (
    Piece,
    accumulate_gradients,
    batches,
    count_step,
    step_flops,
)
from openrpt.stages.pretrain.budget import limits_of, load_corpus, matched_run, require_fit
from openrpt.stages.pretrain.matched import matched_batches, uncounted_warmup
from openrpt.stages.stage import Limits, Summary, open_trained


@dataclass(frozen=True, kw_only=True, eq=False)
class Pretrainer:
    """The stage (`openrpt.stages.stage.Stage`)."""

    run: Run
    config: Config
    engine: Engine
    """The policy's."""
    corpus: ScoredCorpus
    optimizer: torch.optim.Optimizer
    shape: Shape
    meter: StepMeter
    batches: Iterator[tuple[int, list[Piece]]]
    """The batches: (cursor after it, the pieces of a step), from the state's step on."""
    limits: Limits
    state: TrainerState
    workers: Workers = ALONE
    baseline: ClassVar[None] = None

    @property
    def eval_every(self) -> int:
        """Steps between two evaluations; 0 where no development documents are scored."""
        return self.config.pretrain.eval_every if self.corpus.ids("development") else 0

    def step(self, *, store: bool = False) -> dict[str, Any]:
        """Takes one optimizer step over a batch of pieces; returns its metrics."""
        policy, config, state = self.engine.model, self.config, self.state
        is_cosine = config.pretrain.schedule == "cosine"
        share = self.limits.share_done(state) if is_cosine else 0.0
        state.step += 1
        timer = PhaseTimer()
        self.meter.begin()
        with timer("update"):
            state.cursor, pieces = next(self.batches)
            rate = learning_rate(config.pretrain, state.step, share=share)
            set_learning_rate(self.optimizer, rate)
            self.optimizer.zero_grad(set_to_none=True)
            own = Places(piece.document_id for piece in pieces)
            with summed(policy, self.workers):
                part = accumulate_gradients(
                    self.engine,
                    self.corpus,
                    self.workers.share(pieces),
                    total=sum(len(piece.targets) for piece in pieces),
                    microbatch_tokens=config.pretrain.microbatch_tokens,
                    places=own,
                )
            each = self.workers.gather((part, own))
            loss = sum(nats for nats, _ in each)
            places = Places.of_all([found for _, found in each])
            updated = attempted(lambda: self._update(places), config.optim, step=state.step)
        count = count_step(pieces, len(policy.bos_ids))
        cost = {"flops/update": step_flops(self.shape, count)}
        return (
            {
                "loss/ntp": loss,
                "documents/pieces": float(len(pieces)),
                "tokens/update": float(count.tokens),
                "tokens/trained": float(count.logits),
            }
            | cost
            | updated
            | {"optim/learning_rate": rate}
            | timer.metrics()
            | {"time/step": timer.seconds["update"]}
            | self.meter.metrics(cost, timer.seconds)
            | memory_metrics(self.engine.model.device)
        )

    def evaluate(self) -> dict[str, float]:
        """Measures accuracy at the positions that `train` evaluates at, and perplexity on whole
        documents, both of the development split."""
        config = self.config
        result = evaluate_policy(
            self.engine,
            self.corpus,
            config,
            split="development",
            positions=config.train.eval_positions,
            modes=("ntp",),
        )
        texts = sampled_texts(
            self.corpus, "development", tokens=config.pretrain.eval_tokens, seed=config.seed
        )
        measured = measure_perplexity(self.engine, texts, window=config.prompt.window)
        return {
            "development/ntp_accuracy": result.accuracy("ntp"),
            "development/positions": float(result.num_positions),
            "development/perplexity": measured.perplexity,
        }

    def describe(self, metrics: dict[str, Any]) -> str:
        """Returns a step's loss, and the perplexity where it was measured, in one line."""
        parts = [f"loss {metrics['loss/ntp']:.3f}"]
        if "development/perplexity" in metrics:
            parts.append(f"dev perplexity {metrics['development/perplexity']:.2f}")
        return " · ".join(parts)

    def _update(self, places: Places) -> dict[str, float]:
        most = self.config.optim.max_grad_norm
        norm = apply_update(self.engine.model, self.optimizer, most, places, stage="pretrain")
        return {"optim/grad_norm": norm}


def pretrain(run: Run, *, workers: Workers = ALONE, progress: Progress = SILENT) -> Summary:
    """Trains the start model on plain text; its checkpoints lie apart from those of `train`.

    `workers`: the processes that share each step, all of which call this. Resumes from the last
    checkpoint. Raises UserError for bad configuration, for a run that can't be matched, and for
    damaged checkpoints.
    """
    with run.at_work(writes=workers.rank == 0):
        require_own_parts(run.config, *_stages(run.config))
        progress.begin("load the model", 0)
        stage = open_pretrain(run, workers=workers)
        other = matched_run(run.config)
        by_flops = run.config.pretrain.match_by == "flops"
        if other is not None and by_flops and uncounted_warmup(other):
            progress.say(f"{other.path}: its warmup counted no FLOPs; those of train are matched")
        return run_stage(stage, progress)


def check_input(run: Run) -> None:
    """Checks that pretraining could begin. Raises UserError for an absent model, scores or matched
    run, and for a part of the user's own that can't be had."""
    require_own_parts(run.config, *_stages(run.config))
    resolve_model(run.config.model.path)
    load_corpus(run, matched_run(run.config))


def _stages(config: Config) -> tuple[StageName, ...]:
    """Returns the stages whose keys are read here: its evaluations are such as `evaluate` makes."""
    return ("pretrain", "evaluation") if config.pretrain.eval_every else ("pretrain",)


def open_pretrain(run: Run, *, workers: Workers = ALONE) -> Pretrainer:
    """Opens the stage: the policy of the last checkpoint, or the start model, and what is to be
    read from where that stopped. Only reads.

    Raises UserError as `pretrain`.
    """
    config = run.config
    other = matched_run(config)
    corpus = load_corpus(run, other)
    opened = open_trained(run, TrainerState(stage="pretrain"), workers=workers)
    policy, state = opened.engine.model, opened.state
    require_fit(policy, corpus, config, other)
    shape = model_shape(policy)
    head_length = len(policy.bos_ids)
    supply: Iterator[tuple[int, list[Piece]]]
    if other is not None and config.pretrain.match_by == "documents":
        matched = matched_batches(other, corpus, config, head_length=head_length)
        supply = islice(matched, state.step, None)
    else:
        supply = batches(corpus, config, cursor=state.cursor, head_length=head_length)
    return Pretrainer(
        run=run,
        config=config,
        engine=opened.engine,
        corpus=corpus,
        optimizer=opened.optimizer,
        shape=shape,
        meter=StepMeter(policy, config, processes=workers.count),
        batches=supply,
        limits=limits_of(config, other, corpus, shape, head_length),
        state=state,
        workers=workers,
    )
