"""Attention to one set of keys: its output with the log-sum-exp of its scores, by which several
sets are merged, and its gradients.

On a CPU it runs through FlashAttention (`flash.py`). What that lacks, a soft cap and other devices,
runs as whole products.

Legend: B rows, n new tokens, L shared keys, H heads, K key-value heads, g = H / K, D head size;
q queries and k keys of X rows: by row X = B and q = g·n, by head X = 1 and q = B·g·n.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from openrpt.engine.tree.flash import flash_gradients, flash_kernel

_FLASH_QUERIES = 16
"""Queries of a row and head from which on FlashAttention's blocks are used: with fewer, as in
decoding, they are mostly empty, and whole products are faster."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyMask:
    """A mask that says which of a set of keys each query sees; made once for all the layers of a
    pass."""

    bias: Tensor  # [B, 1, g·n, k] added to the scores: 0, or −∞ where the key is not seen
    blind: Tensor  # [B, 1, g·n] True where a query sees none of these keys

    @classmethod
    def of(cls, visible: Tensor, groups: int, dtype: torch.dtype) -> "KeyMask":
        """Returns the mask for visible [B, n, k], True = attend; `groups` is g."""
        rows, _, keys = visible.shape
        bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
        bias.masked_fill_(~visible, float("-inf"))
        blind = ~visible.any(-1)
        return cls(
            bias=bias[:, None].repeat(1, groups, 1, 1).view(rows, 1, -1, keys),
            blind=blind[:, None].repeat(1, groups, 1).view(rows, 1, -1),
        )

    def by_head(self) -> "KeyMask":
        """Returns the mask by head: [1, 1, B·g·n, k] and [1, 1, B·g·n]."""
        bias, blind = self.bias, self.blind
        return KeyMask(bias=bias.view(1, 1, -1, bias.shape[-1]), blind=blind.view(1, 1, -1))


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedKeys:
    """The keys of a document, and the rows that see them."""

    rows: Tensor | None  # [b] of the B rows; None = all of them
    key: Tensor  # [K, L, D]
    value: Tensor
    mask: KeyMask  # of these rows

    def of(self, tensor: Tensor) -> Tensor:
        """Returns the document's rows of [B, …]."""
        return tensor if self.rows is None else tensor[self.rows]


@dataclass(frozen=True, kw_only=True, eq=False)
class Whole:
    """The outcome of the softmax over all sets of keys, by row or by head."""

    grad: Tensor  # [X, K, q, D] of the output
    output: Tensor  # [X, K, q, D]
    normaliser: Tensor  # [X, K, q]

    def of(self, document: SharedKeys) -> "Whole":
        """Returns the outcome of the document's rows."""
        return Whole(
            grad=document.of(self.grad),
            output=document.of(self.output),
            normaliser=document.of(self.normaliser),
        )

    def by_head(self) -> "Whole":
        """Returns the outcome by head."""
        return Whole(
            grad=by_head(self.grad),
            output=by_head(self.output),
            normaliser=by_head(self.normaliser),
        )


def attend(
    query: Tensor,  # [X, K, q, D]; X stands for B by row, for 1 by head
    key: Tensor,  # [X, K, k, D]
    value: Tensor,
    mask: KeyMask,
    scaling: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Attends to one set of keys: returns the output [X, K, q, D] and its log-sum-exp [X, K, q]."""
    kernel = _flash_for(query, softcap)
    if kernel is not None and query.shape[2] >= _FLASH_QUERIES:
        output, normaliser = kernel[0](
            query, key, value, 0.0, False, attn_mask=mask.bias, scale=scaling
        )
        return output, normaliser.masked_fill(mask.blind, float("-inf"))
    scores, _ = _scores(query, key, mask, scaling, softcap)  # [X, K, q, k]
    limits = torch.finfo(scores.dtype)
    largest = scores.amax(-1, keepdim=True).clamp_min(limits.min)  # finite for the blind, too
    total = scores.sub_(largest).exp_().sum(-1, keepdim=True)  # [X, K, q, 1]
    weights = scores.div_(total.clamp_min(limits.tiny))
    return weights.to(value.dtype) @ value, (largest + total.log())[..., 0]


def attend_gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: KeyMask,
    whole: Whole,
    scaling: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of (query, key, value) through one set of keys."""
    grad = whole.grad
    kernel = _flash_for(query, softcap)
    if kernel is not None:
        return flash_gradients(
            kernel[1],
            grad,
            (query, key, value, whole.output),
            whole.normaliser,
            bias=mask.bias,
            causal=False,  # the mask says it
            scaling=scaling,
        )
    scores, slope = _scores(query, key, mask, scaling, softcap)  # [X, K, q, k]
    weights = scores.sub_(whole.normaliser[..., None]).exp_()
    grad_value = weights.to(grad.dtype).transpose(-1, -2) @ grad  # [X, K, k, D]
    through = (grad * whole.output).sum(-1, keepdim=True)  # [X, K, q, 1]
    grad_scores = (grad @ value.transpose(-1, -2)).to(weights.dtype)  # [X, K, q, k]
    grad_scores.sub_(through).mul_(weights)
    if slope is not None:
        grad_scores.mul_(slope)
    grad_scores = grad_scores.mul_(scaling).to(query.dtype)
    return grad_scores @ key, grad_scores.transpose(-1, -2) @ query, grad_value


def _flash_for(
    query: Tensor, softcap: float | None
) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    return flash_kernel() if softcap is None and query.device.type == "cpu" else None


def _scores(
    query: Tensor, key: Tensor, mask: KeyMask, scaling: float, softcap: float | None
) -> tuple[Tensor, Tensor | None]:
    """Returns the scores [X, K, q, k], −∞ where a key is not seen, and the soft cap's slope at
    each."""
    if query.dtype == torch.bfloat16:
        # On a CPU a second factor that is transposed is first put in order, key by key: with the
        # queries as that factor the same sums take half the time.
        by_key = key @ (query * scaling).transpose(-1, -2)  # [X, K, k, q]
        scores = torch.empty(query.shape[:-1] + key.shape[2:3], device=query.device)
        scores.copy_(by_key.transpose(-1, -2))
    else:
        scores = (query * scaling) @ key.transpose(-1, -2)
        if scores.dtype != torch.float64:
            scores = scores.float()
    slope = None
    if softcap is not None:
        scores.div_(softcap).tanh_()
        slope = 1 - scores.square()
        scores.mul_(softcap)
    return scores.add_(mask.bias), slope


def by_head(tensor: Tensor) -> Tensor:
    """Joins the rows: [B, K, g·n, …] → [1, K, B·g·n, …]."""
    return tensor.transpose(0, 1).reshape(1, tensor.shape[1], -1, *tensor.shape[3:])
