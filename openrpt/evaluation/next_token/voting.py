"""A vote of standard predictions, as many as a position's rollouts would pay for: a control without
a thought."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from openrpt.costs.flops import Count, Shape
from openrpt.data.prompts import Layout
from openrpt.data.work import Work, document_bytes
from openrpt.evaluation.next_token.subject import Subject
from openrpt.rl.batch import opening_length
from openrpt.rl.rewards.matching import prefix_match
from openrpt.types import Group


def voting_draws(shape: Shape, group: Group, layout: Layout) -> int:
    """Returns how many tokens standard prediction may draw for the FLOPs of a position's rollouts.

    Both share the prefix and don't pay for it. The rollouts pay for the tail, every completion
    token and every logit read; a draw pays for one token's pass at the position and its logits.
    At least 1.
    """
    length = len(group.prompt.head_ids) + len(group.prompt.prefix_ids)
    opening = opening_length(group)
    tail = len(layout.tail_ids) + opening
    rollouts, draw = Count(), Count()
    rollouts.run(tail, length)
    for rollout in group.rollouts:
        completion = rollout.completion
        own = len(completion.token_ids) - opening - 1
        rollouts.run(own, length + tail, completion.num_trained_tokens)
    draw.run(1, length - 1, 1)
    cost = [shape.forward(count.tokens, count.pairs, count.logits) for count in (rollouts, draw)]
    return max(1, round(cost[0] / cost[1]))


def vote(subject: Subject, work: Work, draws: Sequence[int]) -> np.ndarray:
    """Returns [P] whether the commonest of `draws` [P] sampled tokens is right."""
    tokens = document_bytes(subject.policy.tokenizer, work.document)
    drawn = subject.draw_tokens(work, draws)
    return np.array(
        [
            prefix_match(commonest(ids, subject.policy.table.bytes), tokens[p.index : p.index + 1])
            for p, ids in zip(work.positions, drawn, strict=True)
        ]
    )


def commonest(ids: Sequence[int], table: Sequence[bytes]) -> bytes | None:
    """Returns the commonest token, the earliest of equals; special tokens and unused ids have no
    vote.

    >>> commonest([0, 2, 1, 0, 0, 2], [b"", b"a", b"b"])
    b'b'
    """
    known = (table[i] if i < len(table) else b"" for i in ids)
    votes = Counter(piece for piece in known if piece)
    return max(votes, key=lambda piece: votes[piece]) if votes else None
