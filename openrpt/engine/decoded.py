"""What becomes of drawn tokens: texts that end a completion, and the completion itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openrpt.data.prompts import Layout
from openrpt.data.tokens import TokenTable, literal_bytes
from openrpt.engine.course import Course
from openrpt.types import Completion


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """A rollout's new tokens, after the opening."""

    token_ids: list[int]
    logprobs: list[float]
    """Log-probability of each token at the sampling temperature, nats; 0 where forced."""
    loss_mask: list[bool]
    """True for tokens that were drawn."""
    stopped: bool
    """Whether it ended by itself, not by its budget."""
    near_boundary: int
    """Number of draws whose uniform lay near a boundary."""

    def completion(self, opening: tuple[int, ...]) -> Completion:
        """Returns the whole completion: the forced tokens that it began with, and these."""
        forced = len(opening)
        return Completion(
            token_ids=opening + tuple(self.token_ids),
            sampler_logprobs=(0.0,) * forced + tuple(self.logprobs),
            loss_mask=(False,) * forced + tuple(self.loss_mask),
            finish_reason="stop" if self.stopped else "length",
        )


@dataclass(kw_only=True, eq=False)
class Said:
    """The bytes that rollouts have said behind their thoughts, where texts end a completion."""

    table: TokenTable
    literal: dict[int, bytes]
    until: tuple[bytes, ...]
    """The texts behind which a completion stops."""
    texts: list[bytes]

    @classmethod
    def of(
        cls, table: TokenTable, layout: Layout, until: tuple[bytes, ...], *, rollouts: int
    ) -> "Said":
        """Returns that of rollouts which have said nothing yet."""
        return cls(table=table, literal=layout.literal, until=until, texts=[b""] * rollouts)

    def reached(self, course: Course, ids: Tensor) -> Tensor | None:
        """Returns [B] True where the new token, ids [B], ends, or holds, what a completion stops
        behind; None where nothing is."""
        if not self.until:
            return None
        reached = torch.zeros_like(ids, dtype=torch.bool)
        for row in course.predicting.nonzero()[:, 0].tolist():
            rollout = int(course.alive[row])
            before = len(self.texts[rollout])
            self.texts[rollout] += literal_bytes(self.table, [int(ids[row])], self.literal)
            reached[row] = any(
                self.texts[rollout].find(stop, max(before - len(stop) + 1, 0)) >= 0
                for stop in self.until
            )
        return reached


@dataclass(kw_only=True, eq=False)
class Step:
    """The next token of every rollout that was still decoded: B of them."""

    rows: Tensor  # [B] which rollouts
    ids: Tensor  # [B]
    logprobs: Tensor  # [B] 0 where forced
    free: Tensor  # [B] bool
    near: Tensor  # [B] bool: the uniform lay near a boundary
    stopped: Tensor  # [B] bool

    @classmethod
    def forced(cls, rows: Tensor, token: Tensor) -> "Step":
        """Returns the step in which each has the same forced token."""
        ids = token.expand(len(rows))
        no = torch.zeros_like(ids, dtype=torch.bool)
        zero = torch.zeros_like(ids, dtype=torch.float64)
        return cls(rows=rows, ids=ids, logprobs=zero, free=no, near=no, stopped=no)


def collect(steps: Sequence[Step], rows: int) -> list[Decoded]:
    """Returns the tokens of all steps, rollout by rollout."""
    ids: list[list[int]] = [[] for _ in range(rows)]
    logprobs: list[list[float]] = [[] for _ in range(rows)]
    mask: list[list[bool]] = [[] for _ in range(rows)]
    near = [0] * rows
    stopped = [False] * rows
    for step in steps:
        columns = (step.rows, step.ids, step.logprobs, step.free, step.near, step.stopped)
        for row, token, logprob, free, close, stop in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            ids[row].append(token)
            logprobs[row].append(logprob)
            mask[row].append(free)
            near[row] += close
            stopped[row] = stop
    return [
        Decoded(
            token_ids=ids[row],
            logprobs=logprobs[row],
            loss_mask=mask[row],
            stopped=stopped[row],
            near_boundary=near[row],
        )
        for row in range(rows)
    ]
