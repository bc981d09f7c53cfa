"""What a scorer says of every token of given documents, and its scores on another tokenizer's.

Windows run side by side, and each logit is computed once and read while the cache holds it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from openrpt.data.positions import windows
from openrpt.engine.engine import Engine
from openrpt.engine.head import in_cache, log_softmax_
from openrpt.engine.model import Model
from openrpt.engine.packing import packs
from openrpt.engine.standard import top_k
from openrpt.errors import UserError

_TOP = 16
"""Number of most probable tokens that `entropy_top16` is taken over."""
PACK_TOKENS = 1024
"""Tokens of one pass, about: as many rows as a CPU's matrix products need for their full rate."""


@dataclass(kw_only=True, eq=False)
class Scores:
    """A scorer's scores for its own tokens; NaN and -1 where nothing stands before one."""

    negative_log_likelihood: np.ndarray  # [T] float32, nats
    entropy: np.ndarray  # [T] float32, nats
    entropy_top16: np.ndarray  # [T] float32, nats, over the 16 most probable, renormalised
    argmax: np.ndarray  # [T] int64, special tokens masked

    @classmethod
    def empty(cls, count: int) -> "Scores":
        """Returns scores of `count` tokens that are not known yet."""
        return cls(
            negative_log_likelihood=np.full(count, np.nan, np.float32),
            entropy=np.full(count, np.nan, np.float32),
            entropy_top16=np.full(count, np.nan, np.float32),
            argmax=np.full(count, -1, np.int64),
        )

    def put(self, places: slice, scores: "Scores", rows: slice) -> None:
        """Puts `rows` of other scores in place of these at `places`."""
        for one in fields(self):
            getattr(self, one.name)[places] = getattr(scores, one.name)[rows]


def score_ids(scorer: Engine, ids: Sequence[int], *, window: int, min_context: int) -> Scores:
    """Scores one document's tokens [T]; see `score_documents`."""
    return score_documents(scorer, [ids], window=window, min_context=min_context)[0]


@torch.no_grad()
def score_documents(
    scorer: Engine,
    documents: Sequence[Sequence[int]],
    *,
    window: int,
    min_context: int,
    delimiter_ids: Collection[int] = (),
    scored: Callable[[float], None] = lambda share: None,
) -> list[Scores]:
    """Scores documents' tokens, each from its window's prefix (behind BOS, if there is one).

    Windows, of one document or of several, run side by side, about PACK_TOKENS at a time: matrix
    products are faster with more rows, and nothing is padded. `scored` hears the share that is
    done. Raises UserError if the window is longer than the scorer can hold.
    """
    model = scorer.model
    head_ids = model.bos_ids
    if len(head_ids) + window > model.max_length:
        raise UserError(
            f"prompt.window = {window} does not fit: the scorer {model.name} holds"
            f" {model.max_length} tokens, {len(head_ids)} of them before the text"
        )
    never = model.masked_ids(delimiter_ids).nonzero()[:, 0]
    found = [Scores.empty(len(ids)) for ids in documents]
    inside: list[list[int]] = []
    places: list[tuple[int, int, slice]] = []  # document, states passed over, the tokens scored
    for number, ids in enumerate(documents):
        for span in windows(len(ids), window=window, min_context=min_context):
            # The first window scores what has less than the least context, too.
            first = span.first if span.start else 1 - min(len(head_ids), 1)
            inside.append([*head_ids, *ids[span.start : span.end - 1]])
            skipped = len(head_ids) + first - span.start - 1
            places.append((number, skipped, slice(first, span.end)))
    done, whole = 0, sum(map(len, inside))
    for pack in packs([len(sequence) for sequence in inside], PACK_TOKENS):
        lengths = [len(inside[index]) for index in pack]
        states: list[Tensor] = []
        true_ids: list[int] = []
        (hidden,) = scorer.states([inside[index] for index in pack])  # [sum of lengths, d]
        for index, part in zip(pack, hidden.split(lengths), strict=True):
            number, skipped, tokens = places[index]
            states.append(part[skipped:])
            true_ids += documents[number][tokens]
        scores = _read(model, torch.cat(states), true_ids, never)
        start = 0
        for number, _, tokens in (places[index] for index in pack):
            end = start + tokens.stop - tokens.start
            found[number].put(tokens, scores, slice(start, end))
            start = end
        done += sum(lengths)
        scored(done / whole)
    return found


def _read(scorer: Model, states: Tensor, true_ids: Sequence[int], never: Tensor) -> Scores:
    """Reads the scores of tokens [n] off the states [n, d] before them; logits in chunks. `never`:
    ids that are no argmax."""
    head, scores = scorer.head, Scores.empty(len(true_ids))
    start = 0
    for part in states.split(head.chunk_rows):
        for block in in_cache(head.logits(part), vocabulary=len(head.weight)):
            rows = slice(start, start + len(block))
            ids = torch.tensor(true_ids[rows], device=block.device)
            top = top_k(block, min(_TOP, block.shape[1]))[0].log_softmax(-1)  # [rows, 16]
            logp, p, _ = log_softmax_(block)  # [rows, V]
            nll = -logp.gather(-1, ids[:, None])[:, 0]  # [rows]
            scores.negative_log_likelihood[rows] = nll.cpu().numpy()
            scores.entropy[rows] = _entropy(p, logp).cpu().numpy()
            scores.entropy_top16[rows] = _entropy(top.exp(), top).cpu().numpy()
            _, argmax = top_k(logp.index_fill_(1, never, float("-inf")), 1)
            scores.argmax[rows] = argmax[:, 0].cpu().numpy()
            start = rows.stop
    return scores


def _entropy(p: Tensor, logp: Tensor) -> Tensor:
    """Returns the entropy, [n, V] → [n], in nats; never below 0 by rounding. Takes the place of
    p."""
    return -p.mul_(logp).sum(-1).clamp_max(0)


def align(pieces: Sequence[bytes], scorer_pieces: Sequence[bytes]) -> list[tuple[int, int]]:
    """Returns, for each token, the scorer's tokens [a, b) that cover the same bytes; a = b where
    none do.

    Both lists join to the same bytes. A token is covered only where its start and its end are
    boundaries of the scorer's tokens as well.

    >>> align([b"the", b" e", b"nd"], [b"t", b"he", b" end"])
    [(0, 2), (0, 0), (0, 0)]
    """
    bounds = np.cumsum([0, *map(len, scorer_pieces)])
    ends = np.cumsum([*map(len, pieces)])
    starts = ends - [len(piece) for piece in pieces]
    # An empty token of the scorer (a dummy prefix) belongs to what follows it.
    first = np.searchsorted(bounds, starts)
    last = np.searchsorted(bounds, ends)
    shared = (bounds[first] == starts) & (bounds[last] == ends)
    pairs = zip(first.tolist(), last.tolist(), shared.tolist(), strict=True)
    return [(a, b) if both else (0, 0) for a, b, both in pairs]


def aligned_scores(scores: Scores, source: Sequence[tuple[int, int]]) -> Scores:
    """Returns the scorer's scores on the policy's tokens: likelihoods of the tokens inside one are
    summed, the first one's entropy counts. `argmax` is left at -1: it is an id of the scorer's."""
    found = Scores.empty(len(source))
    for t, (a, b) in enumerate(source):
        if a < b:
            nll = scores.negative_log_likelihood[a:b].sum(dtype=np.float64)
            found.negative_log_likelihood[t] = nll
            found.entropy[t] = scores.entropy[a]
            found.entropy_top16[t] = scores.entropy_top16[a]
    return found
