"""An engine around another, which does all as that one does: a base for those that do one thing
otherwise."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.engine.branches import Branch, CompletionLoss, Passage, PrefixLoss
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine
from openrpt.engine.generation import STANDARD_TOP, Generated
from openrpt.engine.model import Model, Weights
from openrpt.engine.standard import Standard


@dataclass(frozen=True, kw_only=True, eq=False)
class Around:
    """An engine around another: see `openrpt.engine.engine.Engine`."""

    engine: Engine

    @property
    def model(self) -> Model:
        """The engine's model."""
        return self.engine.model

    @property
    def exact_draws(self) -> bool:
        """Whether the engine's tokens are drawn by their keys."""
        return self.engine.exact_draws

    @property
    def version(self) -> int:
        """How often weights were loaded."""
        return self.engine.version

    def load(self, weights: Weights) -> None:
        """Copies weights over the model's: `Sampler.load`."""
        self.engine.load(weights)

    def generate_each(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> Iterator[list[Generated]]:
        """Yields what the engine generates: `Sampler.generate_each`."""
        return self.engine.generate_each(requests, layout, sampling)

    def states(
        self, sequences: Sequence[Sequence[int]], layers: Sequence[int] = (-1,)
    ) -> list[Tensor]:
        """Returns the engine's states: `Engine.states`."""
        return self.engine.states(sequences, layers)

    def standard(
        self,
        prefix_ids: Sequence[int],
        lengths: Sequence[int],
        *,
        k: int = STANDARD_TOP,
        delimiter_ids: Collection[int] = (),
    ) -> Standard:
        """Returns standard prediction: `Engine.standard`."""
        return self.engine.standard(prefix_ids, lengths, k=k, delimiter_ids=delimiter_ids)

    def branch_states(
        self, prefix_ids: Sequence[int], branches: Sequence[Branch]
    ) -> list[list[Tensor]]:
        """Returns the states of the branches: `Engine.branch_states`."""
        return self.engine.branch_states(prefix_ids, branches)

    def accumulate_each(
        self, passages: Sequence[Passage], *, microbatch_tokens: int = 1024
    ) -> None:
        """Adds the gradient of all passages: `Engine.accumulate_each`."""
        self.engine.accumulate_each(passages, microbatch_tokens=microbatch_tokens)

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
        self.engine.accumulate_gradients(
            prefix_ids,
            branches,
            prefix_loss=prefix_loss,
            completion_loss=completion_loss,
            microbatch_tokens=microbatch_tokens,
        )
