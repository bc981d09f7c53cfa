"""Advantages against TRL's and verl's published formulas, worked by hand."""

import math
import statistics

import pytest
import torch

from openrpt.advantages import ESTIMATORS, group_advantages
from openrpt.errors import UserError


def test_grpo_by_hand():
    # mean 0.25; squared deviations 0.5625 + 3 · 0.0625 = 0.75; sample variance 0.75 / 3 = 0.25.
    found = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64))
    s = 0.5 + 1e-6
    assert found[0].tolist() == pytest.approx(
        [0.75 / s, -0.25 / s, -0.25 / s, -0.25 / s], rel=1e-12
    )
    wide = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), epsilon=0.5)
    assert wide[0, 0].item() == pytest.approx(0.75)


def test_grpo_divides_by_the_sample_deviation():
    """verl: torch.std (n − 1), epsilon added to it; TRL: the same but for the epsilon."""
    rewards = [[0.2, 0.9, 0.4, 0.0, 0.7], [1.0, 1.0, 0.0, 1.0, 1.0]]
    found = group_advantages(torch.tensor(rewards, dtype=torch.float64))
    for row, group in zip(found.tolist(), rewards, strict=True):
        mean, deviation = statistics.mean(group), statistics.stdev(group)
        assert row == pytest.approx([(r - mean) / (deviation + 1e-6) for r in group], rel=1e-12)


def test_dr_grpo_is_centred_only():
    found = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), "dr_grpo")
    assert found.tolist() == [[0.75, -0.25, -0.25, -0.25]]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_flat_groups_and_groups_of_one_get_exactly_nothing(estimator, size):
    """Exactly 0, as "is flat" is read off the advantages. (verl gives a group of one its score.)"""
    rewards = torch.tensor([[1.0], [0.0]]).expand(2, size)
    assert not group_advantages(rewards, estimator).any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_groups_do_not_see_one_another(estimator):
    torch.manual_seed(0)
    rewards = torch.rand(5, 6, dtype=torch.float64)
    whole = group_advantages(rewards, estimator)
    for row, group in zip(whole, rewards, strict=True):
        torch.testing.assert_close(row, group_advantages(group[None], estimator)[0])
    assert whole.sum(1).abs().max() < 1e-12
    order = torch.randperm(6)
    torch.testing.assert_close(group_advantages(rewards[:, order], estimator), whole[:, order])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_masked_rollouts_count_for_nothing(estimator):
    rewards = torch.tensor([[1.0, 0.0, 0.5, 9.0], [1.0, 7.0, 7.0, 7.0], [3.0, 3.0, 3.0, 3.0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    found = group_advantages(rewards.double(), estimator, mask=mask)
    expected = group_advantages(rewards[:1, :3].double(), estimator)
    torch.testing.assert_close(found[0, :3], expected[0])
    assert found[0, 3] == 0
    assert not found[1:].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_named(bad):
    rewards = torch.zeros(3, 4)
    rewards[1, 2] = bad
    with pytest.raises(UserError, match="prompt 1, rollout 2 is not a number"):
        group_advantages(rewards)


def test_unknown_estimators_are_named():
    with pytest.raises(UserError, match=r"'gae' is unknown; one of: \['grpo', 'dr_grpo'\]"):
        group_advantages(torch.zeros(1, 2), "gae")
