"""An exponential moving average of the policy: what it has been lately, as a model that is read.

`torch.optim.swa_utils.AveragedModel` averages in the model's own precision, and copies the weights
that are not trained; where the model is float32 or wider both give the same bits (tests).
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openrpt.engine.loading import freeze
from openrpt.engine.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class MovingAverage:
    """A moving average of a policy: φ ← decay · φ + (1 − decay) · θ after each step, from φ = θ
    before the first.

    With LoRA the adapters are averaged; weights that are not trained are shared with the policy.
    """

    policy: Model
    """The frozen model whose weights are the average, rounded to its precision."""
    weights: dict[str, Tensor]
    """The average of each trained parameter, in float32 or wider: in bfloat16 a step's change
    would be rounded away. The model's own tensors where that is their precision."""
    decay: float

    @classmethod
    def of(cls, policy: Model, decay: float) -> "MovingAverage":
        """Returns the average that begins as the policy itself."""
        shared = {id(p): p for p in policy.network.parameters() if not p.requires_grad}
        network = copy.deepcopy(policy.network, shared)
        own = freeze(replace(policy, network=network))
        copies = dict(network.named_parameters())
        weights = {name: _wide(copies[name].detach()) for name in policy.trained()}
        return cls(policy=own, weights=weights, decay=decay)

    @torch.no_grad()
    def update(self, policy: Model) -> None:
        """Moves the average towards the policy by one step."""
        for name, parameter in policy.trained().items():
            average = self.weights[name]
            average.lerp_(parameter.to(average.dtype), 1 - self.decay)
        self._round()

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Puts what a checkpoint kept in place of the average so far."""
        for name, average in self.weights.items():
            average.copy_(weights[name])
        self._round()

    def _round(self) -> None:
        own = dict(self.policy.network.named_parameters())
        for name, average in self.weights.items():
            own[name].copy_(average)


def _wide(tensor: Tensor) -> Tensor:
    """Returns the tensor in float32 or wider: the same tensor where it is that already."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
