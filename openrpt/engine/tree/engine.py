"""The engine that runs on the document tree."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.engine.bound import BoundEngine
from openrpt.engine.branches import Branch, Passage
from openrpt.engine.decoding import Decoder, Sampling, Sequences
from openrpt.engine.generation import (
    STANDARD_TOP,
    Beginnings,
    Generated,
    StartRows,
    decode,
    decode_spans,
    share_prefixes,
    side_by_side,
)
from openrpt.engine.packing import packs
from openrpt.engine.placing import put
from openrpt.engine.standard import Standard, standard_prediction
from openrpt.engine.tree import forest
from openrpt.engine.tree.attention import NAME
from openrpt.engine.tree.gradients import accumulate_gradients
from openrpt.engine.tree.level import Level
from openrpt.engine.tree.levels import branch_states, packed_states, run_prefix, run_prefixes
from openrpt.engine.tree.rows import Tree, TreeSequences, joined_keys, whole_keys, with_tails

_PREFIX_TOKENS = 2048
"""Most tokens of several documents' prefixes in one pass: beyond some hundreds a pass takes as long
as its tokens do."""


@dataclass(kw_only=True, eq=False)
class TreeEngine(BoundEngine):
    """An engine that runs on the document tree: see `openrpt.engine.engine.Engine`. The model
    attends as the tree does from here on."""

    def __post_init__(self) -> None:
        self.model.attention = NAME

    @torch.no_grad()
    def generate_each(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> Iterator[list[Generated]]:
        """Yields the outcomes of one document after another: `Sampler.generate_each`."""
        for batch in side_by_side(requests, layout, sampling):
            yield from self._generate(batch, layout, sampling)

    def _generate(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> Iterator[list[Generated]]:
        trees, begun = self._grow(requests, layout, sampling)
        shared = len(trees) == 1 or share_prefixes(requests, layout, sampling)
        decoder = Decoder(policy=self.model, layout=layout, sampling=sampling)
        keys = [keys for request in requests for keys in request.keys]
        decoded = iter(decode(decoder, keys, self._rows(trees, shared=shared)))
        spans = iter(
            decode_spans(
                self.model,
                [token for one in begun for token in one.standard.argmax.tolist()],
                [span for request in requests for span in request.spans],
                self._rows([tree.text for tree in trees], shared=shared),
                delimiter_ids=layout.delimiter_ids,
            )
        )
        for tree, beginnings in zip(trees, begun, strict=True):
            yield beginnings.outcomes(
                [next(decoded) for _ in tree.branches], [next(spans) for _ in tree.branches]
            )

    def _rows(self, trees: Sequence[Tree], *, shared: bool) -> StartRows:
        """Returns what begins rows where the trees end, all trees' positions counted together: over
        each tree's `shared` prefix, or with all their keys for themselves."""
        hidden = torch.cat([tree.last_hidden() for tree in trees])  # [all P, d]
        lengths = torch.cat([tree.lengths() for tree in trees])  # [all P, 2] on the host
        numbers = [number for number, tree in enumerate(trees) for _ in tree.branches]
        tree_of = torch.tensor(numbers)  # [all P] on the host

        def start_rows(index: Tensor, rollouts: int, capacity: int) -> Sequences:
            own = joined_keys(trees, index, tree_of[index]) if shared else whole_keys(trees, index)
            return TreeSequences(
                self.model,
                hidden=hidden[put(index, hidden.device)],  # [U, d]
                own=own,
                lengths=lengths[index],  # [U, 2]
                rollouts=rollouts,
                capacity=capacity,
                prefixes=[tree.prefix for tree in trees] if shared else [],
                document_of=tree_of[index],
            )

        return start_rows

    def _grow(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> tuple[list[Tree], list[Beginnings]]:
        """Returns the trees of documents that are decoded together, run as far as their completions
        begin."""
        begun = list(self._begin(requests, layout, sampling))
        trees = [tree for tree, _ in begun]
        # Where only the candidates are asked for, nothing hangs off the prefix.
        tailed = [
            number
            for number, (request, tree) in enumerate(zip(requests, trees, strict=True))
            if any(request.keys) and any(branch.tail_ids for branch in tree.branches)
        ]
        grown = with_tails(self.model, [trees[number] for number in tailed])
        for number, tree in zip(tailed, grown, strict=True):
            trees[number] = tree
        return trees, [beginnings for _, beginnings in begun]

    def _begin(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> Iterator[tuple[Tree, Beginnings]]:
        """Yields each document's prefix and what its positions begin with; prefixes share passes,
        and all positions one prediction."""
        delimiters, k = layout.delimiter_ids, max(sampling.candidates, STANDARD_TOP)
        prefixes = [
            prefix
            for pack in packs([len(one.prefix_ids) for one in requests], _PREFIX_TOKENS)
            for prefix in run_prefixes(self.model, [requests[one].prefix_ids for one in pack])
        ]
        lengths = [request.prefix_lengths for request in requests]
        standards = self._standard_at(prefixes, lengths, k, delimiters)
        for request, prefix, standard in zip(requests, prefixes, standards, strict=True):
            seeds = standard
            if self.start is not None and sampling.candidates:
                seeds = self.start.standard(
                    request.prefix_ids, request.prefix_lengths, k=k, delimiter_ids=delimiters
                )
            beginnings = Beginnings.of(request, standard, seeds, layout, sampling)
            branches = [
                Branch(prefix_length=length, tail_ids=layout.tail_ids + opening)
                for length, opening in zip(request.prefix_lengths, beginnings.openings, strict=True)
            ]
            yield Tree(prefix=prefix, tails=None, branches=branches), beginnings

    def states(
        self, sequences: Sequence[Sequence[int]], layers: Sequence[int] = (-1,)
    ) -> list[Tensor]:
        """Returns states [N, d] a layer, all sequences in one pass: `Engine.states`."""
        return packed_states(self.model, sequences, layers)

    @torch.no_grad()
    def standard(
        self,
        prefix_ids: Sequence[int],
        lengths: Sequence[int],
        *,
        k: int = STANDARD_TOP,
        delimiter_ids: Collection[int] = (),
    ) -> Standard:
        """Returns standard prediction after each length, from one pass: `Engine.standard`."""
        prefix = run_prefix(self.model, prefix_ids)
        return self._standard_at([prefix], [lengths], k, delimiter_ids)[0]

    def _standard_at(
        self,
        prefixes: Sequence[Level],
        lengths: Sequence[Sequence[int]],
        k: int,
        delimiter_ids: Collection[int],
    ) -> list[Standard]:
        """Returns standard prediction in each prefix, after each of its lengths."""
        device = self.model.device
        hidden = torch.cat(
            [
                prefix.hidden[0, torch.tensor(own, device=device) - 1]
                for prefix, own in zip(prefixes, lengths, strict=True)
            ]
        )  # [all P, d]
        masked = self.model.masked_ids(delimiter_ids)
        found = standard_prediction(hidden, self.model.head, masked, k=k)
        return found.split([len(own) for own in lengths])

    def branch_states(
        self, prefix_ids: Sequence[int], branches: Sequence[Branch]
    ) -> list[list[Tensor]]:
        """Returns the states [T, d] of each completion: `Engine.branch_states`."""
        return branch_states(self.model, prefix_ids, branches)

    def accumulate_each(
        self, passages: Sequence[Passage], *, microbatch_tokens: int = 1024
    ) -> None:
        """Adds the gradient of all passages, side by side: level by level (`tree.gradients`), or
        with the prefixes of short ones in their rows (`tree.forest`)."""
        for group in forest.groups(passages, microbatch_tokens):
            if len(group) > 1 and forest.is_short(group[0]):
                forest.accumulate_together(self.model, group, microbatch_tokens)
            else:
                accumulate_gradients(self.model, group, microbatch_tokens=microbatch_tokens)
