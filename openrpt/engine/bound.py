"""The part that all engines have in common: the model that they are bound to."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrpt.engine.branches import Branch, CompletionLoss, Passage, PrefixLoss
from openrpt.engine.model import Model, Weights

if TYPE_CHECKING:
    from openrpt.engine.engine import Engine


@dataclass(kw_only=True, eq=False)
class BoundEngine(ABC):
    """An engine bound to its model."""

    model: Model
    start: "Engine | None" = None
    """The engine whose candidates seed the thought; None = the model's own."""
    version: int = 0
    """How often weights were loaded."""
    exact_draws: ClassVar[bool] = True

    def load(self, weights: Weights) -> None:
        """Copies weights over the model's: `Sampler.load`."""
        self.model.load(weights)
        self.version += 1

    def accumulate_gradients(
        self,
        prefix_ids: Sequence[int],
        branches: Sequence[Branch],
        *,
        prefix_loss: PrefixLoss | None = None,
        completion_loss: CompletionLoss | None = None,
        microbatch_tokens: int = 1024,
    ) -> None:
        """Adds the losses' gradient: `Engine.accumulate_gradients`."""
        passage = Passage(
            prefix_ids=prefix_ids,
            branches=branches,
            prefix_loss=prefix_loss,
            completion_loss=completion_loss,
        )
        self.accumulate_each([passage], microbatch_tokens=microbatch_tokens)

    @abstractmethod
    def accumulate_each(
        self, passages: Sequence[Passage], *, microbatch_tokens: int = 1024
    ) -> None:
        """Adds the gradient of all passages: `Engine.accumulate_each`."""
