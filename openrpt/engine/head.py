"""The language-model head, computed only where it is read and in chunks.

A full [tokens × vocabulary] tensor of a step is never held: at most _KEPT_ELEMENTS logits live
from a forward pass to its backward pass, and a chunk of others as long as a matrix product.

For one process: `HeadGradient(in_place=True)` adds to the weight's `.grad` from inside a backward
pass and hands autograd nothing for it, so no hook of that parameter runs: neither
DistributedDataParallel nor FSDP sees this gradient. Sum `.grad` over the processes once the
backward passes are done, or leave `in_place` off.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from openrpt.engine.precision import add_rounded

CHUNK_ELEMENTS = 1 << 25
"""Most logits held at once (134 MB in float32); fewer rows make the matrix product slower."""
_KEPT_ELEMENTS = 1 << 25
"""Most logits that a forward pass keeps for its backward pass (134 MB in float32), all of them or
none; more are computed again, chunk by chunk."""
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
_TOP_COLUMNS = 64
"""Columns of the vocabulary that `top_k` takes for one at first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """A language-model head: `logits = softcap(hidden @ weight.T + bias)`, as the model's own
    computes them."""

    weight: Tensor  # [V, d]
    bias: Tensor | None  # [V]
    softcap: float | None
    rounded: Tensor | None = None
    """The weight in the precision of the products, where that is not its own."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns the logits of hidden states: [N, d] → [N, V], float32 or wider."""
        logits: Tensor = _HeadProduct.apply(hidden, self.weight, self.matrix)  # type: ignore[no-untyped-call]
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
    def forward(ctx, hidden, weight, matrix):  # type: ignore[override]
        left = hidden.to(matrix.dtype)
        ctx.save_for_backward(left, matrix)
        ctx.dtypes = hidden.dtype, weight.dtype
        logits = left.new_empty(len(left), len(matrix), dtype=weight.dtype)
        return wide_product(left, matrix.T, logits)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        left, matrix = ctx.saved_tensors
        of_hidden, of_weight = ctx.dtypes
        needs_hidden, needs_weight, _ = ctx.needs_input_grad
        grad = grad.to(matrix.dtype)
        grad_hidden = (grad @ matrix).to(of_hidden) if needs_hidden else None
        return grad_hidden, (grad.T @ left).to(of_weight) if needs_weight else None, None


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


