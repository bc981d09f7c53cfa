"""A user's own advantages: `train.advantage` by import path."""

from collections.abc import Sequence

import torch
from torch import Tensor

from openrpt.config.reinforcement import TrainConfig
from openrpt.config.rewards import LARGEST_REWARD
from openrpt.rl.rewards.term import rollout_place
from openrpt.types import Group
from openrpt.user_code import UserFunction, is_import_path, load_function, shown

_KEY = "train.advantage"
_WHERE = f"for a step's rewards ({_KEY})"
_READABLE = ("rewards", "mask")


def load_advantages(config: TrainConfig) -> UserFunction | None:
    """Returns the user's function; None where the advantages are OpenRPT's own. Raises UserError
    for one that can't be had or asks for what there is not."""
    path = config.recipe().advantage
    return load_function(path, key=_KEY, known=_READABLE) if is_import_path(path) else None


def own_advantages(
    function: UserFunction, rewards: Tensor, groups: Sequence[Group], *, mask: Tensor | None
) -> Tensor:
    """Returns what a user's function makes of a whole step's rewards: [groups, group_size], the
    same shape, float64.

    `mask` (True = counts): those left out get 0, whatever the function says. Raises UserError where
    it raises, gives another shape, or gives what is no finite number.
    """
    counted = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask.bool()
    values = {"rewards": rewards.clone(), "mask": counted.clone()}
    found = function.result(values, where=_WHERE)
    if not (isinstance(found, Tensor) and found.shape == rewards.shape and _is_real(found)):
        needed = f"a tensor of real numbers is needed, of shape {list(rewards.shape)}"
        raise function.error(f"returned {_described(found)},", where=f"{_WHERE}: {needed}")
    found = found.detach().to(rewards)
    bad = ~(found.abs() <= LARGEST_REWARD) & counted
    if bad.any():
        group, rollout = bad.nonzero()[0].tolist()
        raise function.error(
            f"returned {found[group, rollout].item():g}, which is no finite number within"
            f" ±{LARGEST_REWARD:g},",
            where=f"{_WHERE}: {rollout_place(groups[group], rollout)}",
        )
    return torch.where(counted, found, 0.0)


def _is_real(found: Tensor) -> bool:
    return found.layout == torch.strided and not found.dtype.is_complex


def _described(found: object) -> str:
    if not isinstance(found, Tensor):
        return f"{shown(found)}, which is no tensor"
    return f"a tensor of shape {list(found.shape)} and type {found.dtype}"
