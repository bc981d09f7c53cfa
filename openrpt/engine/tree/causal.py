"""Plain causal attention in bfloat16 on a CPU, whose backward pass is made in float32.

torch's own runs in bfloat16 both ways, and backward that is 3 to 15 times as slow for short texts
(`openrpt.engine.tree.flash.flash_gradients`).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from openrpt.engine.tree.flash import flash_gradients, flash_kernel


def causal_attention(query: Tensor, key: Tensor, value: Tensor, *, scaling: float) -> Tensor:
    """Attends causally: query [B, H, n, D], key and value [B, K, n, D] → [B, H, n, D]."""
    kernel = flash_kernel()
    if kernel is None or query.dtype != torch.bfloat16 or query.device.type != "cpu":
        return F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=True
        )
    groups = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    return _CausalAttention.apply(query, key, value, scaling, kernel)  # type: ignore[no-untyped-call,no-any-return]


class _CausalAttention(torch.autograd.Function):
    """Attention of as many key-value heads as query heads: [B, H, n, D] each."""

    @staticmethod
    def forward(ctx: Any, query, key, value, scaling, kernel):  # type: ignore[no-untyped-def, override]
        forward, ctx.kernel = kernel
        output, normaliser = forward(query, key, value, 0.0, True, scale=scaling)
        ctx.save_for_backward(query, key, value, output, normaliser)
        ctx.scaling = scaling
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad):  # type: ignore[no-untyped-def, override]
        *tensors, normaliser = ctx.saved_tensors
        found = flash_gradients(
            ctx.kernel,
            grad,
            tuple(tensors),
            normaliser,
            bias=None,
            causal=True,
            scaling=ctx.scaling,
        )
        return *found, None, None
