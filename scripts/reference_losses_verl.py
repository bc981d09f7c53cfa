"""verl's side of scripts/reference_losses.py: its `core_algos` and `rollout_corr_helper`, run by
verl's own Python.

    environments/verl/bin/python scripts/reference_losses_verl.py INPUTS.json FOUND.json
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from reference_losses import GROUP, ROLLOUTS, answer
from torch import Tensor
from verl.trainer.ppo import core_algos as algos
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights
from verl.workers.config import ActorConfig

AGGREGATIONS = {
    "sequence_mean": "seq-mean-token-mean",
    "constant_length": "seq-mean-token-sum-norm",
    "token_mean": "token-mean",
}
"""Ours → what verl calls them."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The given completions: log-probabilities and mask [ROLLOUTS, TOKENS]."""

    old: Tensor
    sampler: Tensor
    reference: Tensor
    mask: Tensor
    longest: int

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Batch":
        names = ("old", "sampler", "reference", "mask")
        tensors = {name: torch.tensor(given[name], dtype=torch.float64) for name in names}
        return cls(**tensors, longest=given["longest"])

    @property
    def totals(self) -> dict[str, int]:
        """What verl's losses are divided by."""
        return {
            "dp_size": 1,
            "batch_num_tokens": int(self.mask.sum()),
            "global_batch_size": ROLLOUTS,
            "loss_scale_factor": self.longest,
        }


def values(given: dict[str, Any]) -> dict[str, Any]:
    """Calls verl's functions for each case."""
    batch = Batch.of(given)
    rewards = torch.tensor(given["rewards"]).reshape(-1, GROUP).tolist()
    advantages = torch.tensor(advantages_of(rewards)["grpo"], dtype=torch.float64).reshape(-1)
    losses = {}
    for name, case in given["losses"].items():
        trainer = torch.tensor(given["trainer"], dtype=torch.float64, requires_grad=True)
        loss = loss_of(case, batch, trainer, advantages)
        (gradient,) = torch.autograd.grad(loss, trainer)
        losses[name] = {"value": loss.item(), "gradient": gradient.tolist()}
    return {
        "loss_advantages": advantages.tolist(),
        "losses": losses,
        "advantages": {
            name: advantages_of(given[name]) for name in ("group_rewards", "dense_rewards")
        },
    }


def advantages_of(rewards: list[list[float]]) -> dict[str, list[list[float]]]:
    """A completion is one token here, so that verl's token statistics are of rollouts."""
    scores = torch.tensor(rewards, dtype=torch.float64)
    index = np.repeat(np.arange(len(scores)), scores.shape[1])

    def run(function: Any, **settings: Any) -> list[list[float]]:
        flat = scores.reshape(-1, 1)
        found, _ = function(flat.clone(), torch.ones_like(flat), index=index, **settings)
        return found.reshape(scores.shape).tolist()

    return {
        "grpo": run(algos.compute_grpo_outcome_advantage),
        "dr_grpo": run(algos.compute_grpo_outcome_advantage, norm_adv_by_std_in_grpo=False),
        "rloo": run(algos.compute_rloo_outcome_advantage),
        "reinforce_plus_plus": run(algos.compute_reinforce_plus_plus_baseline_outcome_advantage),
    }


def loss_of(case: dict[str, Any], batch: Batch, trainer: Tensor, advantages: Tensor) -> Tensor:
    """Returns verl's loss of a case; advantages [ROLLOUTS]."""
    config = ActorConfig(
        strategy="fsdp",
        rollout_n=GROUP,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio_low=case["clip_low"],
        clip_ratio_high=case["clip_high"],
        clip_ratio_c=1e9,  # no dual clip
        global_batch_info=batch.totals,
    )
    name = "gspo" if case["ratio_level"] == "sequence" else "vanilla"
    name = "cispo" if case["surrogate"] == "cispo" else name
    mode, weights = AGGREGATIONS[case["aggregation"]], correction_weights(case, batch)
    loss, _ = algos.get_policy_loss_fn(name)(
        batch.old, trainer, advantages[:, None] * batch.mask, batch.mask, mode, config, weights
    )
    if case["kl_weight"]:
        penalty = algos.kl_penalty(trainer, batch.reference, "k3")
        mean = algos.agg_loss(penalty, batch.mask, mode, **batch.totals)
        loss = loss + case["kl_weight"] * mean
    return loss


def correction_weights(case: dict[str, Any], batch: Batch) -> Tensor | None:
    """Returns the importance weights between sampler and trainer; None where they are off."""
    correction = case["importance_correction"]
    if correction == "off":
        return None
    band = f"{case['importance_min']}_{case['importance_max']}"
    weights, _ = compute_rollout_correction_weights(
        batch.old - batch.sampler,
        batch.mask,
        rollout_is="sequence" if correction == "sequence_mask" else "token",
        rollout_is_threshold=case["importance_max"] if correction == "truncate" else band,
    )
    return weights


if __name__ == "__main__":
    answer("verl", values)
