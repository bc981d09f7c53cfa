"""Plain next-token training on the scored corpus, documents packed: the control for RPT, and a
trainer in its own right.

As a control it takes another run's documents, FLOPs or time (`matched.py`). It shares that
run's optimizer, clipping and checkpoints: only what is learned from differs. Documents are plain
text as the scorer reads it, without an end-of-text token, so that RPT's own next-token loss
(`train.ntp_weight`) and this one are the same.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch

from openrpt.config.sections import Config
from openrpt.config.training import PretrainConfig
from openrpt.costs.flops import Shape, model_shape
from openrpt.costs.meters import StepMeter
from openrpt.data.scored import SCORED, ScoredCorpus
from openrpt.data.tokens import tokenizer_fingerprint
from openrpt.engine.checkpoint_record import TrainerState, read_record
from openrpt.engine.engine import Engine, open_engine
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.engine.model import Model
from openrpt.errors import UserError
from openrpt.evaluation.next_token.evaluate import evaluate_policy
from openrpt.evaluation.perplexity import measure_perplexity, sampled_texts
from openrpt.progress import SILENT, Progress
from openrpt.rl.nonfinite import Places, attempted
from openrpt.rl.optimizer import apply_update, make_optimizer
from openrpt.runs.checkpoints import (
    latest_checkpoint,
    prune,
    require_own,
    restore,
    save_checkpoint,
    step_folder,
)
from openrpt.runs.metrics import PhaseTimer, peak_memory_gib, truncate_metrics
from openrpt.runs.run import Run, existing_run, works_in_run
from openrpt.runs.scores import scores_of
from openrpt.stages.loop import run_steps
from openrpt.stages.pretrain.batches import (
    Piece,
    accumulate_gradients,
    batches,
    count_step,
    step_flops,
)
from openrpt.stages.pretrain.matched import (
    matched_batches,
    require_same_corpus,
    spent_flops,
    spent_seconds,
    training_rows,
    uncounted_warmup,
)

STAGE: Final = "pretrain"


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainSummary:
    steps: int
    seconds: float
    checkpoint: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Where training ends: whichever comes first."""

    steps: int
    seconds: float

    def share_before(self, state: TrainerState) -> float:
        """How much of it was done before the step that is running: in [0, 1]."""
        return min(1.0, max((state.step - 1) / self.steps, state.seconds / self.seconds))


@dataclass(frozen=True, kw_only=True, eq=False)
class Pretrainer:
    """All that the loop holds on to."""

    run: Run
    config: Config
    engine: Engine
    """Of the policy."""
    corpus: ScoredCorpus
    optimizer: torch.optim.Optimizer
    shape: Shape
    meter: StepMeter
    batches: Iterator[tuple[int, list[Piece]]]
    limits: Limits
    state: TrainerState


@works_in_run
def pretrain(run: Run, *, progress: Progress = SILENT) -> PretrainSummary:
    """Trains the start model on plain text and leaves it in `run.pretrain_checkpoints`.

    Resumes from the last checkpoint there. Raises UserError for bad configuration, for a run
    that can't be matched, and for damaged checkpoints.
    """
    trainer = set_up(run)
    settings, state = trainer.config.pretrain, trainer.state
    other = matched_run(trainer.config)
    if other is not None and settings.match_by == "flops" and uncounted_warmup(other):
        progress.say(f"{other.path}: its warmup counted no FLOPs; those of train are matched")
    evaluates = settings.eval_every and trainer.corpus.ids("development")

    def evaluate() -> dict[str, float]:
        if not evaluates or state.step % settings.eval_every:
            return {}
        started = time.perf_counter()
        found = development_evaluation(trainer)
        # The loop adds the time of all that a step does; an evaluation is no training, and a budget
        # of time must not pay for it.
        state.seconds -= time.perf_counter() - started
        return found

    run_steps(
        state,
        config=trainer.config,
        optimizer=trainer.optimizer,
        steps=trainer.limits.steps,
        time_limit=0.0 if math.isinf(trainer.limits.seconds) else trainer.limits.seconds / 60,
        checkpoint_every=trainer.config.checkpoints.every,
        checkpoints=run.pretrain_checkpoints,
        metrics_path=run.metrics,
        step=lambda: pretrain_step(trainer),
        evaluate=evaluate,
        save=lambda: save(trainer),
        describe=describe,
        progress=progress,
    )
    folder = step_folder(run.pretrain_checkpoints, state.step)
    return PretrainSummary(steps=state.step, seconds=state.seconds, checkpoint=folder)


