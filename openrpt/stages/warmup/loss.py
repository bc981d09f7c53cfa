"""The loss of a warmup step: imitations (or the tail alone), and the terms on the plain text."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from openrpt.config.sections import Config
from openrpt.data.prompts import Layout
from openrpt.data.work import Work
from openrpt.engine.branches import Branch, CompletionIndex, Passage
from openrpt.engine.engine import Engine
from openrpt.engine.model import Model
from openrpt.engine.packing import packs
from openrpt.engine.text_loss import TextTerms, distillation_kl, target_cross_entropy, text_loss
from openrpt.rl.nonfinite import Places
from openrpt.rl.workers import Workers
from openrpt.stages.warmup.imitations import Imitation, imitation_branches


@dataclass(frozen=True, kw_only=True, eq=False)
class WarmupLoss:
    """The loss of one step over its documents."""

    config: Config
    layout: Layout
    engine: Engine
    """The engine of the policy."""
    start: Engine
    """The engine of the frozen start model."""
    works: Sequence[Work]
    """The step's documents: every term is a mean over all of them."""
    places: Places
    """The places where a loss was not finite."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The terms so far, in nats."""
    positions: Counter[str] = field(default_factory=Counter)
    """The number of positions so far that each term on them is a mean of."""

    @cached_property
    def scale(self) -> float:
        """The weight of one position."""
        return 1.0 / sum(len(work.positions) for work in self.works)

    @cached_property
    def text_scale(self) -> float:
        """The weight of one token of the plain text."""
        read = (len(self._prefix_ids(work)) for work in self.works)
        return 1.0 / sum(length - 1 - self.unread for length in read)

    @property
    def unread(self) -> int:
        """The tokens of the prefix whose next one is the head's: instructions, no plain text."""
        return max(len(self.layout.head_ids) - 1, 0)

    def branches(self, work: Work, imitations: Sequence[Imitation] | None) -> list[Branch]:
        """Gives what is run at a work's positions; without imitations, the tail alone."""
        thinks = self.config.prompt.think_budget > 0
        return imitation_branches(
            imitations, work.prefix_lengths(self.layout), self.layout, thinks=thinks
        )

    @property
    def reads_text(self) -> bool:
        """Whether a term reads the plain text."""
        return self.config.warmup.text_kl_weight > 0 or self.config.warmup.ntp_weight > 0

    @property
    def reads_tails(self) -> bool:
        """Whether a term reads the states at the tails' ends."""
        return self.config.warmup.distils_tails(self.config.prompt.candidates)

    @property
    def reads_teacher(self) -> bool:
        """Whether a term compares with the frozen start model."""
        return self.config.warmup.reads_start(self.config.prompt.candidates)

    def accumulate(self, works: Sequence[Work], made: Sequence[Sequence[Imitation] | None]) -> None:
        """Adds the gradients of some of the documents, with what was made at their positions."""
        tokens = self.config.memory.microbatch_tokens
        teachers: Sequence[Tensor | None] = [None] * len(works)
        if self.reads_teacher:
            teachers = plain_states(self.start, [self._prefix_ids(work) for work in works], tokens)
        passages = [
            self._passage(work, imitations, teacher)
            for work, imitations, teacher in zip(works, made, teachers, strict=True)
        ]
        self.engine.accumulate_each(passages, microbatch_tokens=tokens)

    def _prefix_ids(self, work: Work) -> tuple[int, ...]:
        return work.prefix_ids(self.layout, whole=True)

    def _passage(
        self, work: Work, imitations: Sequence[Imitation] | None, teacher: Tensor | None
    ) -> Passage:
        """Gives what is run of a document, and the losses on it: teacher [L, d], where a term reads
        it."""
        branches = self.branches(work, imitations)

        def prefix_loss(hidden: Tensor) -> Tensor:  # [L, d]
            return self._text(work, hidden, teacher)

        def completion_loss(rows: list[CompletionIndex], hidden: Tensor) -> Tensor:  # [R, T, d]
            places = [b for b, _ in rows]
            losses = []
            if self.reads_tails and teacher is not None:
                losses.append(self._tails(work, branches, imitations, places, hidden, teacher))
            if imitations is not None:
                losses.append(self._imitations(work, imitations, places, hidden))
            return torch.stack(losses).sum()

        for imitation in imitations or ():
            self.positions["loss/trace" if imitation.is_given else "loss/imitation"] += 1
        return Passage(
            prefix_ids=self._prefix_ids(work),
            branches=branches,
            prefix_loss=prefix_loss if self.reads_text else None,
            completion_loss=completion_loss if self.reads_tails or imitations is not None else None,
        )

    def _tails(
        self,
        work: Work,
        branches: Sequence[Branch],
        imitations: Sequence[Imitation] | None,
        places: Sequence[int],
        hidden: Tensor,
        teacher: Tensor,
    ) -> Tensor:
        """Adds up how far the distributions behind the tails at these places are from the frozen
        model's: hidden [R, T, d] and teacher [L, d] → a sum."""
        heads = self.engine.model.head, self.start.model.head
        behind = [1 if imitations is None else len(imitations[p].token_ids) for p in places]
        ends = [len(branches[p].completions[0]) - n for p, n in zip(places, behind, strict=True)]
        rows = torch.arange(len(places), device=hidden.device)
        states = hidden[rows, torch.tensor(ends, device=hidden.device)]  # [R, d]
        plain = [branches[p].prefix_length - 1 for p in places]
        kl = distillation_kl(
            states, heads[0], teacher[torch.tensor(plain, device=hidden.device)], heads[1]
        )
        # A given thought begins otherwise than the text goes on.
        own = [not (imitations and imitations[p].is_given) for p in places]
        self.positions["loss/tail_kl"] += sum(own)
        loss = (kl * torch.tensor(own, device=kl.device)).sum() * self.scale
        return self._add({"loss/tail_kl": float(loss.detach())}, loss, work, places)

    def _imitations(
        self, work: Work, imitations: Sequence[Imitation], places: Sequence[int], hidden: Tensor
    ) -> Tensor:
        """Adds up the cross-entropy of the imitations at these places: hidden [R, T, d] → a
        sum."""
        chosen = [imitations[p] for p in places]
        tail = len(self.layout.tail_ids)
        losses, given = _imitation_losses(self.engine.model, chosen, hidden, tail=tail)
        parts = {"loss/trace": given, "loss/imitation": ~given}
        terms = {
            name: float(losses.detach()[own].sum() * self.scale)
            for name, own in parts.items()
            if own.any()
        }
        return self._add(terms, losses.sum() * self.scale, work, places)

    def _text(self, work: Work, hidden: Tensor, teacher: Tensor | None) -> Tensor:
        """Adds up the terms on the plain text: hidden and teacher [L, d] → a sum."""
        settings, scale, first = self.config.warmup, self.text_scale, self.unread
        terms = TextTerms(
            targets=torch.tensor(self._prefix_ids(work)[first + 1 :], device=hidden.device),
            ntp_scale=settings.ntp_weight * scale,
            teacher_hidden=None if teacher is None else teacher[first:-1],
            teacher=self.start.model.head,
            kl_scale=settings.text_kl_weight * scale,
        )
        loss, ntp, kl = text_loss(hidden[first:-1], self.engine.model.head, terms)
        self._count("loss/ntp", ntp * scale)
        if settings.text_kl_weight > 0:
            self._count("loss/text_kl", kl * scale)
        if not math.isfinite(ntp + kl):
            document_id, start = work.document.document_id, work.window.start
            own = hidden[len(self.layout.head_ids) :]
            if not self.places.note_text(document_id, own, start=start):
                self.places.note(document_id, [start])
        return loss

    def sum_over(self, workers: Workers) -> None:
        """Adds up what the processes have counted, each over its own documents."""
        each = workers.gather((dict(self.metrics), Counter(self.positions)))
        self.metrics.clear()
        self.positions.clear()
        for metrics, positions in each:
            for name, value in metrics.items():
                self._count(name, value)
            self.positions.update(positions)

    def terms(self) -> dict[str, float]:
        """Gives the step's terms, each as the mean over its own positions or tokens."""
        count = sum(len(work.positions) for work in self.works)
        terms = {
            name: value * (count / self.positions[name]) if self.positions[name] else value
            for name, value in self.metrics.items()
        }
        if self.config.warmup.traces:
            terms["trace/share"] = self.positions["loss/trace"] / count
        return terms

    def _add(
        self, terms: Mapping[str, float], loss: Tensor, work: Work, branches: Iterable[int]
    ) -> Tensor:
        """Counts the terms of a loss, and notes the branches' positions where it is not finite."""
        for name, value in terms.items():
            self._count(name, value)
        if not math.isfinite(float(loss.detach())):
            positions = [work.positions[b].index for b in branches]
            self.places.note(work.document.document_id, positions)
        return loss

    def _count(self, name: str, value: float) -> None:
        self.metrics[name] = self.metrics.get(name, 0.0) + value


