"""What a trainer is given to do."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from openrpt.data.work import Work
from openrpt.engine.average import MovingAverage
from openrpt.engine.checkpoint_record import TrainerState
from openrpt.engine.engine import Engine
from openrpt.engine.generation import Generated
from openrpt.types import Group


class Task(Protocol):
    @property
    def baseline(self) -> MovingAverage | None:
        """What the reward compares the policy with: the trainer moves it on after each update, and
        keeps it in checkpoints. None where no reward reads it."""

    def take(self, state: TrainerState) -> Iterator[tuple[int, Work]]:
        """(cursor after it, work) from `state.cursor` on, in keyed order, without end."""

    def grade(self, work: Work, generated: Sequence[Generated], step: int) -> list[Group]:
        """Rewards what was generated: one group a position."""

    def truth(self, work: Work) -> Sequence[Sequence[bytes]]:
        """A position: what truly stands there, as the rollout file shows it."""

    def development(self, engine: Engine, step: int) -> dict[str, float]:
        """Metrics on the development split after a step, `development/reasoning_accuracy` among
        them; empty where there is no such split."""
