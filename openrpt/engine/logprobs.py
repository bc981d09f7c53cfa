"""The log-probabilities of chosen tokens, and the entropies of their distributions, with gradient.

Legend: N places, k tokens chosen at each, d hidden size, V vocabulary, n rows of a chunk.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from openrpt.engine.head import Head, in_cache, log_softmax_, softcap_slope
from openrpt.engine.head_gradient import HeadGradient

_KEPT_ELEMENTS = 1 << 25
"""Most logits that a forward pass keeps for its backward pass (134 MB in float32), all of them or
none; more are computed again, chunk by chunk."""


def selected_logprobs(
    hidden: Tensor, head: Head, ids: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Returns log-probabilities of `ids`, in their shape, and the entropies [N] of the
    distributions, in nats.

    hidden [N, d], ids [N] or [N, k]; the distribution is softmax(logits / temperature).
    Differentiable in hidden and the head's parameters.
    """
    if len(ids) == 0:
        empty = hidden.sum(-1).to(torch.float64 if hidden.dtype == torch.float64 else torch.float32)
        return empty.view(ids.shape), empty
    logprobs, entropies = _SelectedLogprobs.apply(  # type: ignore[misc]
        hidden, head.weight, head.bias, ids.view(len(ids), -1), temperature, head
    )
    return logprobs.view(ids.shape), entropies


class _SelectedLogprobs(torch.autograd.Function):
    """The log-probability of chosen ids, and the entropy.

    Log-probabilities of the whole vocabulary are kept for the first backward pass where they are
    few, else computed again a chunk at a time.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, ids, temperature, head):  # type: ignore[override]
        keeps = head.softcap is None and len(ids) * weight.shape[0] <= _KEPT_ELEMENTS
        logprobs, entropies, normalisers, kept = [], [], [], []
        # hidden [N, d] and ids [N, k], a chunk after the other: part [n, d], part_ids [n, k]
        parts = zip(hidden.split(head.chunk_rows), ids.split(head.chunk_rows), strict=True)
        for part, part_ids in parts:
            logits = head.logits(part)  # [n, V]
            # Some rows of it after the other become log p, in place.
            for block in in_cache(logits, vocabulary=logits.shape[1]):
                log_p, p, normaliser = log_softmax_(_scale(block, temperature))
                entropies.append(p.mul_(log_p).sum(-1).neg())
                normalisers.append(normaliser)
            logprobs.append(logits.gather(-1, part_ids))  # [n, k]
            if keeps:
                kept.append(logits)
        entropy = torch.cat(entropies)  # [N]
        ctx.save_for_backward(hidden, weight, bias, ids, torch.cat(normalisers), entropy)
        ctx.temperature, ctx.head = temperature, head
        ctx.keeps, ctx.kept = keeps, kept
        return torch.cat(logprobs), entropy  # [N, k] and [N]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_logprobs, grad_entropy):  # type: ignore[override]
        hidden, weight, bias, ids, normalisers, entropy = ctx.saved_tensors
        kept, ctx.kept = ctx.kept, []  # they become the gradient; another pass computes them again
        head = replace(ctx.head, weight=weight, bias=bias)  # as saved: torch checks their versions
        gradient = HeadGradient(hidden, head, ctx.needs_input_grad[1])
        reads_entropy = bool(grad_entropy.any())
        for chunk, start in enumerate(range(0, len(ids), head.chunk_rows)):
            rows = slice(start, start + head.chunk_rows)
            slope = None
            if kept:
                log_p = kept[chunk]  # [n, V]
            else:
                logits = head.logits(hidden[rows])
                slope = softcap_slope(logits, head.softcap)  # [n, V]
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
            # [n, k], [n, k], [n, 1] and [n, 1]
            columns = (
                ids[rows],
                grad_logprobs[rows],
                entropy[rows, None],
                grad_entropy[rows, None],
            )
            parts = zip(rounded, blocks, slopes, *map(split, columns), strict=True)
            for out, block, of_cap, chosen, of_logprob, h, of_entropy in parts:
                of_all = of_logprob.sum(-1, keepdim=True)  # [n, 1]
                _logit_gradient_(block, h, of_all, of_entropy if reads_entropy else None)
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
    """Turns log p [n, V] into the logits' gradient, all but what the chosen ids themselves get.

    d log p_i / d z = 1_i − p; d H / d z = −p (log p + H); the others are [n, 1].
    """
    if of_entropy is None:
        log_p.exp_().mul_(-of_logprob)
        return
    p = log_p.exp()
    log_p.add_(entropy).mul_(of_entropy).add_(of_logprob).mul_(p).neg_()


def _scale(logits: Tensor, temperature: float) -> Tensor:
    """Divides in place; temperature 1 does not need the pass over the vocabulary."""
    return logits if temperature == 1.0 else logits.div_(temperature)
