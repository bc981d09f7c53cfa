"""The gradient of the language-model head: at once where it is alone, else of many rows together.

The head is the largest matrix of a small model. A product with few rows takes as long to write its
gradient [V, d] as to compute it, so rows wait for one another (`Model.head_rows_together`).

For one process: what waited is added to the weight's `.grad` behind or inside a backward pass and
autograd is handed nothing for it, so no hook of that parameter runs: neither
DistributedDataParallel nor FSDP sees this gradient. Sum `.grad` over the processes once the
backward passes are done.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from openrpt.engine.head import CHUNK_ELEMENTS, Head
from openrpt.engine.precision import add_rounded


@dataclass(kw_only=True, eq=False)
class WaitingRows:
    """Rows of logits' gradients that wait for one product with the states behind them, which is
    added to the weight's `.grad`."""

    weight: Tensor  # [V, d]
    _gradients: list[Tensor] = field(default_factory=list)  # [n, V] each
    _states: list[Tensor] = field(default_factory=list)  # [n, d] each

    def add(self, gradients: Tensor, states: Tensor) -> None:
        """Lets rows wait, [n, V] and [n, d]; those that wait go before where all would be more
        than CHUNK_ELEMENTS."""
        if sum(map(len, self._gradients)) + len(gradients) > CHUNK_ELEMENTS // len(self.weight):
            self.send()
        self._gradients.append(gradients)
        self._states.append(states)

    def send(self) -> None:
        """Adds the gradient of all that waits."""
        if not self._gradients:
            return
        gradients, states = torch.cat(self._gradients), torch.cat(self._states)
        self._gradients.clear()
        self._states.clear()
        self.weight.grad = _added(self.weight.grad, gradients, states, self.weight.dtype)


class HeadGradient:
    """The gradients of hidden states and the head's parameters, a chunk of rows at a time.

    Where rows wait for one another, `weight` stays None: the gradient of the losses' own sum is
    theirs, unscaled.
    """

    def __init__(self, hidden: Tensor, head: Head, needs_weight: bool) -> None:
        weight, bias = head.weight, head.bias
        self.inputs, self.matrix, self.needs_weight = hidden, head.matrix, needs_weight
        self.dtype = weight.dtype
        self.hidden = torch.empty_like(hidden)
        self.weight: Tensor | None = None
        self.waiting = head.waiting if needs_weight else None
        self.bias = torch.zeros_like(bias) if bias is not None and needs_weight else None

    def add(self, rows: slice, grad_logits: Tensor) -> None:
        """Adds the gradients that follow from those of the rows' logits: [n, V], which may be kept
        and must stay as they are."""
        grad, inputs = grad_logits.to(self.matrix.dtype), self.inputs[rows].to(self.matrix.dtype)
        self.hidden[rows] = (grad @ self.matrix).to(self.hidden.dtype)
        if self.waiting is not None:
            self.waiting.add(grad, inputs)
        elif self.needs_weight:
            self.weight = _added(self.weight, grad, inputs, self.dtype)
        if self.bias is not None:
            self.bias += grad_logits.sum(0)


def _added(total: Tensor | None, gradients: Tensor, states: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns total [V, d], of dtype, with the product of gradients [n, V] and states [n, d] added
    in place; the product alone where there is no total yet."""
    if total is None:
        return (gradients.T @ states).to(dtype)
    if total.dtype == gradients.dtype:
        return total.addmm_(gradients.T, states)
    add_rounded(total, gradients.T @ states)
    return total
