"""AdamW as the trainers use it: its groups, its learning rate, one clipped step."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from openrpt.config.training import OptimConfig
from openrpt.engine.check import require_finite
from openrpt.engine.model import Model
from openrpt.rl.nonfinite import NotFinite, Places
from openrpt.rl.workers import ALONE, Workers


class Schedule(Protocol):
    """The learning rate of a stage as its section sets it: `[warmup]`, `[train]`, `[pretrain]`."""

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


class PairedAdamW(torch.optim.Optimizer):
    """Two AdamWs (arXiv 1711.05101) over the same weights, whose updates are averaged.

    The first follows the gradient that was set aside, the second the one that stands in `.grad`:
    w ← (1 − lr · decay) · w − lr / 2 · (m₁ / (√v₁ + ε) + m₂ / (√v₂ + ε)), each with moments of its
    own, corrected for their start. A gradient that is not there moves nothing, moments included.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, betas: tuple[float, float], lr: float = 1e-3
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": 1e-8})
        self._aside: dict[Tensor, Tensor | None] = {}

    def set_aside(self) -> None:
        """Keeps the gradients for the first AdamW, and clears `.grad` for the second's."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        self._aside = {p: p.grad for p in parameters}
        self.zero_grad(set_to_none=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Moves each parameter by one step, from the gradient set aside and the one that it has
        now."""
        for group in self.param_groups:
            for p in group["params"]:
                both = {"": self._aside.get(p), "text_": p.grad}
                given = {name: grad for name, grad in both.items() if grad is not None}
                if given:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                for name, grad in given.items():
                    p.sub_(self._direction(p, name, grad, group), alpha=group["lr"] / 2)
        self._aside = {}

    def _direction(self, p: Tensor, name: str, grad: Tensor, group: dict[str, Any]) -> Tensor:
        """Returns m / (√v + ε) after one more gradient, both corrected."""
        state = self.state[p]
        if f"{name}step" not in state:
            state[f"{name}step"] = torch.zeros(())
            state[f"{name}exp_avg"] = torch.zeros_like(p)
            state[f"{name}exp_avg_sq"] = torch.zeros_like(p)
        first, second = group["betas"]
        state[f"{name}step"] += 1
        steps = float(state[f"{name}step"])
        mean = state[f"{name}exp_avg"].lerp_(grad, 1 - first)
        square = state[f"{name}exp_avg_sq"].mul_(second).addcmul_(grad, grad, value=1 - second)
        root = (square / (1 - second**steps)).sqrt_().add_(group["eps"])
        return mean / (1 - first**steps) / root


class SharedAdamW(torch.optim.Optimizer):
    """AdamW whose state is divided among the processes (arXiv 1910.02054, Pos): each makes the step
    of the parameters that it owns, and gets the others' from their owners."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        betas: tuple[float, float],
        workers: Workers,
        lr: float = 1e-3,
    ) -> None:
        super().__init__(groups, {"lr": lr})
        self.workers = workers
        self.owned = _divided([p for group in groups for p in group["params"]], workers.count)
        """The parameters of each process."""
        parts = [g | {"params": [p for p in g["params"] if self.owns(p)]} for g in groups]
        self._own = torch.optim.AdamW(parts, betas=betas, fused=True)
        self.state = self._own.state

    def owns(self, parameter: Tensor) -> bool:
        """Returns whether this process keeps the parameter's state."""
        return any(parameter is own for own in self.owned[self.workers.rank])

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Moves each parameter by one step, from its gradient, which all processes have."""
        for group, part in zip(self.param_groups, self._own.param_groups, strict=True):
            part["lr"] = group["lr"]
        self._own.step()
        self.workers.spread(self.owned)


def _divided(
    parameters: Sequence[torch.nn.Parameter], count: int
) -> list[list[torch.nn.Parameter]]:
    """Returns `count` lists of parameters, of about as many elements: the largest first, to the
    shortest list."""
    owned: list[list[torch.nn.Parameter]] = [[] for _ in range(count)]
    sizes = [0] * count
    for parameter in sorted(parameters, key=lambda p: -p.numel()):
        least = sizes.index(min(sizes))
        owned[least].append(parameter)
        sizes[least] += parameter.numel()
    return owned


def make_optimizer(
    policy: Model,
    settings: OptimConfig,
    *,
    weight_decay: float,
    paired: bool = False,
    shared_by: Workers = ALONE,
) -> torch.optim.Optimizer:
    """Makes the AdamW of all stages (arXiv 1711.05101), or a pair: matrices decay, vectors (norms,
    biases) do not. Each step sets its own learning rate. `shared_by`: the processes among which its
    state is divided."""
    parameters = policy.parameters()
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (settings.adam_beta1, settings.adam_beta2)
    if paired:
        return PairedAdamW(groups, betas=betas)
    if shared_by.count > 1:
        return SharedAdamW(groups, betas=betas, workers=shared_by)
    return torch.optim.AdamW(groups, betas=betas, fused=True)


def clip(
    policy: Model, optimizer: torch.optim.Optimizer, max_norm: float, places: Places, *, stage: str
) -> float:
    """Clips the gradient; returns its norm before. Raises NotFinite where that is not finite."""
    if policy.divided is not None:
        norm = policy.divided.clip(max_norm)
    else:
        norm = float(torch.nn.utils.clip_grad_norm_(policy.parameters(), max_norm))
    if not math.isfinite(norm):
        optimizer.zero_grad(set_to_none=True)
        raise NotFinite(norm, places, f"--{stage}.learning_rate")
    return norm


def apply_update(
    policy: Model, optimizer: torch.optim.Optimizer, max_norm: float, places: Places, *, stage: str
) -> float:
    """Clips the gradient and makes the optimizer's step; returns the norm before clipping.

    `stage`: whose learning rate it is. Raises NotFinite, and changes nothing, where that norm is
    not finite; and UserError where the step itself has made weights that are not.
    """
    norm = clip(policy, optimizer, max_norm, places, stage=stage)
    optimizer.step()
    rate = optimizer.param_groups[0]["lr"]
    what = f"{stage}.learning_rate is too high ({rate:g} here): the policy"
    require_finite(policy.own_values().items(), what=what)
    return norm
