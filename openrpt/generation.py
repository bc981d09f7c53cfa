"""Completions for many positions of one document: the sampler.

The tree decodes all rollouts of a document over one shared prefix. `flat.py` has the other
generator, which computes every sequence alone; both share `decoding.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from openrpt.attention import OwnKeys, TreePass
from openrpt.decoding import Decoder, Sampling, Sequences
from openrpt.logprobs import Standard, standard_prediction
from openrpt.models import Policy
from openrpt.prompts import Layout
from openrpt.tree import Branch, Level, last_hidden, run_level, run_prefix, run_tails, tail_keys
from openrpt.types import Completion

STANDARD_TOP = 5
"""Most probable tokens of standard prediction that are kept with the rollouts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to generate for one window of one document.

    >>> Request(prefix_ids=(5, 6, 7), prefix_lengths=(2, 3), keys=((11, 12), (13, 14))).keys
    ((11, 12), (13, 14))
    """

    prefix_ids: tuple[int, ...]
    """head ⊕ window, as far as the last position."""
    prefix_lengths: tuple[int, ...]
    """A position: the length of its prefix, head included."""
    keys: tuple[tuple[int, ...], ...]
    """A position, a rollout: the key of its random draws. Also gives the group size."""
    openings: tuple[tuple[int, ...], ...] | None = None
    """A position: forced tokens that its thoughts begin with, in place of the candidates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """The outcome at one position."""

    standard_id: int
    """What standard prediction says on this prefix (special tokens masked)."""
    standard_top: tuple[tuple[int, float], ...]
    """Its STANDARD_TOP most probable tokens with their log-probabilities: to be looked at."""
    candidate_ids: tuple[int, ...]
    candidate_logprobs: tuple[float, ...]
    completions: tuple[Completion, ...]
    near_boundary: int
    """Sampled tokens whose uniform lay within NEAR_BOUNDARY of a boundary."""


class Generator(Protocol):
    """What makes completions: the tree here; an engine such as vLLM elsewhere."""

    def generate(self, request: Request, layout: Layout, sampling: Sampling) -> list[Generated]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class TreeGenerator:
    """Decodes on the document tree. `start`: whose candidates seed the thought; None = policy."""

    policy: Policy
    start: Policy | None = None

    @torch.no_grad()
    def generate(self, request: Request, layout: Layout, sampling: Sampling) -> list[Generated]:
        prefix = run_prefix(self.policy, request.prefix_ids)
        standard = _standard(self.policy, prefix, request, sampling)
        seeds = standard
        if self.start is not None and sampling.candidates:
            start_prefix = run_prefix(self.start, request.prefix_ids)
            seeds = _standard(self.start, start_prefix, request, sampling)
        openings = openings_of(request, seeds, layout, sampling)
        branches = [
            Branch(prefix_length=length, tail_ids=layout.tail_ids + opening)
            for length, opening in zip(request.prefix_lengths, openings, strict=True)
        ]
        # Where only the candidates are asked for, nothing hangs off the prefix.
        has_tails = any(request.keys) and any(branch.tail_ids for branch in branches)
        tails = run_tails(self.policy, prefix, branches) if has_tails else None

        def start_rows(index: Tensor, rollouts: int, capacity: int) -> Sequences:
            return TreeSequences(self.policy, prefix, tails, branches, index, rollouts, capacity)

        return decode_all(self.policy, request, layout, sampling, standard, seeds, start_rows)


def _standard(policy: Policy, prefix: Level, request: Request, sampling: Sampling) -> Standard:
    ends = torch.tensor(request.prefix_lengths, device=policy.device) - 1
    return standard_prediction(
        prefix.hidden[0, ends],
        policy.head,
        policy.masked_ids(),
        k=max(sampling.candidates, STANDARD_TOP),
    )


def openings_of(
    request: Request, seeds: Standard, layout: Layout, sampling: Sampling
) -> list[tuple[int, ...]]:
    """The forced tokens with which all completions of a position begin."""
    close = layout.close_ids if sampling.think_budget == 0 else ()
    if request.openings is not None:
        return [opening + close for opening in request.openings]
    candidates = seeds.candidate_ids[:, : sampling.candidates].tolist()
    return [layout.seed(ids) + close for ids in candidates]


