"""The cold start: the form of a rollout, learned from the model itself.

A small model can't do the task at first: any tail after the text destroys its next-token
prediction. Two ways, both made from the model's own predictions (`target = self`: form only):

- seeded (`prompt.candidates` > 0): the thought is the candidates; the trace's answer copies one
  of them. The answer's target mixes the first candidate with the candidates' probabilities.
- unseeded: first the distribution after the tail is drawn to the frozen model's on plain text
  (dense distillation of the tail), then traces whose thought is a short look-ahead draft and
  whose box holds the draft's first token. Where there is no room for a thought
  (`prompt.think_budget` = 0), its close and the opened box belong to the tail.

A KL on the plain text keeps the model's language; the tree's prefix gives it for nothing. With
`target = truth` the answers are the text's own: that is supervised, and is labelled so.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from openrpt.config.sections import Config
from openrpt.costs.flops import Count, Ledger, count_alone, count_tree, model_shape, prefix_passes
from openrpt.costs.meters import CountingEngine, StepMeter
from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.data.scored import ScoredCorpus
from openrpt.data.work import Work, take_work
from openrpt.engine.branches import Branch, CompletionIndex
from openrpt.engine.checkpoint_record import TrainerState, read_record
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine, open_engine
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.engine.generation import Generated
from openrpt.engine.model import Model
from openrpt.engine.text_loss import TextTerms, distillation_kl, target_cross_entropy, text_loss
from openrpt.files import remove_folder
from openrpt.progress import SILENT, Progress
from openrpt.rl.nonfinite import Places, attempted
from openrpt.rl.optimizer import apply_update
from openrpt.runs.checkpoints import (
    latest_checkpoint,
    prune,
    require_own,
    restore,
    save_checkpoint,
    step_folder,
)
from openrpt.runs.metrics import PhaseTimer, peak_memory_gib, truncate_metrics
from openrpt.runs.run import Run, works_in_run
from openrpt.runs.scores import scores_of
from openrpt.seeding import generator, keys_of
from openrpt.stages.loop import run_steps

STAGE: Final = "warmup"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """A completion to imitate: after `opening` come `token_ids`, with a target for each.

    A target is (ids, probabilities): one id where the token is certain. Weight 0 = not trained.
    """

    opening: tuple[int, ...]
    token_ids: tuple[int, ...]
    targets: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Warmup:
    run: Run
    config: Config
    engine: Engine
    """Of the policy."""
    start: Engine
    layout: Layout
    corpus: ScoredCorpus
    optimizer: torch.optim.Optimizer
    meter: StepMeter
    state: TrainerState

    def branches(self, work: Work, traces: list[Trace] | None) -> list[Branch]:
        thinks = self.config.prompt.think_budget > 0
        lengths = work.prefix_lengths(self.layout)
        return trace_branches(traces, lengths, self.layout, thinks=thinks)


@works_in_run
def warmup(run: Run, *, progress: Progress = SILENT) -> None:
    """Runs the cold start and leaves the policy in `run.start`; resumes where it was.

    Raises UserError for bad configuration and damaged checkpoints.
    """
    if run.start.is_dir():
        return
    stage = set_up(run)
    settings = run.config.warmup
    run_steps(
        stage.state,
        config=run.config,
        optimizer=stage.optimizer,
        steps=settings.steps,
        time_limit=settings.time_limit,
        checkpoint_every=1 << 30,
        checkpoints=run.warmup_checkpoints,
        metrics_path=run.metrics,
        step=lambda: warmup_step(stage),
        save=lambda: save(stage),
        describe=lambda metrics: f"loss {metrics['loss/trace']:.3f}",
        progress=progress,
    )
    save_checkpoint(run.start, stage.engine.model, stage.state, run.config)
    remove_folder(run.warmup_checkpoints)


def set_up(run: Run) -> Warmup:
    config = run.config
    last = latest_checkpoint(run.warmup_checkpoints)
    if last is not None:
        require_own(read_record(last), last, config, stage=STAGE)
    weights = str(last) if last is not None and not config.model.lora_rank else None
    start = open_engine(config.model)
    from_start = start if config.prompt.candidate_source == "start" else None
    engine = open_engine(
        config.model,
        path=weights,
        trained=True,
        recompute=config.memory.gradient_checkpointing,
        start=from_start,
    )
    policy = engine.model
    layout = policy.layout(config.prompt)
    optimizer = torch.optim.AdamW(
        policy.parameters(),
        betas=(config.optim.adam_beta1, config.optim.adam_beta2),
        weight_decay=0.0,  # few steps, held to the start model by a KL
        fused=True,
    )
    if last is not None:
        state = restore(last, policy, optimizer)
    else:
        state = TrainerState(stage=STAGE, start_model=model_fingerprint(config.model.path))
    truncate_metrics(run.metrics, STAGE, state.step)
    return Warmup(
        run=run,
        config=config,
        engine=engine,
        start=start,
        layout=layout,
        corpus=scores_of(run),
        optimizer=optimizer,
        meter=StepMeter(policy, config),
        state=state,
    )


def save(stage: Warmup) -> None:
    folder = step_folder(stage.run.warmup_checkpoints, stage.state.step)
    save_checkpoint(
        folder, stage.engine.model, stage.state, stage.config, optimizer=stage.optimizer
    )
    prune(stage.run.warmup_checkpoints, 1)


def warmup_step(stage: Warmup) -> dict[str, Any]:
    """One optimizer step over a few documents; returns its metrics."""
    config, state = stage.config, stage.state
    settings = config.warmup
    timer = PhaseTimer()
    stage.meter.begin()
    made, trained, teacher = Ledger(), Ledger(), Count()
    counted = counting_stage(stage, made)
    tail_only = not config.prompt.candidates and state.step <= settings.tail_steps
    supply = take_work(
        stage.corpus,
        config,
        cursor=state.cursor,
        count=settings.positions_per_document * (1 + tail_only),
        purpose=STAGE,
    )
    works = []
    for _ in range(settings.documents_per_step):
        state.cursor, work = next(supply)
        works.append(work)
    for group in stage.optimizer.param_groups:
        group["lr"] = settings.learning_rate * min(1.0, state.step / (settings.schedule_steps or 1))
    stage.optimizer.zero_grad(set_to_none=True)
    metrics: dict[str, float] = {}
    places = Places(work.document.document_id for work in works)
    scale = 1.0 / sum(len(work.positions) for work in works)
    text_scale = 1.0 / sum(len(work.prefix_ids(stage.layout, whole=True)) - 1 for work in works)
    for work in works:
        with timer("generate"):
            traces = None if tail_only else make_traces(counted, work)
        with timer("update"):
            accumulate(stage, work, traces, scale, text_scale, metrics, places)
        count_work(stage, work, traces, trained, teacher)

    def update() -> dict[str, float]:
        norm = apply_update(
            stage.engine.model, stage.optimizer, config.optim.max_grad_norm, places, stage=STAGE
        )
        return {"optim/grad_norm": norm}

    with timer("update"):
        updated = attempted(update, config.optim, step=state.step)
    metrics.setdefault("loss/trace", 0.0)
    cost = warmup_cost(stage, made, trained, teacher)
    found = metrics | timer.metrics() | cost | stage.meter.metrics(cost, timer.seconds)
    return found | updated | {"memory/peak_gib": peak_memory_gib()}


def counting_stage(stage: Warmup, ledger: Ledger) -> Warmup:
    """The stage, with engines that add what they run to the ledger."""
    passes = prefix_passes(stage.config.prompt)
    return replace(
        stage,
        engine=CountingEngine(engine=stage.engine, ledger=ledger, passes=passes),
        start=CountingEngine(engine=stage.start, ledger=ledger),
    )


def count_work(
    stage: Warmup, work: Work, traces: list[Trace] | None, trained: Ledger, teacher: Count
) -> None:
    """Adds what `accumulate` runs of a document, in the policy and in the frozen teacher."""
    settings = stage.config.warmup
    prefix = len(work.prefix_ids(stage.layout, whole=True))
    branches = stage.branches(work, traces)
    reads_tails = not stage.config.prompt.candidates and settings.target == "self"
    reads_text = settings.text_kl_weight > 0 or settings.ntp_weight > 0
    ends = len(branches) if reads_tails else 0
    logits = ends + (prefix - 1 if reads_text else 0)
    logits += sum(weight > 0 for trace in traces or () for weight in trace.weights)
    trained.shared.add(count_tree(prefix, branches, logits))
    trained.alone.add(count_alone(branches, logits, prefix if reads_text else 0))
    teacher.run(prefix, 0, ends + (prefix - 1 if settings.text_kl_weight > 0 else 0))


def warmup_cost(stage: Warmup, made: Ledger, trained: Ledger, teacher: Count) -> dict[str, float]:
    shape = model_shape(stage.engine.model)
    frozen = teacher.forward(shape)
    return {
        "flops/generate": made.shared.forward(shape),
        "flops/update": trained.shared.train(shape) + frozen,
        "sharing/flops_alone": made.alone.forward(shape) + trained.alone.train(shape) + frozen,
    }


def make_traces(stage: Warmup, work: Work) -> list[Trace]:
    """One trace a position, in the positions' order."""
    if stage.config.prompt.candidates:
        return _seeded_traces(stage, work)
    return _drafted_traces(stage, work)


