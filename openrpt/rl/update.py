"""One optimizer update from a step's weighted groups: the tree's gradients, and a step.

Every division is by the whole step's totals, so nothing depends on micro-batches or workers. A flat
group is not run unless a term other than the reward reads it; the totals count it all the same,
unless `train.denominator` is "live".
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from openrpt.config.sections import Config
from openrpt.data.prompts import Layout
from openrpt.data.work import Work
from openrpt.engine.branches import Passage
from openrpt.engine.engine import Engine
from openrpt.engine.logprobs import selected_logprobs
from openrpt.rl.answers import Answered
from openrpt.rl.batch import (
    GroupBranch,
    Weighted,
    answers_in,
    branches_of,
    reads_flat_groups,
    step_totals,
    thoughts_alone,
)
from openrpt.rl.losses import LossConfig
from openrpt.rl.nonfinite import Places
from openrpt.rl.objective import AnswerLoss, DocumentLoss, RolloutLoss, UpdateTerms, WindowLoss
from openrpt.rl.optimizer import PairedAdamW, apply_update, clip
from openrpt.rl.tally import Tally
from openrpt.rl.tensors import RolloutTensors
from openrpt.rl.workers import ALONE, Workers, summed


def loss_config_for(config: Config) -> LossConfig:
    """Returns the loss of the config's algorithm, with its weights."""
    train = config.train
    algorithm = train.recipe()
    return LossConfig(
        ratio_level=algorithm.ratio_level,
        surrogate=algorithm.surrogate,
        clip_low=algorithm.clip_low,
        clip_high=algorithm.clip_high,
        aggregation=algorithm.aggregation,
        kl_weight=train.kl_weight,
        entropy_weight=train.entropy_weight,
        importance_correction=config.importance_correction,
        importance_min=train.importance_min,
        importance_max=train.importance_max,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Document:
    """One document of the batch, as all of the step's updates run it."""

    work: Work
    prefix_ids: tuple[int, ...]
    branches: list[GroupBranch]
    tensors: RolloutTensors | None
    """The document's rollouts; None where none of its rollouts is run."""
    answered: list[Answered]
    """The answered thoughts; empty where the sampled answers are trained on."""
    answer_weights: list[float]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Losses(UpdateTerms):
    """The losses of one update."""

    def passage(self, document: _Document) -> Passage | None:
        """Returns a document with all that is run in one pass; None where that is nothing."""
        completions, text = self._of_completions(document), None
        if self.train.ntp_weight and not self.train.has_separate_states:
            text = self.of_text(document)
        if completions is None and text is None:
            return None
        branches = [group.branch for group in document.branches]
        branches += [one.branch for one in document.answered]
        return Passage(
            prefix_ids=document.prefix_ids,
            branches=branches if completions else [],
            prefix_loss=text,
            completion_loss=completions,
        )

    def of_text(self, document: _Document) -> WindowLoss:
        """Returns the plain next-token loss of a document's window."""
        return WindowLoss(shared=self, work=document.work, prefix_ids=document.prefix_ids)

    def _of_completions(self, document: _Document) -> DocumentLoss | None:
        """Returns the loss of a document's completions; None where none of them is run."""
        rollouts = answers = None
        if document.tensors is not None:
            rollouts = RolloutLoss(shared=self, work=document.work, tensors=document.tensors)
        if document.answered:
            answers = AnswerLoss(
                shared=self,
                work=document.work,
                answered=document.answered,
                weights=document.answer_weights,
            )
        if rollouts is None and answers is None:
            return None
        first_answer = len(document.branches)
        return DocumentLoss(rollouts=rollouts, answers=answers, first_answer=first_answer)


def update_policy(
    engine: Engine,
    optimizer: torch.optim.Optimizer,
    batch: Sequence[Weighted],
    config: Config,
    layout: Layout,
    *,
    reference: Engine | None = None,
    workers: Workers = ALONE,
) -> dict[str, float]:
    """Runs `updates_per_batch` optimizer steps; returns the last one's metrics.

    `batch` is the whole step's, of which this process runs its share. Raises NotFinite as
    `apply_update` does: the updates before that one stand.
    """
    policy, max_norm = engine.model, config.optim.max_grad_norm
    totals, loss_config = step_totals(batch, config, layout), loss_config_for(config)
    ntp_tokens = max(sum(_num_ntp_tokens(weighted.work, layout) for weighted in batch), 1)
    with policy.reading() if config.importance_correction != "off" else nullcontext():
        documents = list(_documents(workers.share(batch), engine, config, layout, reference))
    metrics: dict[str, float] = {}
    for _ in range(config.train.updates_per_batch):
        losses = _Losses(
            policy=policy,
            train=config.train,
            config=loss_config,
            totals=totals,
            head_length=len(layout.head_ids),
            ntp_tokens=ntp_tokens,
            tally=Tally(sums={"tokens/trained_run": 0.0}),
            places=Places(weighted.work.document.document_id for weighted in batch),
        )
        optimizer.zero_grad(set_to_none=True)
        passages = [one for one in map(losses.passage, documents) if one is not None]
        with summed(policy, workers):
            engine.accumulate_each(passages, microbatch_tokens=config.memory.microbatch_tokens)
        rollouts_norm = 0.0
        if config.train.has_separate_states:
            # The rollouts' gradient is set aside, and the text's computed by itself.
            assert isinstance(optimizer, PairedAdamW)
            places = Places.of_all(workers.gather(losses.places))
            rollouts_norm = clip(policy, optimizer, max_norm, places, stage="train")
            optimizer.set_aside()
            with summed(policy, workers):
                for document in documents:
                    text = losses.of_text(document)
                    engine.accumulate_gradients(document.prefix_ids, [], prefix_loss=text)
        each = workers.gather((losses.tally, losses.places))
        places = Places.of_all([places for _, places in each])
        norm = apply_update(policy, optimizer, max_norm, places, stage="train")
        found = Tally.of_all(tally for tally, _ in each).metrics()
        metrics = found | {"optim/grad_norm": math.hypot(rollouts_norm, norm)}
    return metrics


def _documents(
    batch: Sequence[Weighted],
    engine: Engine,
    config: Config,
    layout: Layout,
    reference: Engine | None,
) -> Iterator[_Document]:
    """Yields the documents of which an update reads something, with what stays the same over
    updates."""
    train = config.train

    def logprobs_by(reader: Engine, weighted: Weighted, branches: Sequence[GroupBranch]) -> Tensor:
        return _completion_logprobs(
            reader,
            weighted.work.prefix_ids(layout, whole=False),
            branches,
            temperature=train.temperature,
        )

    for whole in batch:
        answered = answers_in(whole, engine.model, layout, config)
        weighted = thoughts_alone(whole, layout, config)
        branches = branches_of(weighted, layout, run_flat=reads_flat_groups(train))
        tensors = None
        if any(group.members for group in branches):
            known = reference if train.kl_weight else None
            corrects = config.importance_correction != "off"
            tensors = RolloutTensors.of(
                weighted,
                branches,
                old_logprobs=logprobs_by(engine, weighted, branches) if corrects else None,
                reference_logprobs=logprobs_by(known, weighted, branches) if known else None,
                device=engine.model.device,
            )
        elif not (answered or train.ntp_weight):
            continue
        yield _Document(
            work=weighted.work,
            prefix_ids=weighted.work.prefix_ids(layout, whole=train.ntp_weight > 0),
            branches=branches if tensors is not None else [],
            tensors=tensors,
            answered=answered,
            answer_weights=_weights_of(answered, whole),
        )


def _weights_of(answered: Sequence[Answered], weighted: Weighted) -> list[float]:
    if weighted.answer_weights is None:
        return []
    weights = weighted.answer_weights.tolist()
    return [sum(weights[one.group][r] for r in one.members) for one in answered]


def _num_ntp_tokens(work: Work, layout: Layout) -> int:
    """Returns the tokens of a window that the plain next-token loss reads: all with a token
    before them."""
    return work.window.end - work.window.start - (not layout.head_ids)


@torch.no_grad()
def _completion_logprobs(
    engine: Engine,
    prefix_ids: tuple[int, ...],
    groups: Sequence[GroupBranch],
    *,
    temperature: float,
) -> Tensor:
    """Returns the log-probabilities of each distinct completion's tokens after the opening, by a
    model.

    [M, T] nats, in the order of the branches, 0 in the padding.
    """
    branches = [group.branch for group in groups]
    found = engine.branch_states(prefix_ids, branches)  # [branches][completions] [n, d]
    logprobs = [
        selected_logprobs(
            states,
            engine.model.head,
            torch.tensor(ids, device=states.device),
            temperature=temperature,
        )[0]
        for branch, of_branch in zip(branches, found, strict=True)
        for ids, states in zip(branch.completions, of_branch, strict=True)
    ]
    return torch.nn.utils.rnn.pad_sequence(logprobs, batch_first=True)
