"""Completions for many positions of one document, or of many documents: the sampler.

The tree decodes all rollouts of a document over one shared prefix, several documents side by side.
Where a document has few rollouts, such as a question that is answered once, or little would be
shared, each row has all of its keys for itself. A pass over few rows reads all weights for few
tokens: the more rows, the better.
`flat.py` has the other engine, which computes every sequence alone; both share
what is here, and `decoding.py`.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.data.spans import may_be_span
from openrpt.engine.decoded import Decoded
from openrpt.engine.decoding import Decoder, Sampling, Sequences
from openrpt.engine.model import Model
from openrpt.engine.standard import Standard, standard_prediction
from openrpt.types import Completion

STANDARD_TOP = 5
"""Number of most probable tokens of standard prediction that are kept with the rollouts."""
SPAN_TOKENS = 16
"""Most tokens to which standard prediction is decoded in search of its span's end."""
_SIDE_BY_SIDE_ROWS = 32
"""Most rollouts of several documents that are decoded together; each row holds its document's keys
for itself."""
_TOGETHER_ROWS = 128
"""Most rollouts of several documents that are decoded together over their shared prefixes: beyond
that a row more takes as long as a row apart."""
_FEW_ROWS = 8
"""Rollouts of a document above which they share its prefix."""
_SIDE_BY_SIDE_TOKENS = 16384
"""Most tokens whose keys these rows hold together (0.75 GB for 30 layers of 3 heads of 64)."""
_SHARING_TOKENS = 24_576
"""The same of several documents that are decoded over their prefixes: these, and each rollout's
own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """The outcome at one position."""

    standard_id: int
    """The token of standard prediction on this prefix (special tokens masked)."""
    standard_ids: tuple[int, ...]
    """That token and, where the request names a span, those behind it: `decode_spans`."""
    standard_top: tuple[tuple[int, float], ...]
    """The STANDARD_TOP most probable tokens of that pass with their log-probabilities in nats."""
    candidate_ids: tuple[int, ...]
    candidate_logprobs: tuple[float, ...]
    completions: tuple[Completion, ...]
    near_boundary: int
    """Number of sampled tokens whose uniform lay within NEAR_BOUNDARY of a boundary."""


def standard_tops(standard: Standard) -> list[tuple[tuple[int, float], ...]]:
    """Returns, for each position, its STANDARD_TOP most probable tokens with their
    log-probabilities."""
    ids = standard.candidate_ids[:, :STANDARD_TOP].tolist()
    logprobs = standard.candidate_logprobs[:, :STANDARD_TOP].tolist()
    pairs = zip(ids, logprobs, strict=True)
    return [tuple(zip(own, logps, strict=True)) for own, logps in pairs]


def openings_of(
    request: Request, candidates: Sequence[Sequence[int]], layout: Layout, sampling: Sampling
) -> list[tuple[int, ...]]:
    """Returns the forced tokens with which the completions at each position begin: the request's
    own, else the candidates' seed; behind them the close, where nothing is thought."""
    close = layout.close_ids if sampling.think_budget == 0 else ()
    if request.openings is not None:
        return [opening + close for opening in request.openings]
    return [layout.seed(ids) + close for ids in candidates]


