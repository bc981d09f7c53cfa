"""One exact softmax over a shared prefix and own keys, forward and backward, without keeping it.

Each of the two sets of keys is attended to by itself, and the two outcomes are merged by their
log-sum-exp; the backward pass recomputes the scores from the normaliser of both (FlashAttention,
arXiv 2205.14135, Algorithm 4: with the whole softmax's normaliser and output, it gives the exact
gradients of either set). All rows' queries meet the shared keys in one product a head, which is
what makes the prefix cheap.

Legend: B rows, n new tokens, L shared keys, M own keys, H heads, K key-value heads,
g = H / K, D head size. By row: [B, K, g·n, …]; by head: [1, K, B·g·n, …].
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from openrpt.engine.tree.key_set import (
    KeyMask,
    SharedKeys,
    Whole,
    attend,
    attend_gradients,
    by_head,
)


def branch_attention(
    query: Tensor,  # [B, H, n, D]
    key: Tensor,  # [B, K, M, D] own keys, the new ones among them
    value: Tensor,
    own_mask: KeyMask,  # every query sees itself
    *,
    documents: Sequence[SharedKeys],  # each row belongs to one, where there are any
    scaling: float,
    softcap: float | None,
) -> Tensor:
    """Attends to own keys and those of the row's document in one softmax; returns [B, H, n, D].
    Float32 reductions, float64 for float64."""
    shared = [tensor for one in documents for tensor in (one.key, one.value)]
    return _BranchAttention.apply(  # type: ignore[no-untyped-call]
        query, key, value, own_mask, documents, scaling, softcap, *shared
    )


class _BranchAttention(torch.autograd.Function):
    """The attention of `branch_attention`, with its own backward pass. The documents' keys and
    values come last, for autograd to see them."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        own_mask: KeyMask,
        documents: Sequence[SharedKeys],
        scaling: float,
        softcap: float | None,
        *shared: Tensor,
    ) -> Tensor:
        rows = _by_row(query, key.shape[1])  # [B, K, g·n, D]
        output, normaliser = attend(rows, key, value, own_mask, scaling, softcap)  # [B, K, g·n]
        if documents:
            found = [_attend_shared(rows, one, scaling, softcap) for one in documents]
            of_shared, of_shared_normaliser = (
                _of_all_rows(parts, documents, like)
                for parts, like in zip(zip(*found, strict=True), (output, normaliser), strict=True)
            )
            output, normaliser = _merged(output, normaliser, of_shared, of_shared_normaliser)
        # In memory by token, as the layer's next product reads it: both save the same tensor.
        by_token = output.reshape(query.shape).transpose(1, 2).contiguous()  # [B, n, H, D]
        output = by_token.transpose(1, 2)
        ctx.save_for_backward(rows, key, value, normaliser, output, *shared)
        ctx.own_mask, ctx.seen = own_mask, [(one.rows, one.mask) for one in documents]
        ctx.scaling, ctx.softcap = scaling, softcap
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, key, value, normaliser, output, *shared = ctx.saved_tensors
        documents = [
            SharedKeys(rows=of, key=shared_key, value=shared_value, mask=mask)
            for (of, mask), shared_key, shared_value in zip(
                ctx.seen, shared[::2], shared[1::2], strict=True
            )
        ]
        grad_rows, output_rows = (_by_row(each, key.shape[1]) for each in (grad, output))
        whole = Whole(grad=grad_rows, output=output_rows, normaliser=normaliser)
        grad_query, grad_key, grad_value = attend_gradients(
            rows, key, value, ctx.own_mask, whole, ctx.scaling, ctx.softcap
        )
        grad_shared: list[Tensor] = []
        if documents:
            of_queries = []
            for one in documents:
                part = one.of(rows)  # [b, K, g·n, D]
                found, grad_shared_key, grad_shared_value = attend_gradients(
                    by_head(part),  # [1, K, b·g·n, D]
                    one.key[None],  # [1, K, L, D]
                    one.value[None],
                    one.mask.by_head(),
                    whole.of(one).by_head(),
                    ctx.scaling,
                    ctx.softcap,
                )
                of_queries.append(_from_head(found, part))
                grad_shared += [grad_shared_key[0], grad_shared_value[0]]  # [K, L, D] each
            grad_query = grad_query + _of_all_rows(of_queries, documents, grad_query)
        # In between stand the masks, the documents, scaling and soft cap.
        none = (None, None, None, None)
        return grad_query.reshape(grad.shape), grad_key, grad_value, *none, *grad_shared


def _attend_shared(
    rows: Tensor, one: SharedKeys, scaling: float, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """Attends to a document's keys: returns its rows' output [b, K, g·n, D] and log-sum-exp
    [b, K, g·n]."""
    part = one.of(rows)  # [b, K, g·n, D]
    output, normaliser = attend(
        by_head(part),  # [1, K, b·g·n, D]
        one.key[None],  # [1, K, L, D]
        one.value[None],
        one.mask.by_head(),
        scaling,
        softcap,
    )
    return _from_head(output, part), _from_head(normaliser, part)


def _of_all_rows(parts: Sequence[Tensor], documents: Sequence[SharedKeys], like: Tensor) -> Tensor:
    """Puts what was found for each document's rows [b, …] where these stand: [B, …], of which
    `like` has the shape."""
    if documents[0].rows is None:
        return parts[0]
    found = torch.empty_like(like)
    for part, one in zip(parts, documents, strict=True):
        found[one.rows] = part
    return found


def _merged(
    of_own: Tensor, own: Tensor, of_shared: Tensor, shared: Tensor
) -> tuple[Tensor, Tensor]:
    """Merges the outcomes over both sets of keys [B, K, q, D] by their log-sum-exps [B, K, q];
    returns the whole softmax's."""
    normaliser = torch.logaddexp(own, shared)
    output = of_own * _weight(own, normaliser, of_own)
    return output.addcmul_(of_shared, _weight(shared, normaliser, output)), normaliser


def _weight(part: Tensor, normaliser: Tensor, like: Tensor) -> Tensor:
    """Returns the weight [X, K, q, 1] of one set of keys in the whole softmax."""
    return (part - normaliser).exp()[..., None].to(like.dtype)


def _by_row(tensor: Tensor, kv_heads: int) -> Tensor:
    """Groups the query heads: [B, H, n, D] → [B, K, g·n, D]."""
    rows, _, _, size = tensor.shape
    return tensor.reshape(rows, kv_heads, -1, size)


def _from_head(tensor: Tensor, like: Tensor) -> Tensor:
    """Parts the rows again: [1, K, B·g·n, …] → [B, K, g·n, …]; `like` has these B, K and g·n."""
    rows, kv_heads, queries, _ = like.shape
    return tensor.reshape(kv_heads, rows, queries, *tensor.shape[3:]).transpose(0, 1)
