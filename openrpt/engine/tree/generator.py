"""Generation on the document tree."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openrpt.data.prompts import Layout
from openrpt.engine.branches import Branch
from openrpt.engine.decoding import Decoder, Sampling, Sequences
from openrpt.engine.generation import (
    STANDARD_TOP,
    Beginnings,
    Generated,
    Request,
    decode,
    side_by_side,
)
from openrpt.engine.head import Standard, standard_prediction
from openrpt.engine.model import Model
from openrpt.engine.tree.levels import Level, run_prefix, run_tails, tail_keys
from openrpt.engine.tree.rows import Tree, TreeSequences, whole_keys


@dataclass(frozen=True, kw_only=True, eq=False)
class TreeGenerator:
    """Decodes on the document tree. `start`: whose candidates seed the thought; None = policy."""

    policy: Model
    start: Model | None = None

    @torch.no_grad()
    def generate(self, request: Request, layout: Layout, sampling: Sampling) -> list[Generated]:
        tree, beginnings = self._grow(request, layout, sampling)

        def start_rows(index: Tensor, rollouts: int, capacity: int) -> Sequences:
            own = None if tree.tails is None else tail_keys(tree.tails, tree.branches, index)
            return TreeSequences(
                *(self.policy, tree.last_hidden()[index], own, tree.lengths()[index]),
                *(rollouts, capacity, tree.prefix),
            )

        decoder = Decoder(policy=self.policy, layout=layout, sampling=sampling)
        return beginnings.outcomes(decode(decoder, request.keys, start_rows))

    @torch.no_grad()
    def generate_each(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> Iterator[list[Generated]]:
        for batch in side_by_side(requests, layout, sampling):
            if len(batch) == 1:
                yield self.generate(batch[0], layout, sampling)
            else:
                yield from self._generate_together(batch, layout, sampling)

    def _generate_together(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> Iterator[list[Generated]]:
        grown = [self._grow(request, layout, sampling) for request in requests]
        trees = [tree for tree, _ in grown]
        hidden = torch.cat([tree.last_hidden() for tree in trees])
        lengths = torch.cat([tree.lengths() for tree in trees])

        def start_rows(index: Tensor, rollouts: int, capacity: int) -> Sequences:
            own = whole_keys(trees, index)
            return TreeSequences(
                self.policy, hidden[index], own, lengths[index], rollouts, capacity, None
            )

        decoder = Decoder(policy=self.policy, layout=layout, sampling=sampling)
        keys = [keys for request in requests for keys in request.keys]
        decoded = iter(decode(decoder, keys, start_rows))
        for tree, beginnings in grown:
            yield beginnings.outcomes([next(decoded) for _ in tree.branches])

    def _grow(
        self, request: Request, layout: Layout, sampling: Sampling
    ) -> tuple[Tree, "Beginnings"]:
        prefix = run_prefix(self.policy, request.prefix_ids)
        standard = _standard(self.policy, prefix, request, layout, sampling)
        seeds = standard
        if self.start is not None and sampling.candidates:
            start_prefix = run_prefix(self.start, request.prefix_ids)
            seeds = _standard(self.start, start_prefix, request, layout, sampling)
        beginnings = Beginnings.of(request, standard, seeds, layout, sampling)
        branches = [
            Branch(prefix_length=length, tail_ids=layout.tail_ids + opening)
            for length, opening in zip(request.prefix_lengths, beginnings.openings, strict=True)
        ]
        # Where only the candidates are asked for, nothing hangs off the prefix.
        has_tails = any(request.keys) and any(branch.tail_ids for branch in branches)
        tails = run_tails(self.policy, prefix, branches) if has_tails else None
        return Tree(prefix=prefix, tails=tails, branches=branches), beginnings


def _standard(
    policy: Model, prefix: Level, request: Request, layout: Layout, sampling: Sampling
) -> Standard:
    ends = torch.tensor(request.prefix_lengths, device=policy.device) - 1
    return standard_prediction(
        prefix.hidden[0, ends],
        policy.head,
        policy.masked_ids(layout.delimiter_ids),
        k=max(sampling.candidates, STANDARD_TOP),
    )
