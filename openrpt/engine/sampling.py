"""Keyed draws: uniforms that depend on their key alone, and tokens drawn with them.

Sampling is by inverse CDF: one uniform a token, keyed by (seed, step, document, position,
rollout, token), so the draws do not depend on what else is in the batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from openrpt.engine.head import in_cache

CDF_BLOCK = 256
"""Columns of the vocabulary that are summed to one entry of the CDF at first."""
NEAR_BOUNDARY = 1e-5
"""Distance of a uniform from a boundary below which another rounding could give another token."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled:
    """Tokens that were drawn."""

    ids: Tensor  # [B]
    logprobs: Tensor  # [B] at the temperature (at 1 when greedy)
    near: Tensor  # [B] True where the uniform lay near a boundary


def sample(logits: Tensor, draws: Tensor, temperature: float, row: Tensor) -> Sampled:
    """Draws tokens by inverse CDF of softmax(logits / temperature) at the uniforms `draws`.

    logits [U, V]; draws [B] float64 in [0, 1); row [B], whose logits each draw is from. At
    temperature 0 it takes the argmax. The CDF is summed by blocks in float64, so only one block of
    the vocabulary is ever accumulated in full.
    """
    if temperature == 0:
        ids = logits.argmax(-1)[row]
        logp = (logits - logits.logsumexp(-1, keepdim=True))[row, ids]
        return Sampled(ids=ids, logprobs=logp, near=torch.zeros_like(ids, dtype=torch.bool))
    vocabulary = logits.shape[1]
    largest = logits.amax(-1, keepdim=True)  # [U, 1]
    ends = [
        _block_sums(_weights(part, top, temperature)).cumsum(-1)
        for part, top in zip(
            in_cache(logits, vocabulary=vocabulary),
            in_cache(largest, vocabulary=vocabulary),
            strict=True,
        )
    ]
    block_ends = torch.cat(ends)[row]  # [B, V / 256], not yet divided by the sum
    total = block_ends[:, -1:]  # [B, 1]
    target = draws[:, None] * total  # [B, 1]
    last = block_ends.shape[1] - 1
    block = torch.searchsorted(block_ends, target, right=True).clamp_max(last)  # [B, 1]
    before = torch.where(block > 0, block_ends.gather(1, (block - 1).clamp_min(0)), 0.0)
    columns = block * CDF_BLOCK + torch.arange(CDF_BLOCK, device=logits.device)  # [B, 256]
    inside = logits[row[:, None], columns.clamp_max(vocabulary - 1)]  # [B, 256]
    weights = _weights(inside, largest[row], temperature).masked_fill_(columns >= vocabulary, 0.0)
    inside_ends = weights.double().cumsum(-1) + before  # [B, 256]
    offset = torch.searchsorted(inside_ends, target, right=True).clamp_max(CDF_BLOCK - 1)  # [B, 1]
    ids = columns.gather(1, offset).clamp_max(vocabulary - 1)
    upper = inside_ends.gather(1, offset)
    lower = torch.where(offset > 0, inside_ends.gather(1, (offset - 1).clamp_min(0)), before)
    near = torch.minimum(target - lower, upper - target) < NEAR_BOUNDARY * total
    logprobs = (inside.gather(1, offset) - largest[row]) / temperature - total.log()
    return Sampled(ids=ids[:, 0], logprobs=logprobs[:, 0].to(logits.dtype), near=near[:, 0])


def _weights(logits: Tensor, largest: Tensor, temperature: float) -> Tensor:
    """Returns e^((logit − largest) / temperature): the softmax but for its sum."""
    return (logits - largest).div_(temperature).exp_()


def _block_sums(weights: Tensor) -> Tensor:
    """Returns the sums of blocks of 256 columns: [n, V] → [n, V / 256] float64."""
    missing = -weights.shape[1] % CDF_BLOCK
    if missing:
        weights = torch.nn.functional.pad(weights, (0, missing))
    return weights.view(len(weights), -1, CDF_BLOCK).sum(-1, dtype=torch.float64)


# The constants of SplitMix64.
_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def uniforms(keys: Tensor, token: int) -> Tensor:
    """Returns one uniform in [0, 1) a key: the `token`-th output of SplitMix64 seeded by the key.

    Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. keys [B]
    int64 → [B] float64, on the keys' device, with no host synchronisation.
    """
    z = keys + _wrap(_GOLDEN * (token + 1))
    z = (z ^ _shift_right(z, 30)) * _MIX1
    z = (z ^ _shift_right(z, 27)) * _MIX2
    z = z ^ _shift_right(z, 31)
    return _shift_right(z, 11).to(torch.float64) * 2.0**-53


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Shifts logically: torch's own shift keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _wrap(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63
