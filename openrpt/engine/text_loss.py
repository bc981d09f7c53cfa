"""Losses over places of a text whose logits are read all together: next tokens, soft targets, and
staying near a frozen teacher.
"""

from dataclasses import dataclass
from functools import partial
from itertools import repeat

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from openrpt.engine.head import Head, in_cache, log_softmax_, softcap_slope
from openrpt.engine.head_gradient import HeadGradient
from openrpt.engine.logprobs import selected_logprobs


@dataclass(frozen=True, kw_only=True, eq=False)
class TextTerms:
    """The losses on plain text: next-token loss, and staying near a frozen teacher.

    loss = ntp_scale · Σ −log p(target) + kl_scale · Σ KL(teacher ‖ student)
    """

    targets: Tensor  # [N]
    ntp_scale: float = 0.0
    teacher_hidden: Tensor | None = None  # [N, d]
    teacher: Head | None = None
    kl_scale: float = 0.0

    def teacher_logits(self, rows: slice) -> Tensor | None:
        """Returns the teacher's logits [n, V]; None where staying near the teacher is not asked
        for."""
        if not self.kl_scale:
            return None
        if self.teacher is None or self.teacher_hidden is None:
            raise ValueError("kl_scale needs a teacher and its hidden states")
        return self.teacher.logits(self.teacher_hidden[rows])


def _text_gradient(
    logits: Tensor, targets: Tensor, teacher: Tensor | None, terms: TextTerms
) -> tuple[float, float]:
    """Puts the gradient in place of logits [n, V]; returns Σ −log p(target) and Σ KL.

    d NTP / d z = p − 1_target; d KL / d z = p − p_teacher. targets [n, 1].
    """
    log_p, p, _ = log_softmax_(logits)  # [n, V] each
    ntp, kl = -float(log_p.gather(-1, targets).sum()), 0.0
    teacher_p = None
    if teacher is not None:
        teacher_log_p, teacher_p, _ = log_softmax_(teacher)
        kl = float(teacher_log_p.sub_(log_p).mul_(teacher_p).sum())
    torch.mul(p, terms.ntp_scale + terms.kl_scale, out=logits)
    if teacher_p is not None:
        logits.sub_(teacher_p, alpha=terms.kl_scale)
    logits.scatter_add_(1, targets, logits.new_full(targets.shape, -terms.ntp_scale))
    return ntp, kl


class _TextLoss(torch.autograd.Function):
    """The losses forward and backward in one sweep over the chunks: each logit is computed once."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, head, terms):  # type: ignore[override]
        gradient = HeadGradient(hidden, head, ctx.needs_input_grad[1])
        split = partial(in_cache, vocabulary=len(weight))
        ntp, kl = 0.0, 0.0
        for start in range(0, len(hidden), head.chunk_rows):
            rows = slice(start, start + head.chunk_rows)
            grad = head.logits(hidden[rows])  # [n, V], block by block turned into its gradient
            slope = softcap_slope(grad, head.softcap)
            blocks, targets = split(grad), split(terms.targets[rows, None])
            logits = terms.teacher_logits(rows)
            teacher = repeat(None, len(blocks)) if logits is None else split(logits)
            for block, ids, teacher_block in zip(blocks, targets, teacher, strict=True):
                block_ntp, block_kl = _text_gradient(block, ids, teacher_block, terms)
                ntp, kl = ntp + block_ntp, kl + block_kl
            gradient.add(rows, grad if slope is None else grad.mul_(slope))
        ctx.gradient = gradient
        loss = hidden.new_tensor(terms.ntp_scale * ntp + terms.kl_scale * kl)
        sums = hidden.new_tensor(ntp), hidden.new_tensor(kl)
        ctx.mark_non_differentiable(*sums)
        return loss, *sums

    @staticmethod
    def backward(ctx, grad_loss, grad_ntp, grad_kl):  # type: ignore[override]
        found = (ctx.gradient.hidden, ctx.gradient.weight, ctx.gradient.bias)
        if float(grad_loss) != 1.0:
            if ctx.gradient.waiting is not None:
                raise ValueError("where the head's rows wait for one another, a loss is not scaled")
            scaled = [None if tensor is None else tensor * grad_loss for tensor in found]
            return (*scaled, None, None)
        return (*found, None, None)


def text_loss(hidden: Tensor, head: Head, terms: TextTerms) -> tuple[Tensor, float, float]:
    """Returns (loss, Σ −log p, Σ KL) over N places of plain text, in nats: hidden [N, d].

    Only the loss carries a gradient; Σ KL is 0 where kl_scale is.
    """
    loss, ntp, kl = _TextLoss.apply(  # type: ignore[misc]
        hidden, head.weight, head.bias, head, terms
    )
    return loss, float(ntp), float(kl)


def target_cross_entropy(
    hidden: Tensor, head: Head, target_ids: Tensor, target_weights: Tensor
) -> Tensor:
    """Returns the cross-entropy [N] against sparse soft targets; hidden [N, d], target_ids and
    target_weights [N, k]."""
    logprobs, _ = selected_logprobs(hidden, head, target_ids)  # [N, k]
    return -(logprobs * target_weights).sum(-1)


def distillation_kl(hidden: Tensor, head: Head, teacher_hidden: Tensor, teacher: Head) -> Tensor:
    """Returns KL(teacher ‖ student) over the full vocabulary, in nats: [N]. No gradient to the
    teacher."""

    def chunk(part: Tensor, teacher_part: Tensor) -> Tensor:
        logp = head.logits(part).log_softmax(-1)  # [n, V]
        with torch.no_grad():
            teacher_logp = teacher.logits(teacher_part).log_softmax(-1)
        return (teacher_logp.exp() * (teacher_logp - logp)).sum(-1)

    return _in_chunks(chunk, head.chunk_rows, hidden, teacher_hidden)


def _in_chunks(function, rows: int, *tensors: Tensor) -> Tensor:
    parts = zip(*(tensor.split(rows) for tensor in tensors), strict=True)
    return torch.cat([checkpoint(function, *part, use_reentrant=False) for part in parts])
