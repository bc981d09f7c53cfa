"""Thoughts as a control changes them, and what the model predicts after them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from openrpt.data.prompts import Layout
from openrpt.data.work import Work, document_bytes
from openrpt.errors import UserError
from openrpt.evaluation.next_token.subject import Subject, ThoughtIds
from openrpt.rl.grading import continuation_at, grade
from openrpt.types import Completion, Rollout

Thoughts = list[tuple[ThoughtIds, ...]]
"""The thoughts of positions: [P][rollouts]."""


def thought_of(completion: Completion, layout: Layout) -> ThoughtIds:
    """Returns the ids before the last end of a thought; without one, all but the token that
    stopped it.

    Where the policy broke the thought off with a stop token, that token is no part of it.
    """
    ids, end = completion.token_ids, layout.thought_end_ids
    for start in range(len(ids) - len(end), -1, -1):
        if ids[start : start + len(end)] == end:
            return ids[:start]
    return ids[:-1] if completion.finish_reason == "stop" else ids


def changed_thoughts(control: str, thoughts: Thoughts, documents: Sequence[str]) -> Thoughts:
    """Returns the thoughts of all positions [n] as the control makes them; their documents [n] in
    order.

    emptied: nothing; cut: the first half of the tokens, rounded up; swapped: another position's,
    of another document unless one holds more than half of all positions. Raises UserError where
    there is no other position.
    """
    if control == "swapped":
        return swapped(thoughts, documents)
    if control == "cut":
        return [tuple(ids[: (len(ids) + 1) // 2] for ids in own) for own in thoughts]
    return [tuple(() for _ in own) for own in thoughts]


_Each = TypeVar("_Each")


def swapped(each: list[_Each], documents: Sequence[str]) -> list[_Each]:
    """Returns what belongs to each position [n], given to another: rotated by the size of the
    greatest document, whose positions stand together."""
    if len(each) < 2:
        raise UserError(
            "evaluate.controls = swapped needs two positions at least; raise evaluate.positions"
        )
    greatest = max(Counter(documents).values())
    shift = min(greatest, len(each) // 2)
    return each[shift:] + each[:shift]


def rollouts_after(
    subject: Subject, work: Work, thoughts: Mapping[str, Thoughts]
) -> dict[str, list[list[Rollout]]]:
    """Returns, by control, the rollouts [P][samples] at each of the work's positions, graded."""
    rows: list[int] = []
    given: list[ThoughtIds] = []
    for kind in thoughts.values():
        for row, own in enumerate(kind):
            rows += [row] * len(own)
            given += own
    tokens = document_bytes(subject.policy.tokenizer, work.document)
    graded: list[Rollout] = []
    for row, outcome in zip(rows, subject.predict_after(work, rows, given), strict=True):
        continuation = continuation_at(tokens, work.positions[row].index)
        (completion,) = outcome.completions
        graded.append(grade(completion, continuation, subject.layout, subject.policy.table))
    each = iter(graded)
    return {name: [[next(each) for _ in own] for own in kind] for name, kind in thoughts.items()}


def accuracies(rollouts: Mapping[str, list[list[Rollout]]]) -> dict[str, np.ndarray]:
    """Returns, by control, the accuracy [P] at each position (mean over its rollouts)."""
    return {
        name: np.array([np.mean([one.exact for one in own]) for own in kind])
        for name, kind in rollouts.items()
    }


def carried(
    rollouts: Sequence[Sequence[Rollout]], donors: Sequence[Sequence[bytes | None]]
) -> np.ndarray:
    """Returns [P] the share of the predictions after swapped thoughts that are those which the
    thoughts' own position made; NaN where that made none. `donors`: these predictions,
    [P][samples]."""
    shares = []
    for own, before in zip(rollouts, donors, strict=True):
        pairs = zip(own, before, strict=True)
        same = [one.prediction == said for one, said in pairs if said is not None]
        shares.append(np.mean(same) if same else np.nan)
    return np.array(shares)
