"""Documents side by side in one pass: each attends to itself alone and begins at position 0, so
packing changes nothing but the time that it takes.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from openrpt.attention import NAME as TREE_ATTENTION
from openrpt.attention import TreePass
from openrpt.compute import Count, Shape
from openrpt.flat import flat_hidden
from openrpt.models import Policy
from openrpt.nonfinite import Places
from openrpt.pieces import Piece
from openrpt.scores import ScoredCorpus
from openrpt.text_loss import TextTerms, text_loss
from openrpt.tree import run_level


def packs(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices of sequences in order, as many at a time as stay within `tokens` (at least one).

    >>> packs([3, 2, 4, 9], 6)
    [[0, 1], [2], [3]]
    """
    found: list[list[int]] = []
    filled = 0
    for index, length in enumerate(lengths):
        if found and filled + length <= tokens:
            found[-1].append(index)
            filled += length
        else:
            found.append([index])
            filled = length
    return found


def packed_hidden(policy: Policy, sequences: Sequence[Sequence[int]]) -> Tensor:
    """[N, d]: what separate passes over the sequences give, joined; N tokens in all.

    A policy that runs flat computes them one by one: not every layer can keep them apart.
    """
    if policy.causal_lm.config._attn_implementation != TREE_ATTENTION:
        return torch.cat([flat_hidden(policy, sequence) for sequence in sequences])
    device = policy.device
    ids = torch.tensor([[token for sequence in sequences for token in sequence]], device=device)
    lengths = tuple(len(sequence) for sequence in sequences)
    positions = torch.cat([torch.arange(length, device=device) for length in lengths])[None]
    tree_pass = TreePass(query_positions=positions, lengths=lengths)
    return run_level(policy, ids, positions, tree_pass).hidden[0]


def accumulate_gradients(
    policy: Policy,
    corpus: ScoredCorpus,
    pieces: Sequence[Piece],
    *,
    microbatch_tokens: int,
    places: Places,
) -> float:
    """Adds the gradient of the mean of −log p over all targets of the pieces; returns the mean.

    In nats. Every pass is divided by the whole step's targets, so the packing changes nothing.
    `places`: gets those where a loss is not finite.
    """
    head_ids = policy.bos_ids
    total = sum(len(piece.targets) for piece in pieces)
    lengths = [len(head_ids) + piece.run_tokens for piece in pieces]
    nats = 0.0
    for indexes in packs(lengths, microbatch_tokens):
        sequences, states, targets, offset = [], [], [], 0
        for index in indexes:
            piece = pieces[index]
            sequences.append(piece.sequence(corpus, head_ids))
            states.append(piece.places(len(head_ids)) + offset)
            targets.append(piece.target_ids(corpus))
            offset += lengths[index]
        hidden = packed_hidden(policy, sequences)  # [N, d]
        terms = TextTerms(
            targets=torch.tensor(np.concatenate(targets), device=policy.device),
            ntp_scale=1.0 / total,
        )
        at = torch.tensor(np.concatenate(states), device=policy.device)
        loss, ntp, _ = text_loss(hidden[at], policy.head, terms)
        if not math.isfinite(ntp):
            note_places([pieces[index] for index in indexes], hidden, len(head_ids), places)
        loss.backward()
        nats += ntp
    return nats / total


def note_places(pieces: Sequence[Piece], hidden: Tensor, head_length: int, places: Places) -> None:
    """Of the pieces packed into hidden [N, d]: where the states are not finite; where each is, the
    beginnings of all."""
    parts = hidden.split([head_length + piece.run_tokens for piece in pieces])
    found = [
        places.note_text(piece.document_id, states[head_length:], start=piece.start)
        for piece, states in zip(pieces, parts, strict=True)
    ]
    for piece in pieces if not any(found) else ():
        places.note(piece.document_id, [piece.start])


def count_step(pieces: Sequence[Piece], head_length: int) -> Count:
    """As the step runs them: nothing behind the last target, logits where a token trains."""
    count = Count()
    for piece in pieces:
        count.run(head_length + piece.run_tokens, 0, len(piece.targets))
    return count


def step_flops(shape: Shape, count: Count) -> float:
    """Forward and backward, as `openrpt.compute` counts an update."""
    return 3.0 * shape.forward(count.tokens, count.pairs, count.logits)
