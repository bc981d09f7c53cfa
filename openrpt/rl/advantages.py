"""Advantages: how much better a rollout did than its group. Pure functions, no model."""

import math
from typing import get_args

import torch
from torch import Tensor

from openrpt.config.algorithms import Estimator
from openrpt.errors import UserError, nearest

ESTIMATORS: tuple[str, ...] = get_args(Estimator)


def group_advantages(
    rewards: Tensor,
    estimator: str = "grpo",
    *,
    epsilon: float = 1e-6,
    mask: Tensor | None = None,
    k: int | None = None,
) -> Tensor:
    """Returns the advantages over a whole step: rewards [prompts, group_size] → the same shape.

    - `grpo` (arXiv 2402.03300, Eq. 3): (r − mean) / (s + epsilon), with s the sample standard
      deviation (n − 1) of the group.
    - `dr_grpo` (arXiv 2503.20783): r − mean.
    - `rloo` (arXiv 2402.14740): r − the mean of the others = n / (n − 1) · (r − mean).
    - `reinforce_plus_plus` (arXiv 2501.03262, with baseline): (r − mean) / (S + epsilon), with S
      the sample standard deviation of r − mean over the whole step (its mean there is 0).
    - `maxrl` (arXiv 2602.02710): (r − mean) / mean, 0 where the mean is 0; rewards ≥ 0.
    - `pass_at_k` (arXiv 2508.10751): the group advantage of k rollouts of which the best counts,
      averaged over all choices of k; rewards 0 or 1.

    `mask` (True = counts) leaves rollouts out of their group's statistics and gives them 0. A
    group whose rewards are all equal gets exactly 0 from each estimator, and so does a group of
    one, which has nothing to compare with. `k` is for `pass_at_k` alone.

    Raises UserError for an unknown estimator, for a reward that is no number or out of the
    estimator's range, and for `pass_at_k` without k ≥ 1.
    """
    if estimator not in ESTIMATORS:
        hint = nearest(estimator, ESTIMATORS)
        raise UserError(
            f"train.advantage = '{estimator}' is unknown{hint}; one of: {list(ESTIMATORS)}"
        )
    _refuse(~torch.isfinite(rewards), "is not a number")
    counted = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask.bool()
    size = counted.sum(1, keepdim=True)
    mean = torch.where(counted, rewards, 0.0).sum(1, keepdim=True) / size.clamp_min(1)
    # Compared, not subtracted: a mean of equal rewards may differ from them by rounding.
    most = rewards.masked_fill(~counted, -math.inf).amax(1, keepdim=True)
    least = rewards.masked_fill(~counted, math.inf).amin(1, keepdim=True)
    centred = torch.where(counted & (most > least), rewards - mean, 0.0)
    match estimator:
        case "grpo":
            variance = centred.square().sum(1, keepdim=True) / (size - 1).clamp_min(1)
            return centred / (variance.sqrt() + epsilon)
        case "rloo":
            return centred * size / (size - 1).clamp_min(1)
        case "reinforce_plus_plus":
            variance = centred.square().sum() / (size.sum() - 1).clamp_min(1)
            return centred / (variance.sqrt() + epsilon)
        case "maxrl":
            _refuse((rewards < 0) & counted, "is below 0, which maxrl can't use")
            return torch.where(mean > 0, centred / mean, 0.0)
        case "pass_at_k":
            binary = (rewards == 0) | (rewards == 1)
            _refuse(~binary & counted, "is neither 0 nor 1, which pass_at_k needs")
            return _pass_at_k(rewards, counted, k)
    return centred  # dr_grpo


def exact_scale(rewards: Tensor, estimator: str) -> Tensor:
    """Returns what an estimator multiplies a group's rewards by, beside its baseline: [prompts,
    group_size] → [prompts, 1].

    1 for `dr_grpo` and `rloo`; 1 / mean for `maxrl`, 0 where the mean is not above 0. The answer's
    exact gradient has no baseline, but the same scale.
    """
    mean = rewards.mean(1, keepdim=True)
    if estimator == "maxrl":
        return torch.where(mean > 0, 1 / mean, 0.0)
    return torch.ones_like(mean)


def _refuse(bad: Tensor, reason: str) -> None:
    if bad.any():
        prompt, rollout = bad.nonzero()[0].tolist()
        raise UserError(f"the reward of prompt {prompt}, rollout {rollout} {reason}")


def _pass_at_k(rewards: Tensor, counted: Tensor, k: int | None) -> Tensor:
    """Returns the pass@k advantages in the analytical form of arXiv 2508.10751; of n rollouts w
    are wrong.

    The mean reward of a choice of k is m = 1 − C(w, k) / C(n, k), its deviation s = √(m (1 − m)).
    A right rollout makes every choice right, a wrong one all but C(w − 1, k − 1) / C(n − 1, k − 1)
    of those it is in.
    """
    if k is None or k < 1:
        raise UserError(f"train.pass_at_k = {k}: the estimator needs a k of at least 1")
    found = torch.zeros_like(rewards)
    for row, (group, counts) in enumerate(zip(rewards, counted, strict=True)):
        n = int(counts.sum())
        wrong = n - int(group[counts].sum())
        all_wrong = math.comb(wrong, k) / max(math.comb(n, k), 1)  # 1 − m
        if not 0 < all_wrong < 1:
            continue
        deviation = math.sqrt(all_wrong * (1 - all_wrong))
        others_wrong = math.comb(wrong - 1, k - 1) / math.comb(n - 1, k - 1)
        found[row] = (all_wrong - others_wrong * (1 - group)) / deviation
    return torch.where(counted, found, 0.0)


def overlong_penalty(lengths: Tensor, longest: int, *, buffer: float) -> Tensor:
    """Returns DAPO's soft penalty (arXiv 2503.14476, Section 3.4) on completions of `lengths`
    tokens.

    0 up to (1 − buffer) · longest tokens, then falling linearly to −1 at `longest` and beyond.
    The same shape as lengths, float64; `buffer` is a share, > 0.

    >>> overlong_penalty(torch.tensor([8, 9, 10]), 10, buffer=0.2).tolist()
    [0.0, -0.5, -1.0]
    """
    room = buffer * longest
    return ((longest - room - lengths.double()) / room).clamp(-1.0, 0.0)