@torch.no_grad()
def plain_states(start: Engine, sequences: Sequence[Sequence[int]], tokens: int) -> list[Tensor]:
    """Gives the frozen model's states on prefixes, [L, d] each, from passes of at most `tokens`
    tokens (at least one prefix)."""
    found: list[Tensor] = []
    lengths = [len(ids) for ids in sequences]
    for indexes in packs(lengths, tokens):
        (hidden,) = start.states([sequences[index] for index in indexes])
        found += hidden.split([lengths[index] for index in indexes])
    return found


def _imitation_losses(
    policy: Model, imitations: Sequence[Imitation], hidden: Tensor, *, tail: int
) -> tuple[Tensor, Tensor]:
    """Gives the weighted cross-entropy of each trained token of a micro-batch's imitations, in
    nats, and whether it is of a trace: hidden [R, T, d], behind whose first `tail` tokens an
    imitation begins → [N], [N]."""
    width = max(len(ids) for one in imitations for ids, _ in one.targets)
    states, ids, probabilities, weights, given = [], [], [], [], []
    for i, imitation in enumerate(imitations):
        trained = zip(imitation.targets, imitation.weights, strict=True)
        for t, ((target_ids, target_p), weight) in enumerate(
            trained, tail + len(imitation.opening)
        ):
            if weight:
                padding = width - len(target_ids)
                states.append((i, t))
                ids.append((*target_ids, *[0] * padding))
                probabilities.append((*target_p, *[0.0] * padding))
                weights.append(weight)
                given.append(imitation.is_given)
    device = hidden.device
    at = torch.tensor(states, device=device)
    loss = target_cross_entropy(
        hidden[at[:, 0], at[:, 1]],
        policy.head,
        torch.tensor(ids, device=device),
        torch.tensor(probabilities, device=device),
    )
    return loss * torch.tensor(weights, device=device), torch.tensor(given, device=device)
