"""A term of the reward: a function `(groups, context) → [[float]]`, a number for each rollout of
each group; so it may read the group and the model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from openrpt.config.sections import Config
from openrpt.data.prompts import Layout
from openrpt.data.tokens import literal_bytes
from openrpt.data.work import Work
from openrpt.engine.engine import Engine
from openrpt.rl.grading import continuation_at
from openrpt.rl.rewards.matching import prediction_tokens
from openrpt.types import Group, Rollout


@dataclass(frozen=True, kw_only=True, eq=False)
class RewardContext:
    """The things that a term may read beside the groups of one document."""

    config: Config
    step: int
    work: Work
    token_bytes: Sequence[bytes]
    """The whole document's."""
    engine: Engine
    """The policy's engine."""
    layout: Layout
    baseline: Engine | None
    """The engine of the policy's moving average, for `information_gain`; None without that term."""

    def continuation(self, group: Group) -> Sequence[bytes]:
        """Returns the true tokens from the group's position on, as far as a prediction is
        compared."""
        return continuation_at(self.token_bytes, group.prompt.position.index)

    def prediction_tokens(self, rollout: Rollout) -> list[tuple[int, bytes]]:
        """Returns the tokens of a rollout's prediction, as `matching.prediction_tokens` gives
        them."""
        ids, literal = rollout.completion.token_ids, self.layout.literal
        pieces = [literal_bytes(self.engine.model.table, [i], literal) for i in ids]
        return prediction_tokens(pieces, rollout.prediction)


class RewardTerm(Protocol):
    """A function that grades a document's groups, already graded by prefix match:
    [groups][rollouts]."""

    def __call__(self, groups: Sequence[Group], context: RewardContext) -> list[list[float]]: ...


def each_rollout(
    groups: Sequence[Group], value: Callable[[Group, Rollout], float]
) -> list[list[float]]:
    """Returns the value of each rollout: [groups][rollouts]."""
    return [[value(group, rollout) for rollout in group.rollouts] for group in groups]


def rollout_place(group: Group, number: int) -> str:
    """Returns where a rollout stands, in words."""
    position = group.prompt.position
    return f"document {position.document_id}, position {position.index}, rollout {number}"
