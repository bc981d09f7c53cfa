"""One exact softmax over a shared prefix and own keys, forward and backward, without keeping it.

Each of the two sets of keys is attended to by itself, and the two outcomes are merged by their
log-sum-exp; the backward pass recomputes the scores from the normaliser of both (FlashAttention,
arXiv 2205.14135, Algorithm 4: with the whole softmax's normaliser and output, it gives the exact
gradients of either set). All rows' queries meet the shared keys in one product a head, which is
what makes the prefix cheap.

On a CPU the two sets run through torch's own FlashAttention kernel, in blocks that fit the cache:
2.5 times faster than whole products and a softmax between them. What it lacks, a soft cap and
other devices, runs as whole products; so does everything where torch has renamed the kernel, whose
operations are its private ones. Backward the kernel is run in float32 (`flash_gradients`).

Legend: B rows, n new tokens, L shared keys, M own keys, H heads, K key-value heads,
g = H / K, D head size. By row: [B, K, g·n, …]; by head: [1, K, B·g·n, …].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_FLASH_QUERIES = 16
"""Queries of a row and head from which on FlashAttention's blocks are used: with fewer, as in
decoding, they are mostly empty, and whole products are faster."""


@cache
def flash_kernel() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Returns torch's own FlashAttention on a CPU, (forward, backward); None where this torch has
    none of that name."""
    name = "_scaled_dot_product_flash_attention_for_cpu"
    try:
        return getattr(torch.ops.aten, name), getattr(torch.ops.aten, f"{name}_backward")
    except AttributeError:
        return None


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
        output, normaliser = _attend(rows, key, value, own_mask, scaling, softcap)  # [B, K, g·n]
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
        whole = _Whole(grad=grad_rows, output=output_rows, normaliser=normaliser)
        grad_query, grad_key, grad_value = _gradients(
            rows, key, value, ctx.own_mask, whole, ctx.scaling, ctx.softcap
        )
        grad_shared: list[Tensor] = []
        if documents:
            of_queries = []
            for one in documents:
                part = one.of(rows)  # [b, K, g·n, D]
                found, grad_shared_key, grad_shared_value = _gradients(
                    _by_head(part),  # [1, K, b·g·n, D]
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
    output, normaliser = _attend(
        _by_head(part),  # [1, K, b·g·n, D]
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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Whole:
    """The outcome of the softmax over both sets of keys, by row or by head."""

    grad: Tensor  # [X, K, q, D] of the output
    output: Tensor  # [X, K, q, D]
    normaliser: Tensor  # [X, K, q]

    def of(self, document: SharedKeys) -> "_Whole":
        return _Whole(
            grad=document.of(self.grad),
            output=document.of(self.output),
            normaliser=document.of(self.normaliser),
        )

    def by_head(self) -> "_Whole":
        return _Whole(
            grad=_by_head(self.grad),
            output=_by_head(self.output),
            normaliser=_by_head(self.normaliser),
        )


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


def _attend(
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


def _gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: KeyMask,
    whole: _Whole,
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


def _flash_for(
    query: Tensor, softcap: float | None
) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    return flash_kernel() if softcap is None and query.device.type == "cpu" else None


def _scores(
    query: Tensor, key: Tensor, mask: KeyMask, scaling: float, softcap: float | None
) -> tuple[Tensor, Tensor | None]:
    """Returns the scores [X, K, q, k], −∞ where a key is not seen, and the soft cap's slope at
    each."""
    scores = (query * scaling) @ key.transpose(-1, -2)
    if scores.dtype != torch.float64:
        scores = scores.float()
    slope = None
    if softcap is not None:
        scores.div_(softcap).tanh_()
        slope = 1 - scores.square()
        scores.mul_(softcap)
    return scores.add_(mask.bias), slope


def _by_row(tensor: Tensor, kv_heads: int) -> Tensor:
    """Groups the query heads: [B, H, n, D] → [B, K, g·n, D]."""
    rows, _, _, size = tensor.shape
    return tensor.reshape(rows, kv_heads, -1, size)


def _by_head(tensor: Tensor) -> Tensor:
    """Joins the rows: [B, K, g·n, …] → [1, K, B·g·n, …]."""
    return tensor.transpose(0, 1).reshape(1, tensor.shape[1], -1, *tensor.shape[3:])


def _from_head(tensor: Tensor, like: Tensor) -> Tensor:
    """Parts the rows again: [1, K, B·g·n, …] → [B, K, g·n, …]; `like` has these B, K and g·n."""
    rows, kv_heads, queries, _ = like.shape
    return tensor.reshape(kv_heads, rows, queries, *tensor.shape[3:]).transpose(0, 1)
