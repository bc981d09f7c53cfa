"""Advantages against TRL's and verl's published formulas, worked by hand."""

import math
import statistics
from itertools import combinations, product
from typing import get_args

import pytest
import torch

from openrpt.config.algorithms import Estimator
from openrpt.errors import UserError
from openrpt.rl.advantages import ESTIMATORS, group_advantages, overlong_penalty


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


def of(rewards: list[list[float]], estimator: str, **options) -> torch.Tensor:
    options = {"k": 2} | options
    return group_advantages(torch.tensor(rewards, dtype=torch.float64), estimator, **options)


def test_rloo_leaves_one_out():
    rewards = [0.2, 0.9, 0.4, 0.0]
    expected = [r - (sum(rewards) - r) / 3 for r in rewards]
    assert of([rewards], "rloo")[0].tolist() == pytest.approx(expected, rel=1e-12)


def test_reinforce_plus_plus_divides_by_the_whole_steps_deviation():
    rewards = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]
    centred = [r - statistics.mean(group) for group in rewards for r in group]
    expected = [c / (statistics.stdev(centred) + 1e-6) for c in centred]
    found = of(rewards, "reinforce_plus_plus")
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-12)
    assert not found[2].any()  # exactly: a flat group of a live step


def test_maxrl_by_hand():
    found = of([[1.0, 0.0, 0.0, 0.0], [0.0] * 4, [1.0] * 4, [0.5, 0.25, 0.0, 0.25]], "maxrl")
    assert found.tolist() == [[3.0, -1.0, -1.0, -1.0], [0.0] * 4, [0.0] * 4, [1.0, 0, -1.0, 0]]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("n", [2, 4, 5])
def test_maxrl_is_the_gradient_of_a_truncated_log_likelihood(n, p):
    """arXiv 2602.02710: in expectation Σ_k ∇ pass@k / k, here up to n − 1 (the baseline takes the
    last term), which goes to ∇ log p. Exactly, over all outcomes of n coins: ∇ log π(right) is
    1 / p, ∇ log π(wrong) −1 / (1 − p), with respect to p."""
    expectation = 0.0
    for outcome in product([0.0, 1.0], repeat=n):
        probability = math.prod(p if right else 1 - p for right in outcome)
        advantages = of([list(outcome)], "maxrl")[0].tolist()
        scores = [1 / p if right else -1 / (1 - p) for right in outcome]
        terms = [a * score for a, score in zip(advantages, scores, strict=True)]
        expectation += probability * sum(terms) / n
    # ∇ pass@k / k = (1 − p)^(k − 1)
    assert expectation == pytest.approx(sum((1 - p) ** (k - 1) for k in range(1, n)), rel=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("right", range(7))
def test_pass_at_k_is_the_mean_over_all_choices(k, right):
    """arXiv 2508.10751 derives it; here all choices of k of the 6 rollouts are made: the best of
    each is its reward, normalised over the choices, and a rollout has the mean of its own."""
    group = [1.0] * right + [0.0] * (6 - right)
    choices = list(combinations(range(6), k))
    rewards = [max(group[i] for i in choice) for choice in choices]
    mean, deviation = statistics.mean(rewards), statistics.pstdev(rewards)
    expected = [0.0] * 6
    if deviation > 0:
        for i in range(6):
            own = [r for r, choice in zip(rewards, choices, strict=True) if i in choice]
            expected[i] = (statistics.mean(own) - mean) / deviation
    assert of([group], "pass_at_k", k=k)[0].tolist() == pytest.approx(expected, abs=1e-12)


def test_estimators_refuse_rewards_out_of_their_range():
    with pytest.raises(UserError, match="prompt 0, rollout 1 is below 0, which maxrl can't use"):
        of([[1.0, -1.0]], "maxrl")
    with pytest.raises(UserError, match="prompt 1, rollout 0 is neither 0 nor 1"):
        of([[1.0, 0.0], [0.5, 1.0]], "pass_at_k")
    for k in (None, 0):
        with pytest.raises(UserError, match=f"train.pass_at_k = {k}: the estimator needs"):
            of([[1.0, 0.0]], "pass_at_k", k=k)
    assert not of([[1.0, 0.0]], "pass_at_k", k=3).any()  # fewer rollouts than k: nothing to say


def test_the_names_are_those_of_the_config():
    assert get_args(Estimator) == ESTIMATORS


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_flat_groups_and_groups_of_one_get_exactly_nothing(estimator, size):
    """Exactly 0, as "is flat" is read off the advantages. (verl gives a group of one its score.)
    The mean of three times 0.1 is not 0.1."""
    values = [1.0, 0.0] if estimator == "pass_at_k" else [1.0, 0.0, 0.1, 0.7]
    assert not of([[value] * size for value in values], estimator).any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_groups_do_not_see_one_another(estimator):
    """But by REINFORCE++'s deviation, which is the step's. The order in a group is nothing."""
    torch.manual_seed(0)
    rewards = torch.rand(5, 6, dtype=torch.float64)
    if estimator == "pass_at_k":
        rewards = (rewards < 0.4).double()
    whole = group_advantages(rewards, estimator, k=2)
    if estimator != "reinforce_plus_plus":
        for row, group in zip(whole, rewards, strict=True):
            alone = group_advantages(group[None], estimator, k=2)
            torch.testing.assert_close(row, alone[0])
    assert whole.any() and whole.sum(1).abs().max() < 1e-12
    order = torch.randperm(6)
    shuffled = group_advantages(rewards[:, order], estimator, k=2)
    torch.testing.assert_close(shuffled, whole[:, order])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_masked_rollouts_count_for_nothing(estimator):
    middle = 0.0 if estimator == "pass_at_k" else 0.5
    rewards = torch.tensor([[1.0, 0.0, middle, 9.0], [1.0, 7.0, 7.0, -7.0], [3.0, 3.0, 3.0, 3.0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    found = group_advantages(rewards.double(), estimator, mask=mask, k=2, epsilon=0.0)
    expected = group_advantages(rewards[:1, :3].double(), estimator, k=2, epsilon=0.0)
    if estimator == "reinforce_plus_plus":  # the group of one counts in the step's deviation
        expected = expected * math.sqrt(3 / 2)
    if estimator == "grpo":  # 0 / 0 in the groups that are flat
        found = found.nan_to_num()
    torch.testing.assert_close(found[0, :3], expected[0])
    assert found[0].any() and found[0, 3] == 0
    assert not found[1:].any()


def test_the_overlong_penalty_by_hand():
    """arXiv 2503.14476, Section 3.4, with L_max = 20 and L_cache = 5 tokens."""
    lengths = torch.tensor([[1, 15], [16, 19], [20, 25]])
    found = overlong_penalty(lengths, 20, buffer=0.25)
    torch.testing.assert_close(
        found, torch.tensor([[0.0, 0.0], [-0.2, -0.8], [-1.0, -1.0]], dtype=torch.float64)
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_named(bad):
    rewards = torch.zeros(3, 4)
    rewards[1, 2] = bad
    with pytest.raises(UserError, match="prompt 1, rollout 2 is not a number"):
        group_advantages(rewards)


def test_unknown_estimators_are_named():
    with pytest.raises(UserError, match=r"'gae' is unknown; one of: \['grpo', 'dr_grpo', 'rloo'"):
        group_advantages(torch.zeros(1, 2), "gae")
    with pytest.raises(UserError, match="'max_rl' is unknown; nearest: 'maxrl'"):
        group_advantages(torch.zeros(1, 2), "max_rl")
