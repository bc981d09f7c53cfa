"""Tokens that something else has drawn, and what comes behind a thought of them. No torch: verl's
loop asks it, too.

The rules are those of `openrpt.engine.course`, for one rollout.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """A rollout's tokens as they were drawn, one after another, those that are forced left out; a
    stop that ended them is the last."""

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    """Log-probability of each under the distribution it was drawn from, nats."""

    def __add__(self, other: "Drawn") -> "Drawn":
        """Returns these tokens and, behind them, the other's."""
        return Drawn(
            token_ids=[*self.token_ids, *other.token_ids],
            logprobs=[*self.logprobs, *other.logprobs],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rest:
    """What comes behind the drawn tokens of a thought."""

    forced: Sequence[int]
    """The close, where the thought did not end by itself; else nothing."""
    budget: int
    """Most tokens that may still be drawn; 0 where the completion has ended."""


def end_of(thought: Sequence[int], end: Sequence[int]) -> int | None:
    """Returns the number of tokens of a thought with the first `end` that it has; None where it has
    none.

    >>> end_of([5, 1, 2, 1, 2], [1, 2]), end_of([5, 1], [1, 2])
    (3, None)
    """
    wanted, size = list(end), len(end)
    ends = range(size, len(thought) + 1)
    return next((n for n in ends if list(thought[n - size : n]) == wanted), None)


def rest_of(
    thought: Sequence[int],
    *,
    end: Sequence[int],
    stops: Collection[int],
    close: Sequence[int],
    prediction_budget: int,
    box_tokens: int,
) -> Rest:
    """Returns what comes behind a thought, its tokens drawn until one of the `stops` or until its
    budget was spent; its own end may be among them, and what was drawn behind that is its
    prediction's.

    `end`: ids with which the policy ends its thought itself; `close`: those that are forced in its
    place; `box_tokens`: tokens on top for a thought that ends by itself, which open the box.
    """
    ended = end_of(thought, end)
    if thought and thought[-1] in stops:
        return Rest(forced=(), budget=0)
    if ended is None:
        return Rest(forced=close, budget=prediction_budget)
    behind = len(thought) - ended
    return Rest(forced=(), budget=max(prediction_budget + box_tokens - behind, 0))
