"""torch's own FlashAttention kernel for CPUs: attention in blocks that fit the cache.

It is 2.5 times faster than whole products and a softmax between them. Its operations are torch's
private ones; where they have another name, everything runs as whole products.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor


@cache
def flash_kernel() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Returns torch's own FlashAttention on a CPU, (forward, backward); None where this torch has
    none of that name."""
    name = "_scaled_dot_product_flash_attention_for_cpu"
    try:
        return getattr(torch.ops.aten, name), getattr(torch.ops.aten, f"{name}_backward")
    except AttributeError:
        return None


def flash_gradients(
    backward: Callable[..., Any],
    grad: Tensor,
    tensors: tuple[Tensor, Tensor, Tensor, Tensor],  # query, key, value and output
    normaliser: Tensor,
    *,
    bias: Tensor | None,
    causal: bool,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns FlashAttention's gradients of (query, key, value) in their own precision.

    In bfloat16 torch's backward kernel is no faster than in float32, and ten times as slow with few
    queries and keys a row (21 rows of 23 new tokens: 20 ms in place of 2), so it is given float32.
    """
    dtype = torch.promote_types(grad.dtype, torch.float32)
    found = backward(
        grad.to(dtype),
        *(tensor.to(dtype) for tensor in tensors),
        normaliser,
        0.0,  # dropout
        causal,
        attn_mask=None if bias is None else bias.to(dtype),
        scale=scaling,
    )
    of_query, of_key, of_value = (part.to(grad.dtype) for part in found)
    return of_query, of_key, of_value
