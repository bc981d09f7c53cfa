"""AdamW as the trainers use it: its groups, its learning rate, one clipped step."""

import math
from typing import Protocol

import torch

from openrpt.config.training import OptimConfig
from openrpt.engine.check import require_finite
from openrpt.engine.model import Model
from openrpt.rl.nonfinite import NotFinite, Places


class Schedule(Protocol):
    """What a section says of its stage's learning rate: `[warmup]`, `[train]`, `[pretrain]`."""

    @property
    def learning_rate(self) -> float:
        """The peak."""

    @property
    def schedule_steps(self) -> int:
        """Steps of the linear warm-up."""


def learning_rate(settings: Schedule, step: int, *, share: float = 0.0) -> float:
    """Gives the rate of a step (the first is 1): a linear warm-up to the peak, times half a cosine.

    The cosine falls from 1 to 0 as `share` goes from 0 to 1: how much of the whole was done before
    this step. A share that stays 0 is a constant schedule.
    """
    rate = settings.learning_rate * min(1.0, step / (settings.schedule_steps or 1))
    return rate * (0.5 + 0.5 * math.cos(math.pi * share))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the rate of all groups, before each step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def make_optimizer(
    policy: Model, settings: OptimConfig, *, weight_decay: float
) -> torch.optim.AdamW:
    """Makes the AdamW of all stages (arXiv 1711.05101): matrices decay, vectors (norms, biases) do
    not. Each step sets its own learning rate."""
    parameters = policy.parameters()
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (settings.adam_beta1, settings.adam_beta2)
    return torch.optim.AdamW(groups, betas=betas, fused=True)


def apply_update(
    policy: Model, optimizer: torch.optim.Optimizer, max_norm: float, places: Places, *, stage: str
) -> float:
    """Clips the gradient and makes the optimizer's step; returns the norm before clipping.

    `stage`: whose learning rate it is. Raises NotFinite, and changes nothing, where that norm is
    not finite; and UserError where the step itself has made weights that are not.
    """
    norm = float(torch.nn.utils.clip_grad_norm_(policy.parameters(), max_norm))
    if not math.isfinite(norm):
        optimizer.zero_grad(set_to_none=True)
        raise NotFinite(norm, places, f"--{stage}.learning_rate")
    optimizer.step()
    trained = ((n, p) for n, p in policy.model.named_parameters() if p.requires_grad)
    rate = optimizer.param_groups[0]["lr"]
    require_finite(trained, what=f"{stage}.learning_rate is too high ({rate:g} here): the policy")
    return norm
