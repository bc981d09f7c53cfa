"""What a pass saves for its backward pass: no product or activation function of tensors that are
saved anyway.

`down(act(gate) * up)` would save gate, act(gate), up and their product, and a norm what it
normalises, what comes of that, and that times its weight. Here the graph's own nodes say how such a
tensor was made, and of what: it is computed again when the backward pass asks for it, by the same
operation on the same tensors, so to the same bits. SmolLM2 saves half as much. Nothing is known of
a family or of its modules; what was made otherwise is saved as ever.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_OPERATIONS: dict[str, Callable[[Any], Tensor]] = {
    "MulBackward0": lambda node: node._saved_self * node._saved_other,
    "SiluBackward0": lambda node: F.silu(node._saved_self),
    "GeluBackward0": lambda node: F.gelu(node._saved_self, approximate=node._saved_approximate),
}
"""Operations that take little to run again, by the names of their nodes."""
_ROUNDING = "ToCopyBackward0"
"""The node of a change of precision, which knows the one before it and no tensor."""


@dataclass(kw_only=True, eq=False)
class _Output:
    """What a node gave, to be computed again: once, however many read it."""

    node: Any
    readers: int = 0
    """Those that will still read it."""
    value: Tensor | None = None

    def read(self) -> Tensor:
        """Returns the output, and keeps it for those that are still to come."""
        value = self.value
        if value is None:
            with torch.no_grad():
                value = _OPERATIONS[self.node.name()](self.node)
        self.readers -= 1
        self.value = value if self.readers > 0 else None
        return value


@dataclass(frozen=True, kw_only=True, eq=False)
class _Recipe:
    """An output in the precision and shape in which an operation reads it."""

    output: _Output
    dtype: torch.dtype
    shape: torch.Size

    def tensor(self) -> Tensor:
        """Returns the tensor, made anew."""
        return self.output.read().to(self.dtype).view(self.shape)


@contextmanager
def saved_sparingly() -> Iterator[None]:
    """Lets the operations inside save nothing that is quickly made of what others save."""
    outputs: dict[Any, _Output] = {}  # by node

    def pack(tensor: Tensor) -> Tensor | _Recipe:
        node = _maker(tensor)
        if node is None:
            return tensor.detach()  # itself, it could be held by what it holds
        if node not in outputs:
            outputs[node] = _Output(node=node)
            for source, _ in node.next_functions:  # to be read by this one, too
                if source in outputs:
                    outputs[source].readers += 1
        outputs[node].readers += 1
        return _Recipe(output=outputs[node], dtype=tensor.dtype, shape=tensor.shape)

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, _unpacked):
            yield
    finally:
        # A node keeps `pack`, and so itself by way of `outputs`: without a backward pass, for ever.
        outputs.clear()


def _unpacked(saved: Tensor | _Recipe) -> Tensor:
    return saved if isinstance(saved, Tensor) else saved.tensor()


def _maker(tensor: Tensor) -> Any:
    """Returns the node that can make a tensor again, all of it and in its order; None where there
    is none."""
    whole = tensor if tensor._base is None else tensor._base  # a product reads [B, n, d] as [N, d]
    if tensor.numel() != whole.numel() or not (tensor.is_contiguous() and whole.is_contiguous()):
        return None
    node: Any = whole.grad_fn
    if node is not None and node.name() == _ROUNDING:
        node = node.next_functions[0][0]
    if node is None or node.name() not in _OPERATIONS:
        return None
    # Where one factor has no gradient, the other was not saved.
    return node if all(source is not None for source, _ in node.next_functions) else None