def pretrain_step(trainer: Pretrainer) -> dict[str, Any]:
    """One optimizer step over a batch of pieces; returns its metrics."""
    policy, config, state = trainer.engine.model, trainer.config, trainer.state
    timer = PhaseTimer()
    trainer.meter.begin()
    with timer("update"):
        state.cursor, pieces = next(trainer.batches)
        rate = learning_rate(config.pretrain, state.step, trainer.limits.share_before(state))
        for group in trainer.optimizer.param_groups:
            group["lr"] = rate
        trainer.optimizer.zero_grad(set_to_none=True)
        places = Places(piece.document_id for piece in pieces)
        loss = accumulate_gradients(
            trainer.engine,
            trainer.corpus,
            pieces,
            microbatch_tokens=config.pretrain.microbatch_tokens,
            places=places,
        )

        def update() -> dict[str, float]:
            norm = apply_update(
                policy, trainer.optimizer, config.optim.max_grad_norm, places, stage=STAGE
            )
            return {"optim/grad_norm": norm}

        updated = attempted(update, config.optim, step=state.step)
    count = count_step(pieces, len(policy.bos_ids))
    cost = {"flops/update": step_flops(trainer.shape, count)}
    return {
        "loss/ntp": loss,
        "documents/pieces": float(len(pieces)),
        "tokens/update": float(count.tokens),
        "tokens/trained": float(count.logits),
        **cost,
        **updated,
        "optim/learning_rate": rate,
        **timer.metrics(),
        "time/step": timer.seconds["update"],
        **trainer.meter.metrics(cost, timer.seconds),
        "memory/peak_gib": peak_memory_gib(),
    }


def learning_rate(settings: PretrainConfig, step: int, share: float) -> float:
    """Linear warm-up over `schedule_steps`, times half a cosine from 1 to 0 over the whole.

    `share`: how much of the whole was done before this step.
    """
    rate = settings.learning_rate * min(1.0, step / (settings.schedule_steps or 1))
    return rate * (0.5 + 0.5 * math.cos(math.pi * share) if settings.schedule == "cosine" else 1.0)


def development_evaluation(trainer: Pretrainer) -> dict[str, float]:
    """Accuracy at the positions that `train` evaluates at, and perplexity on whole documents."""
    config = trainer.config
    result = evaluate_policy(
        trainer.engine,
        trainer.corpus,
        config,
        split="development",
        positions=config.train.eval_positions,
        modes=("ntp",),
    )
    texts = sampled_texts(
        trainer.corpus, "development", tokens=config.pretrain.eval_tokens, seed=config.seed
    )
    measured = measure_perplexity(trainer.engine, texts, window=config.prompt.window)
    return {
        "development/ntp_accuracy": result.accuracy("ntp"),
        "development/positions": float(result.num_positions),
        "development/perplexity": measured.perplexity,
    }


def save(trainer: Pretrainer) -> None:
    folder = step_folder(trainer.run.pretrain_checkpoints, trainer.state.step)
    save_checkpoint(
        folder,
        trainer.engine.model,
        trainer.state,
        trainer.config,
        optimizer=trainer.optimizer,
    )
    prune(trainer.run.pretrain_checkpoints, trainer.config.checkpoints.kept)


