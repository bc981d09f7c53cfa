"""Standard next-token prediction: the most probable token behind a text, and the runners-up."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openrpt.engine.head import Head, in_cache

_TOP_COLUMNS = 64
"""Columns of the vocabulary that `top_k` takes for one at first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Standard:
    """Standard next-token prediction at N places, from one forward pass."""

    argmax: Tensor  # [N] special tokens masked
    candidate_ids: Tensor  # [N, k] the k most probable, special tokens masked
    candidate_logprobs: Tensor  # [N, k] of the unmasked distribution

    def split(self, counts: Sequence[int]) -> "list[Standard]":
        """Returns the predictions at so many places each, in order."""
        parts = (
            tensor.split(list(counts))
            for tensor in (self.argmax, self.candidate_ids, self.candidate_logprobs)
        )
        return [
            Standard(argmax=argmax, candidate_ids=ids, candidate_logprobs=logprobs)
            for argmax, ids, logprobs in zip(*parts, strict=True)
        ]


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
