"""What a pass need not keep for its backward pass: outputs of norms and activation functions, which
cost little to compute again from what is kept anyway.

Of 11,900 numbers that a layer of SmolLM2 keeps a token in float32, 2,700 are such outputs.
"""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from openrpt.engine.model import Model


@dataclass(kw_only=True, eq=False)
class _Output:
    """The output of a module, to be computed again: once, however often it is read."""

    policy: Model
    module: nn.Module
    inputs: tuple[Any, ...]
    readers: int = 0
    """Those that will still read it."""
    value: Tensor | None = None

    def read(self) -> Tensor:
        """Returns the output, and keeps it for those that are still to come."""
        value = self.value
        if value is None:
            with torch.no_grad(), self.policy.autocast():
                value = self.module.forward(*self.inputs)  # not a call: no hooks
        self.readers -= 1
        self.value = value if self.readers > 0 else None
        return value


@dataclass(frozen=True, kw_only=True, eq=False)
class _Kept:
    """An output in the shape in which an operation reads it."""

    output: _Output
    shape: torch.Size


@contextmanager
def recomputed_outputs(policy: Model) -> Iterator[None]:
    """Lets the passes of the backbone inside keep no outputs of norms and activation functions, to
    the same gradients."""
    outputs: dict[int, tuple[weakref.ref[Tensor], _Output]] = {}  # by the id of a living tensor

    def remember(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        key = id(output)
        alive = weakref.ref(output, lambda _: outputs.pop(key, None))
        outputs[key] = alive, _Output(policy=policy, module=module, inputs=inputs)

    def pack(tensor: Tensor) -> Tensor | _Kept:
        whole = tensor if tensor._base is None else tensor._base  # a product reads it as [N, d]
        alive, output = outputs.get(id(whole), (None, None))
        if alive is None or output is None or alive() is not whole:
            return tensor.detach()  # itself, it could be held by what it holds
        if tensor.numel() != whole.numel() or not tensor.is_contiguous():
            return tensor.detach()
        output.readers += 1
        return _Kept(output=output, shape=tensor.shape)

    def unpack(kept: Tensor | _Kept) -> Tensor:
        return kept if isinstance(kept, Tensor) else kept.output.read().view(kept.shape)

    with ExitStack() as hooks:
        for module in _cheap_modules(policy.backbone):
            hooks.enter_context(module.register_forward_hook(remember))
        hooks.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, unpack))
        yield


def _cheap_modules(backbone: nn.Module) -> Iterator[nn.Module]:
    for module in backbone.modules():
        if isinstance(module, _activations()) or type(module).__name__.endswith("Norm"):
            yield module


@cache
def _activations() -> tuple[type, ...]:
    """Returns the classes of transformers' activation functions."""
    from transformers.activations import ACT2CLS

    classes: list[Any] = list(ACT2CLS.values())  # or (class, its arguments)
    return tuple({one[0] if isinstance(one, tuple) else one for one in classes})