@dataclass(frozen=True, kw_only=True, eq=False)
class Beginnings:
    """A document's positions before anything is drawn."""

    standard: Standard
    seeds: Standard
    """The prediction whose candidates are forced: the policy's or the start model's."""
    openings: list[tuple[int, ...]]
    """The forced tokens with which all completions of each position begin."""
    candidates: int
    """Number of candidates that are forced."""

    @classmethod
    def of(
        cls,
        request: Request,
        standard: Standard,
        seeds: Standard,
        layout: Layout,
        sampling: Sampling,
    ) -> "Beginnings":
        """Returns the positions of a request, with the forced tokens that their completions begin
        with."""
        candidates = seeds.candidate_ids[:, : sampling.candidates].tolist()
        return cls(
            standard=standard,
            seeds=seeds,
            openings=openings_of(request, candidates, layout, sampling),
            candidates=sampling.candidates,
        )

    def outcomes(
        self, decoded: Sequence[Sequence[Decoded]], spans: Sequence[tuple[int, ...]]
    ) -> list[Generated]:
        """Returns the outcome at each position; `decoded`: [positions][rollouts]; `spans`: standard
        prediction's tokens at each."""
        standard_ids = self.standard.argmax.tolist()
        candidates = self.seeds.candidate_ids[:, : self.candidates].tolist()
        candidate_logprobs = self.seeds.candidate_logprobs[:, : self.candidates].tolist()
        tops = standard_tops(self.standard)
        return [
            Generated(
                standard_id=standard_ids[p],
                standard_ids=spans[p],
                standard_top=tops[p],
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
    """Yields the requests in their order, as many at a time as may be decoded together: at least
    one."""
    batch: list[Request] = []
    for request in requests:
        if batch and not _fit([*batch, request], layout, sampling):
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch


def share_prefixes(requests: Sequence[Request], layout: Layout, sampling: Sampling) -> bool:
    """Whether each of the documents that are decoded together is held once for all its rollouts:
    they are many, and what they share is longer than what each has for itself."""
    many = sum(map(_rows, requests)) > _FEW_ROWS * len(requests)
    return many and not _are_short(requests, layout, sampling)


def _fit(batch: Sequence[Request], layout: Layout, sampling: Sampling) -> bool:
    """Whether these requests have room together."""
    rows, lengths = [_rows(one) for one in batch], [len(one.prefix_ids) for one in batch]
    new_tokens = _new_tokens(layout, sampling)
    if share_prefixes(batch, layout, sampling):
        tokens = sum(lengths) + sum(rows) * new_tokens
        most = min(_TOGETHER_ROWS, sampling.generation_rollouts)
        return sum(rows) <= most and tokens <= _SHARING_TOKENS
    if sum(rows) * (max(lengths) + new_tokens) > _SIDE_BY_SIDE_TOKENS:
        return False
    if _are_short(batch, layout, sampling):
        return sum(rows) <= sampling.generation_rollouts
    return sum(rows) <= _SIDE_BY_SIDE_ROWS and max(rows) <= _FEW_ROWS


def _are_short(requests: Sequence[Request], layout: Layout, sampling: Sampling) -> bool:
    new_tokens = _new_tokens(layout, sampling)
    return all(request.is_short(new_tokens) for request in requests)


def _rows(request: Request) -> int:
    """Returns the most rows of a document at once: its rollouts, or standard prediction at each
    position, which goes on to its span's end even where there is no rollout."""
    return max(len(request.keys), sum(len(keys) for keys in request.keys))


def _new_tokens(layout: Layout, sampling: Sampling) -> int:
    """Returns the most tokens of a rollout behind the prefix."""
    return len(layout.tail_ids) + sampling.budget.new(layout)


StartRows = Callable[[Tensor, int, int], Sequences]
"""Positions [U] on the host, rollouts, new tokens → the rows that begin at these positions."""


def decode(
    decoder: Decoder, keys: Sequence[Sequence[int]], start_rows: StartRows
) -> list[list[Decoded]]:
    """Decodes the rollouts of all positions, `generation_rollouts` at a time; `keys`:
    [positions][rollouts]."""
    rows = [(p, key) for p, of_position in enumerate(keys) for key in of_position]
    together = decoder.sampling.generation_rollouts
    capacity = decoder.sampling.budget.new(decoder.layout)
    found: list[list[Decoded]] = [[] for _ in keys]
    for start in range(0, len(rows), together):
        part = rows[start : start + together]
        positions = torch.tensor([p for p, _ in part])
        index, row_of = positions.unique(return_inverse=True)  # [U], [rollouts of this part]
        drawn = torch.tensor([key for _, key in part])
        sequences = start_rows(index, len(part), capacity)
        for (p, _), one in zip(part, decoder.run(sequences, row_of, drawn), strict=True):
            found[p].append(one)
    return found


def decode_spans(
    policy: Model,
    first_ids: Sequence[int],
    spans: Sequence[bytes],
    start_rows: StartRows,
    *,
    delimiter_ids: Collection[int],
) -> list[tuple[int, ...]]:
    """Returns standard prediction's tokens at each position: its first, and then, greedily, the
    next as long as all together may yet be the position's span and have not ended their own; at
    most SPAN_TOKENS.

    Each is the argmax of a pass over the plain text and those before it, special tokens masked as
    they are for the first. `first_ids` [P]; `spans` [P], or none at all: then the first is all.
    """
    found, table = [[token] for token in first_ids], policy.table.bytes
    texts = [table[token] for token in first_ids]
    rows = [p for p, span in enumerate(spans) if may_be_span(texts[p], span)]
    if not rows:
        return [tuple(ids) for ids in found]
    masked = policy.masked_ids(delimiter_ids)
    sequences = start_rows(torch.tensor(rows), len(rows), SPAN_TOKENS)
    for _ in range(SPAN_TOKENS - 1):
        sequences.advance(torch.tensor([found[p][-1:] for p in rows]))
        standard = standard_prediction(sequences.hidden, policy.head, masked, k=1)
        for p, token in zip(rows, standard.argmax.tolist(), strict=True):
            found[p].append(token)
            texts[p] += table[token]
        open_rows = [row for row, p in enumerate(rows) if may_be_span(texts[p], spans[p])]
        if not open_rows:
            break
        sequences.keep(torch.tensor(open_rows))
        rows = [rows[row] for row in open_rows]
    return [tuple(ids) for ids in found]
