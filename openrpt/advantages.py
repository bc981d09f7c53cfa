"""Advantages: how much better a rollout did than its group. Pure functions, no model."""

import torch
from torch import Tensor

from openrpt.errors import UserError

ESTIMATORS = ("grpo", "dr_grpo")


def group_advantages(
    rewards: Tensor,
    estimator: str = "grpo",
    *,
    epsilon: float = 1e-6,
    mask: Tensor | None = None,
    k: int | None = None,
) -> Tensor:
    """Advantages over the whole step: rewards [prompts, group_size] → the same shape.

    - `grpo` (arXiv 2402.03300, Eq. 3): (r − mean) / (s + epsilon), with s the sample standard
      deviation (n − 1) of the group.
    - `dr_grpo` (arXiv 2503.20783): r − mean.

    `mask` (True = counts) leaves rollouts out of their group's statistics and gives them 0. A
    group of one has nothing to compare with: 0. `k` is for estimators that take one.

    Raises UserError for an unknown estimator and for a reward that is no number.
    """
    if estimator not in ESTIMATORS:
        raise UserError(f"train.algorithm = '{estimator}' is unknown; one of: {list(ESTIMATORS)}")
    if not torch.isfinite(rewards).all():
        prompt, rollout = (~torch.isfinite(rewards)).nonzero()[0].tolist()
        raise UserError(f"the reward of prompt {prompt}, rollout {rollout} is not a number")
    counts = torch.ones_like(rewards) if mask is None else mask.to(rewards.dtype)
    size = counts.sum(1, keepdim=True)
    mean = (rewards * counts).sum(1, keepdim=True) / size.clamp_min(1)
    centred = (rewards - mean) * counts
    if estimator == "dr_grpo":
        return centred
    variance = centred.square().sum(1, keepdim=True) / (size - 1).clamp_min(1)
    return centred / (variance.sqrt() + epsilon)
