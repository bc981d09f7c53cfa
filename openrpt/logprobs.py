"""The language-model head, computed only where it is read and in chunks.

A full [tokens × vocabulary] tensor is never held: each chunk's logits live for the length of a
matrix product, forward and backward.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 1 << 23
"""Logits held at once (33 MB in float32)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """`logits = softcap(hidden @ weight.T + bias)`, as the model's own head computes them."""

    weight: Tensor  # [V, d]
    bias: Tensor | None  # [V]
    softcap: float | None

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, d] → [N, V], float32 or wider."""
        logits = torch.nn.functional.linear(hidden, self.weight, self.bias)
        if logits.dtype != torch.float64:
            logits = logits.float()
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits

    @property
    def chunk_rows(self) -> int:
        return max(1, CHUNK_ELEMENTS // self.weight.shape[0])


class _SelectedLogprobs(torch.autograd.Function):
    """Log-probability of chosen ids and entropy, logits recomputed a chunk at a time."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, ids, temperature, softcap, chunk_rows):  # type: ignore[override]
        head = Head(weight=weight, bias=bias, softcap=softcap)
        logprobs, entropies, normalisers = [], [], []
        for part, part_ids in zip(hidden.split(chunk_rows), ids.split(chunk_rows), strict=True):
            scaled = head.logits(part) / temperature
            normaliser = scaled.logsumexp(-1)
            logprobs.append(scaled.gather(-1, part_ids[:, None])[:, 0] - normaliser)
            probabilities = (scaled - normaliser[:, None]).exp_()
            entropies.append(normaliser - (probabilities * scaled).sum(-1))
            normalisers.append(normaliser)
        entropy = torch.cat(entropies)
        ctx.save_for_backward(hidden, weight, bias, ids, torch.cat(normalisers), entropy)
        ctx.temperature, ctx.softcap, ctx.chunk_rows = temperature, softcap, chunk_rows
        return torch.cat(logprobs), entropy

    @staticmethod
    def backward(ctx, grad_logprobs, grad_entropy):  # type: ignore[override]
        hidden, weight, bias, ids, normalisers, entropy = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        head = Head(weight=weight, bias=bias, softcap=None)
        reads_entropy = bool(grad_entropy.any())
        for start in range(0, len(ids), ctx.chunk_rows):
            rows = slice(start, start + ctx.chunk_rows)
            logits = head.logits(hidden[rows])
            slope = None
            if ctx.softcap is not None:
                squashed = torch.tanh(logits / ctx.softcap)
                slope = 1 - squashed.square()
                logits = ctx.softcap * squashed
            log_p = logits.div_(ctx.temperature).sub_(normalisers[rows, None])
            p = log_p.exp()
            # d logp_i / d z = 1_i − p;  d H / d z = −p (log p + H)
            grad = p * -grad_logprobs[rows, None]
            if reads_entropy:
                grad -= grad_entropy[rows, None] * p * (log_p + entropy[rows, None])
            grad.scatter_add_(1, ids[rows, None], grad_logprobs[rows, None].to(grad.dtype))
            grad /= ctx.temperature
            if slope is not None:
                grad *= slope
            grad = grad.to(weight.dtype)
            grad_hidden[rows] = grad @ weight
            if grad_weight is not None:
                grad_weight.addmm_(grad.T, hidden[rows])
            if grad_bias is not None:
                grad_bias += grad.sum(0)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


def selected_logprobs(
    hidden: Tensor, head: Head, ids: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of `ids` and entropies of their distributions, in nats: each [N].

    hidden [N, d], ids [N]; the distribution is softmax(logits / temperature). Differentiable in
    hidden and the head's parameters.
    """
    if len(ids) == 0:
        empty = hidden.sum(-1).to(torch.float64 if hidden.dtype == torch.float64 else torch.float32)
        return empty, empty
    return _SelectedLogprobs.apply(  # type: ignore[return-value]
        hidden, head.weight, head.bias, ids, temperature, head.softcap, head.chunk_rows
    )


def target_cross_entropy(
    hidden: Tensor, head: Head, target_ids: Tensor, target_weights: Tensor
) -> Tensor:
    """Cross-entropy against sparse soft targets: [N]. target_ids, target_weights [N, k]."""

    def chunk(part: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        logp = head.logits(part).log_softmax(-1)
        return -(logp.gather(-1, ids) * weights).sum(-1)

    return _in_chunks(chunk, head.chunk_rows, hidden, target_ids, target_weights)


def distillation_kl(hidden: Tensor, head: Head, teacher_hidden: Tensor, teacher: Head) -> Tensor:
    """KL(teacher ‖ student) over the full vocabulary, in nats: [N]. No gradient to the teacher."""

    def chunk(part: Tensor, teacher_part: Tensor) -> Tensor:
        logp = head.logits(part).log_softmax(-1)
        with torch.no_grad():
            teacher_logp = teacher.logits(teacher_part).log_softmax(-1)
        return (teacher_logp.exp() * (teacher_logp - logp)).sum(-1)

    return _in_chunks(chunk, head.chunk_rows, hidden, teacher_hidden)


def _in_chunks(function, rows: int, *tensors: Tensor) -> Tensor:
    parts = zip(*(tensor.split(rows) for tensor in tensors), strict=True)
    return torch.cat([checkpoint(function, *part, use_reentrant=False) for part in parts])


@dataclass(frozen=True, kw_only=True, eq=False)
class Standard:
    """What one forward pass says at N places: standard next-token prediction."""

    argmax: Tensor  # [N] special tokens masked
    candidate_ids: Tensor  # [N, k] the k most probable, special tokens masked
    candidate_logprobs: Tensor  # [N, k] of the unmasked distribution


@torch.no_grad()
def standard_prediction(hidden: Tensor, head: Head, masked: Tensor, *, k: int = 1) -> Standard:
    """The argmax and the k best candidates after each of N hidden states [N, d].

    masked [V] is True for ids that may not be predicted (special tokens, unused rows).
    """
    ids, logprobs = [], []
    for part in hidden.split(head.chunk_rows):
        logits = head.logits(part)
        normaliser = logits.logsumexp(-1, keepdim=True)
        top = logits.masked_fill(masked, float("-inf")).topk(max(k, 1), dim=-1)
        ids.append(top.indices)
        logprobs.append(top.values - normaliser)
    candidate_ids = torch.cat(ids)
    return Standard(
        argmax=candidate_ids[:, 0],
        candidate_ids=candidate_ids[:, :k],
        candidate_logprobs=torch.cat(logprobs)[:, :k],
    )