def top_k(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Returns the k largest of each row of logits [N, V], the largest first: values and ids [N, k].

    Blocks of columns are ranked by their largest, and `topk` sees the k best blocks only, in which
    the k largest must lie: on a CPU a third of the time that it takes over a whole vocabulary.
    """
    blocks = logits.shape[1] // _TOP_COLUMNS
    if blocks <= k:
        values, ids = logits.topk(k, dim=-1)
        return values, ids
    whole = blocks * _TOP_COLUMNS
    largest = logits[:, :whole].unflatten(1, (blocks, _TOP_COLUMNS)).amax(-1)  # [N, blocks]
    chosen = largest.topk(k, dim=-1, sorted=False).indices  # [N, k]
    inside = torch.arange(_TOP_COLUMNS, device=logits.device)
    columns = (chosen[..., None] * _TOP_COLUMNS + inside).flatten(1)
    behind = torch.arange(whole, logits.shape[1], device=logits.device)  # no whole block
    columns = torch.cat([columns, behind.expand(len(logits), -1)], dim=1)  # [N, k·64 + rest]
    values, at = logits.gather(1, columns).topk(k, dim=-1)
    return values, columns.gather(1, at)


class _SelectedLogprobs(torch.autograd.Function):
    """The log-probability of chosen ids, and the entropy.

    Log-probabilities of the whole vocabulary are kept for the first backward pass where they are
    few, else computed again a chunk at a time.

    Legend: N places, d hidden size, V vocabulary, n rows of a chunk.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, ids, temperature, head):  # type: ignore[override]
        keeps = head.softcap is None and len(ids) * weight.shape[0] <= _KEPT_ELEMENTS
        logprobs, entropies, normalisers, kept = [], [], [], []
        # hidden [N, d] and ids [N], a chunk after the other: part [n, d], part_ids [n]
        parts = zip(hidden.split(head.chunk_rows), ids.split(head.chunk_rows), strict=True)
        for part, part_ids in parts:
            logits = head.logits(part)  # [n, V]
            # Some rows of it after the other become log p, in place.
            for block in in_cache(logits, vocabulary=logits.shape[1]):
                log_p, p, normaliser = log_softmax_(_scale(block, temperature))
                entropies.append(p.mul_(log_p).sum(-1).neg())
                normalisers.append(normaliser)
            logprobs.append(logits.gather(-1, part_ids[:, None])[:, 0])  # [n]
            if keeps:
                kept.append(logits)
        entropy = torch.cat(entropies)  # [N]
        ctx.save_for_backward(hidden, weight, bias, ids, torch.cat(normalisers), entropy)
        ctx.temperature, ctx.softcap, ctx.rounded = temperature, head.softcap, head.rounded
        ctx.keeps, ctx.kept = keeps, kept
        return torch.cat(logprobs), entropy

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_logprobs, grad_entropy):  # type: ignore[override]
        hidden, weight, bias, ids, normalisers, entropy = ctx.saved_tensors
        kept, ctx.kept = ctx.kept, []  # they become the gradient; another pass computes them again
        head = Head(weight=weight, bias=bias, softcap=ctx.softcap, rounded=ctx.rounded)
        gradient = HeadGradient(hidden, head, ctx.needs_input_grad[1], in_place=True)
        reads_entropy = bool(grad_entropy.any())
        for chunk, start in enumerate(range(0, len(ids), head.chunk_rows)):
            rows = slice(start, start + head.chunk_rows)
            slope = None
            if kept:
                log_p = kept[chunk]  # [n, V]
            else:
                logits = head.logits(hidden[rows])
                slope = softcap_slope(logits, ctx.softcap)  # [n, V]
                log_p = _scale(logits, ctx.temperature)
                if ctx.keeps:  # to the same bits as they were
                    for block in in_cache(log_p, vocabulary=log_p.shape[1]):
                        log_softmax_(block)
                else:
                    log_p.sub_(normalisers[rows])
            # log p becomes the logits' gradient block by block, rounded while the cache holds it.
            split = partial(in_cache, vocabulary=log_p.shape[1])
            blocks = split(log_p)
            grad, rounded = log_p, blocks
            if head.matrix.dtype != log_p.dtype:
                grad = torch.empty_like(log_p, dtype=head.matrix.dtype)
                rounded = split(grad)
            slopes = [None] * len(blocks) if slope is None else split(slope)
            # [n, 1] each
            columns = [t[rows, None] for t in (entropy, grad_logprobs, grad_entropy, ids)]
            parts = zip(rounded, blocks, slopes, *map(split, columns), strict=True)
            for out, block, of_cap, h, of_logprob, of_entropy, chosen in parts:
                _logit_gradient_(block, h, of_logprob, of_entropy if reads_entropy else None)
                block.scatter_add_(1, chosen, of_logprob.to(block.dtype))
                _scale(block, ctx.temperature)  # of the capped logits
                if of_cap is not None:
                    block.mul_(of_cap)
                if grad is not log_p:
                    out.copy_(block)
            gradient.add(rows, grad)
        return gradient.hidden, gradient.weight, gradient.bias, None, None, None


def _logit_gradient_(
    log_p: Tensor, entropy: Tensor, of_logprob: Tensor, of_entropy: Tensor | None
) -> None:
    """Turns log p [n, V] into the logits' gradient, all but `of_logprob` at the chosen id itself.

    d log p_i / d z = 1_i − p; d H / d z = −p (log p + H); the others are [n, 1].
    """
    if of_entropy is None:
        log_p.exp_().mul_(-of_logprob)
        return
    p = log_p.exp()
    log_p.add_(entropy).mul_(of_entropy).add_(of_logprob).mul_(p).neg_()


