"""Is it the thought? The same policy at the same positions with its thought emptied, cut or
swapped, and standard prediction that votes with as much computation.

A control's accuracy is one more column beside the real one, drawn with the same random numbers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from openrpt.compute import Count, Shape
from openrpt.data import Work, document_bytes
from openrpt.errors import UserError
from openrpt.evaluation.subject import Subject, Thought
from openrpt.prompts import Layout
from openrpt.rewards import prefix_match
from openrpt.rollouts import CONTINUATION_TOKENS, grade
from openrpt.types import Completion, Group
from openrpt.update import opening_length

Thoughts = list[tuple[Thought, ...]]
"""A position, a rollout: its thought."""


def thought_of(completion: Completion, layout: Layout) -> Thought:
    """The ids before the last end of a thought; without one, all but the token that stopped it.

    Where the policy broke the thought off with a stop token, that token is no part of it.
    """
    ids, end = completion.token_ids, layout.thought_end_ids
    for start in range(len(ids) - len(end), -1, -1):
        if ids[start : start + len(end)] == end:
            return ids[:start]
    return ids[:-1] if completion.finish_reason == "stop" else ids


def changed_thoughts(control: str, thoughts: Thoughts, documents: Sequence[str]) -> Thoughts:
    """The thoughts of all positions [n] as the control makes them; their documents [n] in order.

    emptied: nothing; cut: the first half of the tokens, rounded up; swapped: another position's,
    of another document unless one holds more than half of all positions. Raises UserError where
    there is no other position.
    """
    if control == "swapped":
        return swapped(thoughts, documents)
    if control == "cut":
        return [tuple(ids[: (len(ids) + 1) // 2] for ids in own) for own in thoughts]
    return [tuple(() for _ in own) for own in thoughts]


def swapped(thoughts: Thoughts, documents: Sequence[str]) -> Thoughts:
    """Rotated by the size of the greatest document, whose positions stand together."""
    if len(thoughts) < 2:
        raise UserError(
            "evaluate.controls = swapped needs two positions at least; raise evaluate.positions"
        )
    greatest = max(Counter(documents).values())
    shift = min(greatest, len(thoughts) // 2)
    return thoughts[shift:] + thoughts[:shift]


def accuracy_after(
    subject: Subject, work: Work, thoughts: Mapping[str, Thoughts]
) -> dict[str, np.ndarray]:
    """By control, the accuracy [P] at each of the work's positions (mean over rollouts)."""
    rows: list[int] = []
    given: list[Thought] = []
    for kind in thoughts.values():
        for row, own in enumerate(kind):
            rows += [row] * len(own)
            given += own
    tokens = document_bytes(subject.policy.tokenizer, work.document)
    rewards = []
    for row, outcome in zip(rows, subject.predict_after(work, rows, given), strict=True):
        index = work.positions[row].index
        continuation = tokens[index : index + CONTINUATION_TOKENS]
        (completion,) = outcome.completions
        graded = grade(completion, continuation, subject.layout, subject.policy.table)
        rewards.append(graded.reward)
    means = np.reshape(rewards, (len(thoughts), len(work.positions), -1)).mean(-1)
    return dict(zip(thoughts, means, strict=True))


def voting_draws(shape: Shape, group: Group, layout: Layout) -> int:
    """How many tokens standard prediction may draw for the FLOPs of a position's rollouts.

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
    """[P] Is the commonest of `draws` [P] sampled tokens right?"""
    tokens = document_bytes(subject.policy.tokenizer, work.document)
    drawn = subject.draw_tokens(work, draws)
    return np.array(
        [
            prefix_match(commonest(ids, subject.policy.table.bytes), tokens[p.index : p.index + 1])
            for p, ids in zip(work.positions, drawn, strict=True)
        ]
    )


def commonest(ids: Sequence[int], table: Sequence[bytes]) -> bytes | None:
    """The earliest of the commonest; special tokens and unused ids have no vote.

    >>> commonest([0, 2, 1, 0, 0, 2], [b"", b"a", b"b"])
    b'b'
    """
    known = (table[i] if i < len(table) else b"" for i in ids)
    votes = Counter(piece for piece in known if piece)
    return max(votes, key=lambda piece: votes[piece]) if votes else None
