"""One exact softmax over a shared prefix and own keys, forward and backward, without keeping it.

The scores of a micro-batch over the prefix are by far the largest activation of a layer, and the
cheapest to compute again: the forward pass keeps their normaliser alone, and the backward pass
recomputes them (as FlashAttention does, arXiv 2205.14135, Algorithm 4). All rows' queries meet
the shared keys in one matrix product a head, which is what makes the prefix cheap.

Legend: B rows, n new tokens, L shared keys, M own keys, H heads, K key-value heads,
g = H / K, D head size. By row: [B, K, g·n, …]; by head: [K, B·g·n, …].
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def branch_attention(
    query: Tensor,  # [B, H, n, D]
    key: Tensor,  # [B, K, M, D] own keys, the new ones among them
    value: Tensor,
    own_mask: Tensor,  # [B, n, M] True = attend; every query attends to itself
    *,
    shared: tuple[Tensor, Tensor] | None,  # keys, values [K, L, D]
    shared_mask: Tensor | None,  # [B, n, L]
    scaling: float,
    softcap: float | None,
) -> Tensor:
    """[B, H, n, D]; float32 reductions, float64 for float64."""
    shared_key, shared_value = shared or (None, None)
    return _BranchAttention.apply(  # type: ignore[no-untyped-call]
        *(query, key, value, shared_key, shared_value),
        *(own_mask, shared_mask, scaling, softcap),
    )


class _BranchAttention(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        shared_key: Tensor | None,
        shared_value: Tensor | None,
        own_mask: Tensor,
        shared_mask: Tensor | None,
        scaling: float,
        softcap: float | None,
    ) -> Tensor:
        rows = _by_row(query * scaling, key.shape[1])
        own = _scores(rows, key, own_mask[:, None, None], softcap)
        normaliser = own.logsumexp(-1)  # [B, K, g·n]
        shared = None
        if shared_key is not None and shared_value is not None and shared_mask is not None:
            shared = _scores(_by_head(rows), shared_key, shared_mask[None, :, None], softcap)
            of_shared = shared.logsumexp(-1, keepdim=True)
            normaliser = torch.logaddexp(normaliser, _from_head(of_shared, rows)[..., 0])
        output = _weights(own, normaliser).to(value.dtype) @ value
        if shared is not None and shared_value is not None:
            weights = _weights(shared, _by_head(normaliser[..., None])[..., 0])
            output += _from_head(weights.to(value.dtype) @ shared_value, rows)
        output = output.view(query.shape)
        tensors = (query, key, value, shared_key, shared_value, own_mask, shared_mask)
        ctx.save_for_backward(*tensors, normaliser, output)
        ctx.scaling, ctx.softcap = scaling, softcap
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, shared_key, shared_value, own_mask, shared_mask, *rest = (
            ctx.saved_tensors
        )
        normaliser, output = rest
        rows = _by_row(query * ctx.scaling, key.shape[1])
        grad_rows = _by_row(grad, key.shape[1])
        through = _by_row((grad * output).sum(-1, keepdim=True), key.shape[1])  # Σ weight · grad
        own = _gradients(
            rows, key, value, own_mask[:, None, None], normaliser, grad_rows, through, ctx.softcap
        )
        grad_query, grad_key, grad_value = own
        grad_shared_key = grad_shared_value = None
        if shared_key is not None:
            found, grad_shared_key, grad_shared_value = _gradients(
                *(_by_head(rows), shared_key, shared_value, shared_mask[None, :, None]),
                _by_head(normaliser[..., None])[..., 0],
                *(_by_head(grad_rows), _by_head(through), ctx.softcap),
            )
            grad_query += _from_head(found, rows)
        grad_query = (grad_query * ctx.scaling).view(query.shape)
        own_gradients = (grad_query, grad_key, grad_value)
        return (*own_gradients, grad_shared_key, grad_shared_value, None, None, None, None)


def _gradients(
    query: Tensor,  # [X, q, D] scaled; X stands for (B, K) by row, for K by head
    key: Tensor,  # [X, k, D]
    value: Tensor,
    mask: Tensor,
    normaliser: Tensor,  # [X, q]
    grad: Tensor,  # [X, q, D] of the output
    through: Tensor,  # [X, q, 1]
    softcap: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of (scaled query, key, value) through one of the two sets of keys."""
    scores = _scores(query, key, mask, softcap)
    slope = None
    if softcap is not None:  # a masked score is −∞, and its slope 0
        slope = scores.clamp(min=-softcap).div_(softcap).square_().neg_().add_(1)
    weights = _weights(scores, normaliser)
    grad_value = weights.to(grad.dtype).transpose(-1, -2) @ grad
    grad_scores = (grad @ value.transpose(-1, -2)).to(weights.dtype)
    grad_scores.sub_(through).mul_(weights)
    if slope is not None:
        grad_scores.mul_(slope)
    grad_scores = grad_scores.to(query.dtype)
    return grad_scores @ key, grad_scores.transpose(-1, -2) @ query, grad_value


def _scores(query: Tensor, key: Tensor, mask: Tensor, softcap: float | None) -> Tensor:
    """query [X, q, D] scaled, key [X, k, D] → [X, q, k]. mask: broadcasts over the heads of a
    key-value head, by row [B, 1, 1, n, k], by head [1, B, 1, n, k]."""
    scores = query @ key.transpose(-1, -2)
    if scores.dtype != torch.float64:
        scores = scores.float()
    if softcap is not None:
        scores.div_(softcap).tanh_().mul_(softcap)
    *_, new, keys = mask.shape
    leading = query.shape[:2] if query.ndim == 4 else (query.shape[0], mask.shape[1])
    scores.view(*leading, -1, new, keys).masked_fill_(~mask, float("-inf"))
    return scores


def _weights(scores: Tensor, normaliser: Tensor) -> Tensor:
    """The softmax, in place of the scores."""
    return scores.sub_(normaliser[..., None]).exp_()


def _by_row(tensor: Tensor, kv_heads: int) -> Tensor:
    """[B, H, n, D] → [B, K, g·n, D]"""
    rows, _, _, size = tensor.shape
    return tensor.reshape(rows, kv_heads, -1, size)


def _by_head(tensor: Tensor) -> Tensor:
    """[B, K, g·n, D] → [K, B·g·n, D]"""
    return tensor.transpose(0, 1).reshape(tensor.shape[1], -1, tensor.shape[3])


def _from_head(tensor: Tensor, like: Tensor) -> Tensor:
    """[K, B·g·n, D] → [B, K, g·n, D]; `like` has these B, K and g·n."""
    rows, kv_heads, queries, _ = like.shape
    return tensor.view(kv_heads, rows, queries, -1).transpose(0, 1)
