"""The input of plain next-token training: pieces of documents, and which of their tokens train.

Pure functions of the seed and a cursor, as in `openrpt.data.training_work`: nothing depends on a
restart.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openrpt.config.sections import Config
from openrpt.costs.flops import Count, Shape
from openrpt.data.positions import Window
from openrpt.data.scored import ScoredCorpus
from openrpt.data.selection import advice, eligible_positions
from openrpt.engine.engine import Engine
from openrpt.engine.packing import packs
from openrpt.engine.text_loss import TextTerms, text_loss
from openrpt.errors import UserError
from openrpt.rl.nonfinite import Places
from openrpt.seeding import generator


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Piece:
    """Tokens [start, end) of a document, run behind the tokenizer's own beginning, if any.

    The tokens at `targets` (indices into the document, in order) are trained on.
    """

    document_id: str
    start: int
    end: int
    targets: NDArray[np.int64]

    @property
    def run_tokens(self) -> int:
        """Tokens of text that are run: what follows the last target's prefix is not."""
        return int(self.targets[-1]) - self.start

    def sequence(self, ids: NDArray[np.int64], head_ids: tuple[int, ...]) -> list[int]:
        """Returns the token ids that are run: the head, then the piece. `ids`: the document's."""
        return [*head_ids, *ids[self.start : self.start + self.run_tokens].tolist()]

    def places(self, head_length: int) -> NDArray[np.int64]:
        """Returns where in the sequence the state stands that predicts each target."""
        return self.targets - self.start + head_length - 1


def all_targets(start: int, end: int, head_length: int) -> NDArray[np.int64]:
    """Returns every token that something stands before: the first one too, behind a BOS token."""
    return np.arange(start + (head_length == 0), end)


def cut(num_tokens: int, length: int) -> list[tuple[int, int]]:
    """Cuts a document into pieces: as few as `length` allows, and even, so that none is a stub.

    >>> cut(10, 4)
    [(0, 3), (3, 6), (6, 10)]
    """
    count = -(-num_tokens // length)
    bounds = [i * num_tokens // count for i in range(count + 1)]
    return list(pairwise(bounds))


def batches(
    corpus: ScoredCorpus, config: Config, *, cursor: int, head_length: int
) -> Iterator[tuple[int, list[Piece]]]:
    """Yields (cursor after it, the pieces of a step), without end.

    The cursor counts pieces; every epoch has an order of its own, which is `train`'s where no
    document is cut. Pieces without a target are passed over. Raises UserError where there is
    nothing to train on.
    """
    settings = config.pretrain
    spans = [
        (document_id, start, end)
        for document_id in corpus.ids("train")
        for start, end in cut(corpus.entries[document_id].num_tokens, settings.sequence_length)
    ]
    if not spans:
        raise UserError(f"{corpus.folder}: no training documents were scored")

    @lru_cache(maxsize=1)
    def order(epoch: int) -> NDArray[np.int64]:
        return generator(config.seed, "epoch", epoch).permutation(len(spans))

    empty = 0
    while True:
        pieces: list[Piece] = []
        while sum(piece.run_tokens for piece in pieces) < settings.tokens_per_step:
            epoch, place = divmod(cursor, len(spans))
            document_id, start, end = spans[order(epoch)[place]]
            cursor += 1
            targets = _targets(corpus, config, document_id, start, end, head_length)
            empty = 0 if len(targets) else empty + 1
            if len(targets):
                pieces.append(Piece(document_id=document_id, start=start, end=end, targets=targets))
            elif empty >= len(spans):
                raise UserError(
                    f"no position passes selection.strategy = '{config.selection.strategy}' in any"
                    f" of {len(spans)} pieces of training documents; {advice(config.selection)}, or"
                    " use --pretrain.tokens full"
                )
        yield cursor, pieces


def _targets(
    corpus: ScoredCorpus, config: Config, document_id: str, start: int, end: int, head_length: int
) -> NDArray[np.int64]:
    if config.pretrain.tokens == "full":
        return all_targets(start, end, head_length)
    window = Window(start=start, end=end, first=start + config.prompt.min_context)
    return eligible_positions(corpus.document(document_id), config.selection, window=window)


def accumulate_gradients(
    engine: Engine,
    corpus: ScoredCorpus,
    pieces: Sequence[Piece],
    *,
    total: int,
    microbatch_tokens: int,
    places: Places,
) -> float:
    """Adds the gradient of −log p, summed over all targets of the pieces and divided by `total`;
    returns that in nats.

    `total`: the whole step's targets, so that neither the packing nor the number of processes
    changes anything. `places`: gets those where a loss is not finite.
    """
    policy, head_ids = engine.model, engine.model.bos_ids
    lengths = [len(head_ids) + piece.run_tokens for piece in pieces]
    nats = 0.0
    for indexes in packs(lengths, microbatch_tokens):
        sequences, states, targets, offset = [], [], [], 0
        for index in indexes:
            piece = pieces[index]
            ids = corpus.document(piece.document_id).token_ids
            sequences.append(piece.sequence(ids, head_ids))
            states.append(piece.places(len(head_ids)) + offset)
            targets.append(ids[piece.targets])
            offset += lengths[index]
        (hidden,) = engine.states(sequences)  # [N, d]
        terms = TextTerms(
            targets=torch.tensor(np.concatenate(targets), device=policy.device),
            ntp_scale=1.0 / total,
        )
        at = torch.tensor(np.concatenate(states), device=policy.device)
        loss, ntp, _ = text_loss(hidden[at], policy.head, terms)
        if not math.isfinite(ntp):
            _note_places([pieces[index] for index in indexes], hidden, len(head_ids), places)
        policy.backward([loss])
        nats += ntp
    return nats / total


def _note_places(pieces: Sequence[Piece], hidden: Tensor, head_length: int, places: Places) -> None:
    """Notes where states are not finite, of pieces packed into hidden [N, d]; where each is, the
    beginnings of all."""
    parts = hidden.split([head_length + piece.run_tokens for piece in pieces])
    found = [
        places.note_text(piece.document_id, states[head_length:], start=piece.start)
        for piece, states in zip(pieces, parts, strict=True)
    ]
    for piece in pieces if not any(found) else ():
        places.note(piece.document_id, [piece.start])


def count_step(pieces: Sequence[Piece], head_length: int) -> Count:
    """Counts the step's tokens as they are run: nothing behind the last target, logits where a
    token trains."""
    count = Count()
    for piece in pieces:
        count.run(head_length + piece.run_tokens, 0, len(piece.targets))
    return count


def step_flops(shape: Shape, count: Count) -> float:
    """Returns the FLOPs of forward and backward, as `openrpt.costs.flops` counts an update."""
    return 3.0 * shape.forward(count.tokens, count.pairs, count.logits)