def set_up(run: Run) -> Pretrainer:
    """Loads the policy (of the last checkpoint, or the start model), the optimizer, and what is
    to be read from where the last checkpoint stopped."""
    config = run.config
    last = latest_checkpoint(run.pretrain_checkpoints)
    if last is not None:
        require_own(read_record(last), last, config, stage=STAGE)
    other = matched_run(config)
    corpus = load_corpus(run, other)
    # LoRA adapters sit on the weights that training began from; the merged ones are for others.
    weights = None if last is None or config.model.lora_rank else str(last)
    engine = open_engine(
        config.model,
        path=weights,
        trained=True,
        recompute=config.memory.gradient_checkpointing,
    )
    policy = engine.model
    require_fit(policy, corpus, config, other)
    optimizer = make_optimizer(policy, config)
    if last is not None:
        state = restore(last, policy, optimizer)
    else:
        state = TrainerState(stage=STAGE, start_model=model_fingerprint(config.model.path))
    forget_after(run, state.step)
    shape = model_shape(policy)
    head_length = len(policy.bos_ids)
    limits = limits_of(config, other, corpus, shape, head_length)
    supply: Iterator[tuple[int, list[Piece]]]
    if other is not None and config.pretrain.match_by == "documents":
        matched = matched_batches(other, corpus, config, head_length=head_length)
        supply = islice(matched, state.step, None)
    else:
        supply = batches(corpus, config, cursor=state.cursor, head_length=head_length)
    return Pretrainer(
        run=run,
        config=config,
        engine=engine,
        corpus=corpus,
        optimizer=optimizer,
        shape=shape,
        meter=StepMeter(policy, config),
        batches=supply,
        limits=limits,
        state=state,
    )


def matched_run(config: Config) -> Run | None:
    return existing_run(Path(config.pretrain.match)) if config.pretrain.match else None


def load_corpus(run: Run, other: Run | None) -> ScoredCorpus:
    """The run's own scores; the matched run's where it has none."""
    if other is None or (run.scored / SCORED).is_file():
        corpus = scores_of(run)
        if other is not None and run.config.pretrain.match_by == "documents":
            require_same_corpus(corpus, other)
        return corpus
    return scores_of(other)


def limits_of(
    config: Config, other: Run | None, corpus: ScoredCorpus, shape: Shape, head_length: int
) -> Limits:
    """FLOPs become steps here: what a step costs is known from its pieces alone."""
    settings = config.pretrain
    seconds = settings.time_limit * 60 or math.inf
    if other is None:
        return Limits(steps=settings.steps, seconds=seconds)
    if settings.match_by == "documents":
        return Limits(steps=len(training_rows(other, "train")), seconds=seconds)
    if settings.match_by == "time":
        return Limits(steps=1 << 30, seconds=min(seconds, spent_seconds(other)))
    budget, spent, steps = spent_flops(other), 0.0, 0
    supply = batches(corpus, config, cursor=0, head_length=head_length)
    while spent < budget:
        steps += 1
        spent += step_flops(shape, count_step(next(supply)[1], head_length))
    return Limits(steps=steps, seconds=seconds)


def require_fit(policy: Model, corpus: ScoredCorpus, config: Config, other: Run | None) -> None:
    """Raises UserError where the policy's tokens are not those scored, or don't fit into it."""
    if tokenizer_fingerprint(policy.tokenizer) != corpus.metadata["tokenizer"]:
        raise UserError(
            f"model '{policy.name}' has another tokenizer than the model whose tokens were scored"
            f" in {corpus.folder}; score for it in a run of its own: openrpt score --run …"
        )
    settings = config.pretrain
    longest, key = settings.sequence_length, "pretrain.sequence_length"
    if other is not None and settings.match_by == "documents":
        longest, key = other.config.prompt.window + 1, "prompt.window of the matched run"
    if len(policy.bos_ids) + longest > policy.max_length:
        raise UserError(
            f"{key}: {longest} tokens do not fit, the model holds {policy.max_length}"
            f" ({len(policy.bos_ids)} of them before the text)"
        )
    if settings.eval_every and corpus.ids("development"):
        policy.layout(config.prompt)  # refused here, not at the first evaluation


def forget_after(run: Run, step: int) -> None:
    """Steps after the checkpoint are about to be run again: their traces go."""
    truncate_metrics(run.metrics, STAGE, step)


def describe(metrics: dict[str, Any]) -> str:
    parts = [f"loss {metrics['loss/ntp']:.3f}"]
    if "development/perplexity" in metrics:
        parts.append(f"dev perplexity {metrics['development/perplexity']:.2f}")
    return " · ".join(parts)
