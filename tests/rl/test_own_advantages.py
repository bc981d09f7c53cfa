"""A user's own advantages: called once a step, and named when they can't be used."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from openrpt.config.loading import load_config
from openrpt.config.reinforcement import TrainConfig
from openrpt.errors import UserError
from openrpt.rl.batch import step_advantages
from openrpt.types import Completion, Group, Position, Prompt, Rollout
from tests.helpers.own_module import write_module

MODULE = """
import sys
import numpy as np
import torch

def centred(rewards):
    return rewards - rewards.mean(1, keepdim=True)

def seen(rewards, mask):
    assert rewards.dtype == torch.float64 and mask.dtype == torch.bool
    assert rewards.shape == mask.shape == (2, 3)
    return mask.float()

def spoils(rewards, mask):
    rewards.fill_(7), mask.fill_(False)
    return rewards

def trained(rewards): return rewards.clone().requires_grad_()
def whole(rewards): return rewards.long()
def nothing(rewards): return None
def array(rewards): return rewards.numpy()
def flat(rewards): return rewards.mean(1)
def imaginary(rewards): return rewards * 1j
def infinite(rewards): return rewards / (rewards - 0.5).clamp(min=0)
def huge(rewards): return rewards * 1e16
def divides(rewards): return 1 / 0
def exits(rewards): sys.exit(3)
def advantage(rewards, lengths): return rewards
def reads_nothing(): return 0
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path, monkeypatch, MODULE)


def group_of(number: int, rewards: list[float], stopped: list[bool]) -> Group:
    position = Position(document_id="d", index=number)
    completions = [
        Completion(
            token_ids=(1,),
            sampler_logprobs=(0.0,),
            loss_mask=(True,),
            finish_reason="stop" if stops else "length",
        )
        for stops in stopped
    ]
    return Group(
        prompt=Prompt(position=position, head_ids=(), prefix_ids=(), tail_ids=()),
        rollouts=tuple(
            Rollout(completion=c, thought=b"", prediction=None, exact=False, reward=r)
            for c, r in zip(completions, rewards, strict=True)
        ),
        ntp_token_id=0,
    )


GROUPS = [
    group_of(4, [1.0, 0.0, 0.3], [True, True, True]),
    group_of(9, [0.5, 1.0, 1.0], [True, False, True]),
]


def advantages(name: str, **settings: Any) -> torch.Tensor:
    config = TrainConfig(advantage=f"mine:{name}", **settings)
    return step_advantages(GROUPS, config, longest=10)


def test_they_are_those_of_dr_grpo_to_the_bit() -> None:
    expected = step_advantages(GROUPS, TrainConfig(algorithm="dr_grpo"), longest=10)
    assert torch.equal(advantages("centred"), expected)


def test_rollouts_that_are_left_out_get_nothing() -> None:
    assert advantages("seen").tolist() == [[1.0] * 3, [1.0] * 3]
    masked = [[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]]
    assert advantages("seen", overlong="mask").tolist() == masked
    assert advantages("trained", overlong="mask")[1].tolist() == [0.5, 0.0, 1.0]


def test_whatever_the_function_does_to_what_it_is_given() -> None:
    assert advantages("spoils").tolist() == [[7.0] * 3, [7.0] * 3]
    assert not advantages("trained").requires_grad
    assert advantages("whole").dtype == torch.float64


def test_the_weight_of_what_is_better_applies() -> None:
    doubled, once = advantages("centred", positive_weight=2.0), advantages("centred")
    assert torch.equal(doubled, torch.where(once > 0, 2 * once, once))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", r"returned None, which is no tensor, .*of shape \[2, 3\]"),
        ("array", r"returned array\(.*\), which is no tensor, "),
        ("flat", r"returned a tensor of shape \[2\] and type torch.float64, .*of shape \[2, 3\]"),
        ("imaginary", r"returned a tensor of .* type torch.complex128, .*real numbers is needed"),
        ("infinite", "returned nan, which is no finite .*: document d, position 4, rollout 1"),
        ("huge", r"returned 1e\+16, which is no finite .*: document d, position 4, rollout 0"),
        ("divides", r"raised ZeroDivisionError \(.*\) for a step's rewards"),
        ("exits", r"raised SystemExit \(3\) for a step's rewards"),
    ],
)
def test_what_can_not_be_used_is_one_line(name: str, said: str) -> None:
    with pytest.raises(UserError, match=f"^'mine:{name}' {said}") as error:
        advantages(name)
    assert "train.advantage" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("advantage", "asks for 'lengths', which is unknown: it may read rewards, mask"),
        ("reads_nothing", "reads nothing: it may read rewards, mask"),
        ("centered", "module 'mine' has no function 'centered'; nearest: 'centred'"),
    ],
)
def test_what_can_not_be_called_is_refused(name: str, said: str) -> None:
    with pytest.raises(UserError, match=f"^train.advantage: 'mine:{name}'.*{said}"):
        advantages(name)


def test_a_reward_that_failed_elsewhere_is_the_functions_own_to_judge() -> None:
    bad = [group_of(1, [math.nan, 0.0, 1.0], [True] * 3), GROUPS[1]]
    with pytest.raises(UserError, match=r"returned nan, .*position 1, rollout 0"):
        step_advantages(bad, TrainConfig(advantage="mine:centred"), longest=10)


def test_names_and_what_they_go_with() -> None:
    with pytest.raises(UserError, match="unknown advantage 'rlo'; nearest: 'rloo', or package"):
        load_config(overrides={"train.advantage": "rlo"})
    exact = {
        "train.advantage": "mine:centred",
        "train.algorithm": "dr_grpo",
        "train.answer_gradient": "exact",
        "reward.terms": {"expected": 1.0},
    }
    with pytest.raises(UserError, match="which 'mine:centred' does not say: leave advantage at"):
        load_config(overrides=exact)
