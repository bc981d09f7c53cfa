"""Completions for many positions of one document, or of many documents: the sampler.

The tree decodes all rollouts of a document over one shared prefix. Documents with few rollouts,
such as questions that are answered once, are decoded side by side, because a pass over one row
reads all weights for one token; so are short documents, of which little would be shared.
`flat.py` has the other generator, which computes every sequence alone; both share `decoding.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from openrpt.data.prompts import Layout
from openrpt.engine.decoding import Decoded, Decoder, Sampling, Sequences, max_new_tokens
from openrpt.engine.head import Standard
from openrpt.types import Completion

STANDARD_TOP = 5
"""Most probable tokens of standard prediction that are kept with the rollouts."""
SIDE_BY_SIDE_ROWS = 32
"""Rollouts of several documents that are decoded together, at most; each row holds its document's
keys for itself."""
ALONE_ROWS = 8
"""A document with more rollouts than these is decoded alone, over its shared prefix."""
SIDE_BY_SIDE_TOKENS = 16384
"""Tokens whose keys these rows hold together, at most (0.75 GB for 30 layers of 3 heads of 64)."""


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

    def is_short(self, new_tokens: int) -> bool:
        """Whether a rollout may become as long as all that it could share: one position's prefix.
        Repeated for each rollout, that at most doubles the keys."""
        return len(self.keys) == 1 and len(self.prefix_ids) <= new_tokens


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

    def generate(self, request: Request, layout: Layout, sampling: Sampling) -> list[Generated]:
        """One document: an outcome a position."""

    def generate_each(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> Iterator[list[Generated]]:
        """The same for one document after another, as they come out."""


def with_plain_standard(
    generator: Generator, request: Request, layout: Layout, generated: Sequence[Generated]
) -> list[Generated]:
    """The outcomes with standard prediction as the text alone gives it, whatever the prompt.

    Where instructions stand before the text, that takes a pass of its own, without rollouts;
    otherwise the generation's own pass has read nothing but the text. `request`: what `generated`
    was made from.
    """
    if not layout.has_instructions:
        return list(generated)
    head, plain_head = len(layout.head_ids), layout.plain_head_ids
    plain = Request(
        prefix_ids=plain_head + request.prefix_ids[head:],
        prefix_lengths=tuple(n - head + len(plain_head) for n in request.prefix_lengths),
        keys=tuple(() for _ in request.prefix_lengths),
    )
    sampling = Sampling(temperature=0.0, think_budget=0, prediction_budget=1, candidates=0)
    return [
        replace(outcome, standard_id=said.standard_id, standard_top=said.standard_top)
        for outcome, said in zip(
            generated, generator.generate(plain, layout.plain, sampling), strict=True
        )
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Beginnings:
    """A document's positions before anything is drawn."""

    standard: Standard
    seeds: Standard
    """Whose candidates are forced: the policy's or the start model's."""
    openings: list[tuple[int, ...]]
    """A position: the forced tokens with which all its completions begin."""
    candidates: int

    @classmethod
    def of(
        cls,
        request: Request,
        standard: Standard,
        seeds: Standard,
        layout: Layout,
        sampling: Sampling,
    ) -> "Beginnings":
        close = layout.close_ids if sampling.think_budget == 0 else ()
        if request.openings is not None:
            openings = [opening + close for opening in request.openings]
        else:
            candidates = seeds.candidate_ids[:, : sampling.candidates].tolist()
            openings = [layout.seed(ids) + close for ids in candidates]
        return cls(
            standard=standard, seeds=seeds, openings=openings, candidates=sampling.candidates
        )

    def outcomes(self, decoded: Sequence[Sequence[Decoded]]) -> list[Generated]:
        """`decoded`: a position, a rollout."""
        standard_ids = self.standard.argmax.tolist()
        candidates = self.seeds.candidate_ids[:, : self.candidates].tolist()
        candidate_logprobs = self.seeds.candidate_logprobs[:, : self.candidates].tolist()
        top = self.standard.candidate_ids[:, :STANDARD_TOP].tolist()
        top_logprobs = self.standard.candidate_logprobs[:, :STANDARD_TOP].tolist()
        return [
            Generated(
                standard_id=standard_ids[p],
                standard_top=tuple(zip(top[p], top_logprobs[p], strict=True)),
                candidate_ids=tuple(candidates[p]),
                candidate_logprobs=tuple(candidate_logprobs[p]),
                completions=tuple(one.completion(self.openings[p]) for one in rollouts),
                near_boundary=sum(one.near_boundary for one in rollouts),
            )
            for p, rollouts in enumerate(decoded)
        ]


def side_by_side(
    requests: Sequence[Request], layout: Layout, sampling: Sampling
) -> Iterator[list[Request]]:
    """The requests in their order, as many at a time as may be decoded together: at least one."""
    new_tokens = len(layout.tail_ids) + max_new_tokens(layout, sampling)
    batch: list[Request] = []
    rows = longest = 0
    for request in requests:
        more = sum(len(keys) for keys in request.keys)
        length = len(request.prefix_ids) + new_tokens
        together, width = rows + more, max(longest, length)
        if all(one.is_short(new_tokens) for one in (*batch, request)):
            fits = together <= sampling.generation_rollouts
        else:
            few = max(rows // max(len(batch), 1), more) <= ALONE_ROWS
            fits = few and together <= SIDE_BY_SIDE_ROWS
        if batch and not (fits and together * width <= SIDE_BY_SIDE_TOKENS):
            yield batch
            batch, together, width = [], more, length
        batch.append(request)
        rows, longest = together, width
    if batch:
        yield batch


def decode(
    decoder: Decoder,
    keys: Sequence[Sequence[int]],
    start_rows: Callable[[Tensor, int, int], Sequences],
) -> list[list[Decoded]]:
    """The rollouts of all positions, `generation_rollouts` at a time. `keys`: a position, a
    rollout; `start_rows`: positions [U], rollouts, new tokens → their rows."""
    rows = [(p, key) for p, of_position in enumerate(keys) for key in of_position]
    device, together = decoder.policy.device, decoder.sampling.generation_rollouts
    capacity = max_new_tokens(decoder.layout, decoder.sampling)
    found: list[list[Decoded]] = [[] for _ in keys]
    for start in range(0, len(rows), together):
        part = rows[start : start + together]
        positions = torch.tensor([p for p, _ in part], device=device)
        index, row_of = positions.unique(return_inverse=True)
        drawn = torch.tensor([key for _, key in part], device=device)
        sequences = start_rows(index, len(part), capacity)
        for (p, _), one in zip(part, decoder.run(sequences, row_of, drawn), strict=True):
            found[p].append(one)
    return found
