"""The task that a trainer is given."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from openrpt.data.work import Work
from openrpt.engine.average import MovingAverage
from openrpt.engine.checkpoint_record import TrainerState
from openrpt.engine.engine import Engine
from openrpt.engine.generation import Generated
from openrpt.types import Group


class Task(Protocol):
    """The source of a trainer's positions, and the way what is generated there is rewarded."""

    @property
    def baseline(self) -> MovingAverage | None:
        """The average that the reward compares the policy with; None where no reward reads it.

        The trainer moves it on after each update, and keeps it in checkpoints.
        """

    def take(self, state: TrainerState) -> Iterator[tuple[int, Work]]:
        """Gives (cursor after it, work) from `state.cursor` on, in keyed order, without end.

        A pure function of the state, so that all workers are given the same.
        """

    def grade(self, work: Work, generated: Sequence[Generated], step: int) -> list[Group]:
        """Rewards what was generated at a work's positions: one group each, in their order.

        Raises UserError where a reward fails.
        """

    def follow(self, state: TrainerState, groups: Sequence[Group]) -> dict[str, float]:
        """Moves on what of the state says which documents come next, by a step's whole groups.

        Values are replaced, not changed: a step that fails leaves those before it. Returns the
        metrics of it: of the step that was.
        """

    def truth(self, work: Work) -> Sequence[Sequence[bytes]]:
        """Returns what truly stands at each position, token by token, as the rollout file shows
        it."""

    def development(self, engine: Engine, step: int) -> dict[str, float]:
        """Measures the policy on the development split after a step.

        The metrics, `development/reasoning_accuracy` among them; empty where there is no such
        split.
        """
