"""AdamW as the trainers use it: its groups, its learning rate, one clipped step."""

import math

import torch

from openrpt.config.sections import Config
from openrpt.engine.check import require_finite
from openrpt.engine.model import Model
from openrpt.rl.nonfinite import NotFinite, Places


def set_learning_rate(optimizer: torch.optim.Optimizer, config: Config, step: int) -> None:
    """Sets the rate of a step, a pure function of it: a linear warm-up, then constant."""
    share = min(1.0, step / (config.train.schedule_steps or 1))
    for group in optimizer.param_groups:
        group["lr"] = config.train.learning_rate * share


def make_optimizer(policy: Model, config: Config) -> torch.optim.AdamW:
    """Makes the AdamW of the config (arXiv 1711.05101): matrices decay, vectors (norms, biases) do
    not."""
    parameters = policy.parameters()
    groups = [
        {
            "params": [p for p in parameters if p.ndim > 1],
            "weight_decay": config.optim.weight_decay,
        },
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (config.optim.adam_beta1, config.optim.adam_beta2)
    return torch.optim.AdamW(groups, lr=config.train.learning_rate, betas=betas, fused=True)


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