def _seeded_traces(stage: Warmup, work: Work) -> list[Trace]:
    config, layout = stage.config, stage.layout
    generated = _generate(stage, work, free=config.prompt.think_budget)
    traces = []
    for outcome, position in zip(generated, work.positions, strict=True):
        truth = int(work.document.token_ids[position.index])
        target = _answer_target(outcome, truth, config)
        rng = generator(config.seed, STAGE, position.document_id, position.index, stage.state.step)
        answer = int(rng.choice(target[0], p=np.array(target[1]) / sum(target[1])))
        opening = layout.seed(outcome.candidate_ids)
        thought: tuple[int, ...] = ()
        if config.prompt.think_budget:
            thought = _free_thought(outcome, len(opening), stage) + layout.close_ids
        else:
            opening += layout.close_ids
        traces.append(_trace(stage, opening, thought, (0.0,) * len(thought), answer, target))
    return traces


def _answer_target(
    outcome: Generated, truth: int, config: Config
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """What the box should hold: a distribution over the candidates, or the true token."""
    if config.warmup.target == "truth":
        return (truth,), (1.0,)
    probabilities = np.exp(np.array(outcome.candidate_logprobs))
    probabilities *= (1 - config.warmup.answer_sharpness) / probabilities.sum()
    probabilities[0] += config.warmup.answer_sharpness
    return outcome.candidate_ids, tuple(probabilities.tolist())


def _free_thought(outcome: Generated, opening: int, stage: Warmup) -> tuple[int, ...]:
    """The policy's own free tokens: context for the answer, not trained on."""
    completion = outcome.completions[0]
    own = completion.token_ids[opening : opening + stage.config.prompt.think_budget]
    stops = [i for i, token in enumerate(own) if token in stage.engine.model.stop_ids]
    return own[: stops[0]] if stops else own


def _drafted_traces(stage: Warmup, work: Work) -> list[Trace]:
    """The thought looks ahead: what the frozen model (or the text) says next, then its first
    token in the box."""
    config, layout = stage.config, stage.layout
    budget = config.prompt.think_budget
    size = max(1, min(config.warmup.draft_tokens, budget))
    drafts = []
    if config.warmup.target == "truth":
        ids = work.document.token_ids
        drafts = [tuple(ids[p.index : p.index + size].tolist()) for p in work.positions]
    else:
        plain = replace(layout, tail_ids=(), close_ids=())
        request = _request(stage, work, rollouts=1)
        (generated,) = stage.start.generate_each([request], plain, Sampling.plain(size))
        stops = stage.start.model.stop_ids
        for outcome in generated:
            draft = [i for i in outcome.completions[0].token_ids if i not in stops]
            drafts.append(tuple(draft) or (outcome.standard_id,))
    if not budget:
        close = layout.close_ids
        return [_trace(stage, close, (), (), d[0], ((d[0],), (1.0,))) for d in drafts]
    weights = config.warmup.draft_weight
    return [
        _trace(
            stage,
            (),
            draft + layout.close_ids,
            (weights,) * len(draft) + (0.0,) * len(layout.close_ids),
            draft[0],
            ((draft[0],), (1.0,)),
        )
        for draft in drafts
    ]


def _trace(
    stage: Warmup,
    opening: tuple[int, ...],
    thought: tuple[int, ...],
    thought_weights: tuple[float, ...],
    answer: int,
    target: tuple[tuple[int, ...], tuple[float, ...]],
) -> Trace:
    """thought, then the answer, the box's end and the end of turn."""
    form = stage.layout.answer_end_ids
    stop = stage.engine.model.tokenizer.eos_token_id
    form += () if stop is None else (stop,)
    certain = [((token,), (1.0,)) for token in thought]
    return Trace(
        opening=opening,
        token_ids=(*thought, answer, *form),
        targets=(*certain, target, *[((token,), (1.0,)) for token in form]),
        weights=(*thought_weights, 1.0, *[stage.config.warmup.form_weight] * len(form)),
    )


def _generate(stage: Warmup, work: Work, *, free: int) -> list[Generated]:
    """Candidates at each position and, where a thought is free, one completion."""
    sampling = Sampling.of(stage.config.prompt, temperature=1.0)
    sampling = replace(sampling, think_budget=free, prediction_budget=2)
    request = _request(stage, work, rollouts=1 if free else 0)
    (generated,) = stage.engine.generate_each([request], stage.layout, sampling)
    return generated


def _request(stage: Warmup, work: Work, *, rollouts: int) -> Request:
    name = (stage.config.seed, STAGE, stage.state.step)
    keys = [keys_of(rollouts, *name, p.document_id, p.index) for p in work.positions]
    return work.request(stage.layout, keys)


def accumulate(
    stage: Warmup,
    work: Work,
    traces: list[Trace] | None,
    scale: float,
    text_scale: float,
    metrics: dict[str, float],
    places: Places,
) -> None:
    """Adds one document's gradients: traces (or the tail alone), and the plain text's terms."""
    settings, layout = stage.config.warmup, stage.layout
    policy, start = stage.engine.model, stage.start.model
    prefix_ids = work.prefix_ids(layout, whole=True)
    lengths = work.prefix_lengths(layout)
    teacher = plain_states(stage, prefix_ids)  # [L, d]
    ends = torch.tensor(lengths, device=teacher.device) - 1

    document_id = work.document.document_id

    def add(name: str, loss: Tensor, branches: Iterable[int]) -> Tensor:
        value = float(loss.detach())
        metrics[name] = metrics.get(name, 0.0) + value
        if not math.isfinite(value):
            places.note(document_id, [work.positions[b].index for b in branches])
        return loss

    def prefix_loss(hidden: Tensor) -> Tensor:
        terms = TextTerms(
            targets=torch.tensor(prefix_ids[1:], device=hidden.device),
            ntp_scale=settings.ntp_weight * text_scale,
            teacher_hidden=teacher[:-1],
            teacher=start.head,
            kl_scale=settings.text_kl_weight * text_scale,
        )
        loss, ntp, kl = text_loss(hidden[:-1], policy.head, terms)
        metrics["loss/ntp"] = metrics.get("loss/ntp", 0.0) + ntp * text_scale
        metrics["loss/text_kl"] = metrics.get("loss/text_kl", 0.0) + kl * text_scale
        if not math.isfinite(ntp + kl):
            own = hidden[len(layout.head_ids) :]
            if not places.note_text(document_id, own, start=work.window.start):
                places.note(document_id, [work.window.start])
        return loss

    def tail_loss(states: Tensor) -> Tensor:
        kl = (
            distillation_kl(states, policy.head, teacher[ends], stage.start.model.head).sum()
            * scale
        )
        return add("loss/tail_kl", kl, range(len(work.positions)))

    def completion_loss(rows: list[CompletionIndex], hidden: Tensor) -> Tensor:
        assert traces is not None
        loss = trace_loss(policy, traces, rows, hidden) * scale
        return add("loss/trace", loss, [b for b, _ in rows])

    unseeded = not stage.config.prompt.candidates
    reads_text = settings.text_kl_weight > 0 or settings.ntp_weight > 0
    stage.engine.accumulate_gradients(
        prefix_ids,
        stage.branches(work, traces),
        prefix_loss=prefix_loss if reads_text else None,
        tail_loss=tail_loss if unseeded and settings.target == "self" else None,
        completion_loss=completion_loss if traces is not None else None,
        microbatch_tokens=stage.config.memory.microbatch_tokens,
    )


def trace_branches(
    traces: list[Trace] | None, lengths: Sequence[int], layout: Layout, *, thinks: bool
) -> list[Branch]:
    if traces is None:
        tail_ids = layout.tail_ids + (() if thinks else layout.close_ids)
        return [Branch(prefix_length=n, tail_ids=tail_ids) for n in lengths]
    return [
        Branch(
            prefix_length=length,
            tail_ids=layout.tail_ids + trace.opening,
            completions=(trace.token_ids,),
        )
        for trace, length in zip(traces, lengths, strict=True)
    ]


@torch.no_grad()
def plain_states(stage: Warmup, prefix_ids: Sequence[int]) -> Tensor:
    """[L, d]: the frozen model on the same prefix."""
    (hidden,) = stage.start.states([prefix_ids])
    return hidden


def trace_loss(
    policy: Model, traces: Sequence[Trace], rows: list[CompletionIndex], hidden: Tensor
) -> Tensor:
    """Weighted cross-entropy of a micro-batch's traces: hidden [R, T, d] → a sum, in nats."""
    width = max(len(ids) for b, _ in rows for ids, _ in traces[b].targets)
    states, ids, probabilities, weights = [], [], [], []
    for i, (b, _) in enumerate(rows):
        trace = traces[b]
        for t, ((target_ids, target_p), weight) in enumerate(
            zip(trace.targets, trace.weights, strict=True)
        ):
            if weight:
                padding = width - len(target_ids)
                states.append((i, t))
                ids.append((*target_ids, *[0] * padding))
                probabilities.append((*target_p, *[0.0] * padding))
                weights.append(weight)
    device = hidden.device
    at = torch.tensor(states, device=device)
    loss = target_cross_entropy(
        hidden[at[:, 0], at[:, 1]],
        policy.head,
        torch.tensor(ids, device=device),
        torch.tensor(probabilities, device=device),
    )
    return (loss * torch.tensor(weights, device=device)).sum()
