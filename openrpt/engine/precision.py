"""Mixed precision: weights, gradients and optimizer in float32, matrix products in bfloat16.

`torch.autocast` decides which operations run in bfloat16; norms, rotary embeddings, residual sums
and softmax stay in float32. Its own copies of the weights last no longer than its context, and of
frozen weights it makes none that it keeps: decoding would round the whole model at every token. So
the linear layers are given copies that are made once and live as long as the weights stay as they
are, which torch counts: each change in place raises a tensor's version.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers.pytorch_utils import Conv1D

_CACHED_ELEMENTS = 128 * 576
"""Elements that a CPU's cache holds in both precisions (0.4 MB)."""


def _raise_versions(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Counts a step as a change of the parameters: torch's fused optimizers (2.13) do not."""
    for group in optimizer.param_groups:
        torch.autograd.graph.increment_version(group["params"])


register_optimizer_step_post_hook(_raise_versions)  # of every optimizer: whoever steps


@dataclass(frozen=True, kw_only=True, slots=True)
class _Copy:
    weight: Tensor
    version: int
    rounded: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class RoundedWeights:
    """Copies of a model's matrices in the precision of its products."""

    dtype: torch.dtype
    _copies: dict[int, _Copy] = field(default_factory=dict)  # by the id of the weight

    def of(self, weight: Tensor) -> Tensor:
        """Returns the copy of a weight as it is now, without gradient."""
        known = self._copies.get(id(weight))
        if known is None or known.version != weight._version:
            rounded = weight.detach().to(self.dtype)
            known = _Copy(weight=weight, version=weight._version, rounded=rounded)
            self._copies[id(weight)] = known
        return known.rounded

    def run(self, module: nn.Module, inputs: dict[str, Any]) -> Any:
        """Calls the module with the copies in its linear layers; their gradients go to the
        weights."""
        copies: dict[str, Tensor] = {}
        for name, weight in _matrices(module):
            rounded = self.of(weight)
            if torch.is_grad_enabled() and weight.requires_grad:
                rounded = _StandIn.apply(weight, rounded)  # type: ignore[no-untyped-call]
            copies[name] = rounded
        return functional_call(module, copies, (), inputs)


def _matrices(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields the weights of all linear layers, by name."""
    for name, inner in module.named_modules():
        if isinstance(inner, nn.Linear | Conv1D):
            yield f"{name}.weight", inner.weight


class _StandIn(torch.autograd.Function):
    """A copy that stands for its weight, and hands its gradient on to it: added in place where the
    weight has one already (see `head` on what that means for several processes)."""

    @staticmethod
    def forward(ctx, weight, rounded):  # type: ignore[override]
        ctx.weight = weight
        return rounded.view_as(rounded)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        if ctx.weight.grad is None:
            return grad.to(ctx.weight.dtype), None
        add_rounded(ctx.weight.grad, grad)
        return None, None


def add_rounded(total: Tensor, part: Tensor) -> None:
    """Adds part to total, both [m, n], which is more precise.

    On a CPU torch turns the whole of it into the other's precision first: some rows at a time it
    stays in the cache, and takes a half to a third of the time.
    """
    rows = max(1, _CACHED_ELEMENTS // total.shape[1]) if total.device.type == "cpu" else len(total)
    for into, block in zip(total.split(rows), part.split(rows), strict=True):
        into.add_(block)