def log_softmax_(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turns logits [n, V] into log p in place; returns log p, p and the normaliser [n, 1], for one
    exponential and one new tensor."""
    largest = logits.amax(-1, keepdim=True)  # [n, 1]
    p = logits.sub_(largest).exp()  # [n, V]
    total = p.sum(-1, keepdim=True)
    log_total = total.log()
    return logits.sub_(log_total), p.div_(total), largest + log_total


def _scale(logits: Tensor, temperature: float) -> Tensor:
    """Divides in place; temperature 1 does not need the pass over the vocabulary."""
    return logits if temperature == 1.0 else logits.div_(temperature)


def softcap_slope(logits: Tensor, softcap: float | None) -> Tensor | None:
    """Returns d capped / d raw, from the capped logits; None without a soft cap."""
    return None if softcap is None else 1 - (logits / softcap).square()


class HeadGradient:
    """The gradients of hidden states and the head's parameters, a chunk of rows at a time.

    `in_place`: where the weight has a `.grad` already, its gradient is added to that at once and
    `weight` stays None. It is the largest matrix of a small model: a tensor of its own for every
    micro-batch would cost as much as the product.
    """

    def __init__(
        self,
        hidden: Tensor,
        head: Head,
        needs_weight: bool,
        *,
        in_place: bool = False,
    ) -> None:
        weight, bias = head.weight, head.bias
        self.inputs, self.matrix, self.needs_weight = hidden, head.matrix, needs_weight
        self.dtype = weight.dtype
        self.hidden = torch.empty_like(hidden)
        self.weight: Tensor | None = None
        self.into = weight.grad if in_place and weight.is_leaf else None
        self.bias = torch.zeros_like(bias) if bias is not None and needs_weight else None

    def add(self, rows: slice, grad_logits: Tensor) -> None:
        """Adds the gradients that follow from those of the rows' logits: [n, V]."""
        grad, inputs = grad_logits.to(self.matrix.dtype), self.inputs[rows].to(self.matrix.dtype)
        self.hidden[rows] = (grad @ self.matrix).to(self.hidden.dtype)
        if self.needs_weight:
            into = self.weight if self.into is None else self.into
            if into is None:
                self.weight = (grad.T @ inputs).to(self.dtype)
            elif into.dtype == grad.dtype:
                into.addmm_(grad.T, inputs)
            else:
                add_rounded(into, grad.T @ inputs)
        if self.bias is not None:
            self.bias += grad_logits.sum(0)


def selected_logprobs(
    hidden: Tensor, head: Head, ids: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Returns log-probabilities of `ids` and entropies of their distributions, in nats: each [N].

    hidden [N, d], ids [N]; the distribution is softmax(logits / temperature). Differentiable in
    hidden and the head's parameters.
    """
    if len(ids) == 0:
        empty = hidden.sum(-1).to(torch.float64 if hidden.dtype == torch.float64 else torch.float32)
        return empty, empty
    return _SelectedLogprobs.apply(  # type: ignore[return-value]
        hidden, head.weight, head.bias, ids, temperature, head
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Standard:
    """Standard next-token prediction at N places, from one forward pass."""

    argmax: Tensor  # [N] special tokens masked
    candidate_ids: Tensor  # [N, k] the k most probable, special tokens masked
    candidate_logprobs: Tensor  # [N, k] of the unmasked distribution


@torch.no_grad()
def standard_prediction(hidden: Tensor, head: Head, masked: Tensor, *, k: int = 1) -> Standard:
    """Returns the argmax and the k best candidates after each of N hidden states [N, d].

    masked [V] is True for ids that may not be predicted (special tokens, unused rows).
    """
    ids, logprobs = [], []
    for part in hidden.split(head.chunk_rows):
        for block in in_cache(head.logits(part), vocabulary=len(head.weight)):
            normaliser = block.logsumexp(-1, keepdim=True)  # [n, 1]
            values, best = top_k(block.masked_fill(masked, float("-inf")), max(k, 1))
            ids.append(best)
            logprobs.append(values - normaliser)
    candidate_ids = torch.cat(ids)  # [N, k], or [N, 1] where k is 0
    return Standard(
        argmax=candidate_ids[:, 0],
        candidate_ids=candidate_ids[:, :k],
        candidate_logprobs=torch.cat(logprobs)[:, :k],
    )