class TreeSequences:
    """Rows on the tree: own keys lie in a preallocated buffer behind the tail's.

    The buffer has a row for every rollout; those in use are its first.
    """

    def __init__(
        self,
        policy: Policy,
        prefix: Level,
        tails: Level | None,
        branches: Sequence[Branch],
        index: Tensor,  # [U] branch of each row
        rollouts: int,
        capacity: int,
    ) -> None:
        self.policy, self.prefix = policy, prefix
        self.hidden = last_hidden(prefix, tails, branches)[index]
        inherited = None if tails is None else tail_keys(tails, branches, index)
        filled = 0 if inherited is None else inherited.positions.shape[1]
        self.buffers = _buffers(prefix, rollouts, filled + capacity)
        positions = index.new_empty(len(index), 0) if inherited is None else inherited.positions
        self.own = OwnKeys(layers=self._rows(len(index)), positions=positions, length=filled)
        if inherited is not None:
            for (keys, values), (key, value) in zip(self.own.layers, inherited.layers, strict=True):
                keys[:, :, :filled], values[:, :, :filled] = key, value
        lengths = [(b.prefix_length, b.prefix_length + len(b.tail_ids)) for b in branches]
        both = torch.tensor(lengths, device=policy.device)[index]
        self.prefix_lengths, self.next_positions = both[:, 0], both[:, 1]

    def advance(self, ids: Tensor) -> None:
        new = torch.arange(ids.shape[1], device=ids.device)
        position_ids = self.next_positions[:, None] + new
        longest = int(self.prefix_lengths.max())
        tree_pass = TreePass(
            query_positions=position_ids,
            shared=[(k[:, :, :longest], v[:, :, :longest]) for k, v in self.prefix.layers],
            shared_lengths=self.prefix_lengths,
            own=self.own,
        )
        self.hidden = run_level(self.policy, ids, position_ids, tree_pass).hidden[:, -1]
        self.own.positions = torch.cat([self.own.positions, position_ids], dim=1)
        self.own.length = self.own.positions.shape[1]
        self.next_positions = self.next_positions + ids.shape[1]

    def keep(self, index: Tensor) -> None:
        before, filled = len(self.own.positions), self.own.positions.shape[1]
        rows = torch.arange(before, device=index.device)
        stay = before if torch.equal(index[:before], rows) else 0
        for buffer in self.buffers:  # only the rows that are new where they stand are copied
            buffer[:, stay : len(index), :, :filled] = buffer[:, index[stay:], :, :filled]
        self.own.layers = self._rows(len(index))
        self.own.positions = self.own.positions[index]
        self.prefix_lengths = self.prefix_lengths[index]
        self.next_positions = self.next_positions[index]

    def _rows(self, count: int) -> list[tuple[Tensor, Tensor]]:
        return [(buffer[0, :count], buffer[1, :count]) for buffer in self.buffers]


def _buffers(prefix: Level, rows: int, columns: int) -> list[Tensor]:
    """A layer: room for keys and values, [2, rows, K, columns, D]."""
    return [key.new_empty(2, rows, key.shape[1], columns, key.shape[3]) for key, _ in prefix.layers]


def decode_all(
    policy: Policy,
    request: Request,
    layout: Layout,
    sampling: Sampling,
    standard: Standard,
    seeds: Standard,
    start_rows,
) -> list[Generated]:
    """Decodes the rollouts of all positions, `generation_rollouts` at a time."""
    openings = openings_of(request, seeds, layout, sampling)
    rows = [(p, key) for p, keys in enumerate(request.keys) for key in keys]
    found: list[list[tuple[Completion, int]]] = [[] for _ in request.keys]
    for start in range(0, len(rows), sampling.generation_rollouts):
        part = rows[start : start + sampling.generation_rollouts]
        positions = torch.tensor([p for p, _ in part], device=policy.device)
        index, row_of = positions.unique(return_inverse=True)
        keys = torch.tensor([key for _, key in part], device=policy.device)
        decoder = Decoder(policy=policy, layout=layout, sampling=sampling)
        sequences = start_rows(index, len(part), decoder.max_new_tokens)
        for (p, _), outcome in zip(part, decoder.run(sequences, row_of, keys), strict=True):
            found[p].append(outcome.completion(openings[p]))
    standard_ids = standard.argmax.tolist()
    candidates = seeds.candidate_ids[:, : sampling.candidates].tolist()
    candidate_logprobs = seeds.candidate_logprobs[:, : sampling.candidates].tolist()
    top = standard.candidate_ids[:, :STANDARD_TOP].tolist()
    top_logprobs = standard.candidate_logprobs[:, :STANDARD_TOP].tolist()
    return [
        Generated(
            standard_id=standard_ids[p],
            standard_top=tuple(zip(top[p], top_logprobs[p], strict=True)),
            candidate_ids=tuple(candidates[p]),
            candidate_logprobs=tuple(candidate_logprobs[p]),
            completions=tuple(completion for completion, _ in found[p]),
            near_boundary=sum(near for _, near in found[p]),
        )
        for p in range(len(request.keys))
    ]
