"""The language-model head, computed only where it is read and in chunks.

A full [tokens × vocabulary] tensor of a step is never held: a chunk of logits lives as long as a
matrix product (`logprobs.py` keeps a few for a backward pass).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from openrpt.engine.head_gradient import WaitingRows

CHUNK_ELEMENTS = 1 << 25
"""Most logits held at once (134 MB in float32); fewer rows make the matrix product slower."""
_HEAD_COLUMNS = 512
"""Columns of the vocabulary that one product of the head gives on a CPU: a product with all of it
at once runs at two thirds of the rate."""
_ROUNDED_COLUMNS = 4096
"""The same of a product in bfloat16, which is turned into float32 as it comes: 504 rows take 52 ms
in place of 78."""
_CACHED_ROWS = 16
"""Rows of logits that are worked through at once on a CPU, at least."""
_CACHED_LOGITS = _CACHED_ROWS * 49_152
"""What a CPU's cache holds from one pass over them to the next (3 MB)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """A language-model head: `logits = softcap(hidden @ weight.T + bias)`, as the model's own
    computes them."""

    weight: Tensor  # [V, d]
    bias: Tensor | None  # [V]
    softcap: float | None
    rounded: Tensor | None = None
    """The weight in the precision of the products, where that is not its own."""
    waiting: "WaitingRows | None" = None
    """Where rows of its gradient wait for one another; None = each loss gives its own."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns the logits of hidden states: [N, d] → [N, V], float32 or wider."""
        logits: Tensor = _HeadProduct.apply(  # type: ignore[no-untyped-call]
            hidden, self.weight, self.matrix, self.waiting
        )
        if self.bias is not None:
            logits.add_(self.bias)
        if logits.dtype != torch.float64:
            logits = logits.float()
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits

    @property
    def matrix(self) -> Tensor:
        """What the products are made with [V, d]: the weight, or its copy."""
        return self.weight if self.rounded is None else self.rounded

    @property
    def chunk_rows(self) -> int:
        """Rows whose logits are held at once, at least 1."""
        return max(1, CHUNK_ELEMENTS // self.weight.shape[0])


def wide_product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Multiplies left [N, d] by right [d, V] into out [N, V], which may be more precise; on a CPU
    _HEAD_COLUMNS or _ROUNDED_COLUMNS at a time."""
    width = _ROUNDED_COLUMNS if left.dtype == torch.bfloat16 else _HEAD_COLUMNS
    if left.device.type != "cpu":
        width = right.shape[1]
    for part, columns in zip(right.split(width, dim=1), out.split(width, dim=1), strict=True):
        if out.dtype == left.dtype:
            torch.mm(left, part, out=columns)
        else:
            columns.copy_(left @ part)
    return out


class _HeadProduct(torch.autograd.Function):
    """The product hidden [N, d] @ matrix [V, d].T in the matrix's precision, given in the weight's,
    to which its gradient goes."""

    @staticmethod
    def forward(ctx, hidden, weight, matrix, waiting):  # type: ignore[override]
        left = hidden.to(matrix.dtype)
        ctx.save_for_backward(left, matrix)
        ctx.dtypes, ctx.waiting = (hidden.dtype, weight.dtype), waiting
        logits = left.new_empty(len(left), len(matrix), dtype=weight.dtype)
        return wide_product(left, matrix.T, logits)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        left, matrix = ctx.saved_tensors
        of_hidden, of_weight = ctx.dtypes
        needs_hidden, needs_weight, *_ = ctx.needs_input_grad
        grad = grad.to(matrix.dtype)
        grad_hidden = (grad @ matrix).to(of_hidden) if needs_hidden else None
        grad_weight = None
        if needs_weight and ctx.waiting is not None:
            ctx.waiting.add(grad, left)
        elif needs_weight:
            grad_weight = (grad.T @ left).to(of_weight)
        return grad_hidden, grad_weight, None, None


def in_cache(rows: Tensor, *, vocabulary: int | None = None) -> tuple[Tensor, ...]:
    """Returns blocks of rows of logits, or of what stands beside them [N, …]: all that is to be
    asked of a row is asked while a CPU's cache holds it. Elsewhere one block.

    With the `vocabulary` [V] of the logits as many rows as fit, else _CACHED_ROWS: where sums of
    blocks are added up, the blocks decide their last bit.
    """
    if rows.device.type != "cpu":
        return rows.split(max(len(rows), 1))
    fitting = _CACHED_LOGITS // vocabulary if vocabulary else 0
    return rows.split(max(_CACHED_ROWS, fitting))


def log_softmax_(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turns logits [n, V] into log p in place; returns log p, p and the normaliser [n, 1], for one
    exponential and one new tensor."""
    largest = logits.amax(-1, keepdim=True)  # [n, 1]
    p = logits.sub_(largest).exp()  # [n, V]
    total = p.sum(-1, keepdim=True)
    log_total = total.log()
    return logits.sub_(log_total), p.div_(total), largest + log_total


def softcap_slope(logits: Tensor, softcap: float | None) -> Tensor | None:
    """Returns d capped / d raw, from the capped logits; None without a soft cap."""
    return None if softcap is None else 1 - (logits / softcap).square()
