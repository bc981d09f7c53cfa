"""Our advantages and losses against TRL's and verl's own, as scripts/reference_losses.py ran them.

Neither is installed here: the fixture holds the inputs, what each library made of them, and its
version.
"""

import json
from pathlib import Path

import pytest
import torch

from openrpt.rl.advantages import group_advantages
from openrpt.rl.losses import LossConfig, LossInputs, StepTotals, policy_loss

FOUND = json.loads((Path(__file__).parents[1] / "fixtures" / "reference_losses.json").read_text())
GIVEN = FOUND["inputs"]
EPSILON = {"trl": 1e-4, "verl": 1e-6}
"""What each adds to the group's deviation."""


def close(found: torch.Tensor, expected: list) -> None:
    torch.testing.assert_close(
        found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6
    )


def tensor(name: str) -> torch.Tensor:
    return torch.tensor(GIVEN[name], dtype=torch.float64)


def loss_groups() -> torch.Tensor:
    return tensor("rewards").reshape(2, 4)


@pytest.mark.parametrize("library", ["trl", "verl"])
@pytest.mark.parametrize("name", GIVEN["losses"])
def test_losses_and_gradients(library: str, name: str) -> None:
    """From rewards to the loss and its gradient in the trainer's log-probabilities."""
    trainer = tensor("trainer").requires_grad_()
    mask = tensor("mask").bool()
    advantages = group_advantages(loss_groups(), epsilon=EPSILON[library]).flatten()
    close(advantages, FOUND[library]["loss_advantages"])
    inputs = LossInputs(
        trainer_logprobs=trainer,
        old_logprobs=tensor("old"),
        sampler_logprobs=tensor("sampler"),
        reference_logprobs=tensor("reference"),
        advantages=advantages,
        loss_mask=mask,
    )
    totals = StepTotals(tokens=int(mask.sum()), rollouts=len(mask), length=GIVEN["longest"])
    loss = policy_loss(inputs, LossConfig(**GIVEN["losses"][name]), totals).loss
    expected = FOUND[library]["losses"][name]
    close(loss, expected["value"])
    (gradient,) = torch.autograd.grad(loss, trainer)
    close(gradient, expected["gradient"])
    assert gradient.abs().max() > 1e-3  # so 1e-6 means something


@pytest.mark.parametrize("estimator", ["grpo", "dr_grpo"])
def test_advantages_of_trl(estimator: str) -> None:
    close(
        group_advantages(loss_groups(), estimator, epsilon=EPSILON["trl"]).flatten(),
        FOUND["trl"]["advantages"][estimator],
    )


@pytest.mark.parametrize("rewards", ["group_rewards", "dense_rewards"])
@pytest.mark.parametrize("estimator", ["grpo", "dr_grpo", "rloo", "reinforce_plus_plus"])
def test_advantages_of_verl(estimator: str, rewards: str) -> None:
    # verl whitens by 1 / √(variance + 1e-8), which no epsilon beside the deviation equals.
    epsilon = 0.0 if estimator == "reinforce_plus_plus" else EPSILON["verl"]
    close(
        group_advantages(tensor(rewards), estimator, epsilon=epsilon),
        FOUND["verl"]["advantages"][rewards][estimator],
    )


def test_the_inputs_reach_every_branch() -> None:
    """Else agreement would say little: ratios beyond both clips, tokens and rollouts dropped."""
    mask = tensor("mask").bool()
    ratio = (tensor("trainer") - tensor("old")).exp()[mask]
    assert (ratio > 1.28).any() and (ratio < 0.8).any()
    weight = (tensor("old") - tensor("sampler")).exp()
    band = GIVEN["losses"]["token_mask"]
    low, high = band["importance_min"], band["importance_max"]
    assert (weight[mask] < low).any() and (weight[mask] > high).any()
    product = torch.where(mask, weight, 1.0).prod(1)
    assert ((product < low) | (product > high)).any() and ((product > low) & (product < high)).any()
    assert all(version for library in ("trl", "verl") for version in FOUND[library]["versions"])
