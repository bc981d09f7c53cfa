"""Algorithms as the config names them, down to the update: presets, overrides, correction."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from openrpt.config.algorithms import ALGORITHMS, Algorithm, AlgorithmName
from openrpt.config.loading import load_config
from openrpt.config.reinforcement import TrainConfig
from openrpt.config.sections import Config
from openrpt.errors import UserError
from openrpt.rl.batch import step_advantages
from openrpt.rl.update import loss_config_for
from openrpt.stages.train import open_train
from openrpt.types import Completion, Group, Position, Prompt, Rollout
from tests.helpers.byte_policy import policy_of
from tests.helpers.tiny_model import tiny_run
from tests.helpers.updates import (
    assert_equal,
    batch_of,
    by_hand,
    config_of,
    gradients,
    layout_of,
    reference_of,
)


def test_every_name_has_a_recipe() -> None:
    assert tuple(ALGORITHMS) == get_args(AlgorithmName)
    for name in get_args(AlgorithmName):
        config = TrainConfig(algorithm=name)
        assert config.recipe() == ALGORITHMS[name]
        loss = loss_config_for(Config(train=config))
        assert loss.clip_high == ALGORITHMS[name].clip_high


def test_what_the_papers_say() -> None:
    assert ALGORITHMS["dapo"] == Algorithm(
        advantage="grpo",
        aggregation="token_mean",
        clip_low=0.2,
        clip_high=0.28,
        overlong="penalty",
        dynamic_sampling_from=0,
    )
    gspo = loss_config_for(Config(train=TrainConfig(algorithm="gspo")))
    assert (gspo.ratio_level, gspo.aggregation) == ("sequence", "sequence_mean")
    assert (gspo.clip_low, gspo.clip_high) == (3e-4, 4e-4)
    assert (
        loss_config_for(Config(train=TrainConfig(algorithm="dr_grpo"))).aggregation
        == "constant_length"
    )


def test_single_pieces_are_overridden() -> None:
    config = load_config(
        overrides={
            "train.algorithm": "dapo",
            "train.advantage": "rloo",
            "train.clip_low": 0.0,
            "train.overlong": "keep",
            "train.dynamic_sampling_from": "never",
        }
    )
    assert config.train.recipe() == Algorithm(
        advantage="rloo", aggregation="token_mean", clip_low=0.0, clip_high=0.28
    )
    other = TrainConfig(ratio_level="sequence", aggregation="token_mean", dynamic_sampling_from=7)
    assert other.recipe() == Algorithm(
        advantage="grpo",
        aggregation="token_mean",
        ratio_level="sequence",
        dynamic_sampling_from=7,
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"clip_low": -0.5},
            r"^command line: train\.clip_low = -0\.5: input should be greater than or equal to 0,"
            " or 'auto'$",
        ),
        ({"algorithm": "pass_at_k", "pass_at_k": 9}, "pass_at_k must be at most group_size"),
        ({"algorithm": "maxrl", "overlong": "penalty"}, "use overlong = mask"),
        (
            {"importance_correction": "token_mask", "importance_min": 3.0},
            "importance_min must be below importance_max",
        ),
        ({"algorithm": "ppo"}, "train.algorithm = 'ppo'"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(overrides={f"train.{key}": value for key, value in values.items()})


# ---- Advantages of a step -----------------------------------------------------------------------


def group_of(*rollouts: tuple[float, int, bool]) -> Group:
    """Each (reward, trained tokens, stopped by itself)."""
    position = Position(document_id="d", index=1)
    return Group(
        prompt=Prompt(position=position, head_ids=(), prefix_ids=(), tail_ids=()),
        rollouts=tuple(
            Rollout(
                completion=Completion(
                    token_ids=(1,) * tokens,
                    sampler_logprobs=(0.0,) * tokens,
                    loss_mask=(True,) * tokens,
                    finish_reason="stop" if stopped else "length",
                ),
                thought=b"",
                prediction=None,
                exact=reward == 1,
                reward=reward,
            )
            for reward, tokens, stopped in rollouts
        ),
        ntp_token_id=0,
    )


def test_overlong_completions() -> None:
    """At most 10 tokens, with a buffer of 2: the third is one over, the fourth did not stop."""
    group = group_of((1.0, 3, True), (0.0, 8, True), (1.0, 9, True), (0.0, 4, False))

    def advantages(**values: Any) -> list[float]:
        config = TrainConfig(algorithm="dr_grpo", **values)
        return step_advantages([group], config, longest=10)[0].tolist()

    assert advantages() == [0.5, -0.5, 0.5, -0.5]
    mean = 2 / 3
    assert advantages(overlong="mask") == pytest.approx([1 - mean, -mean, 1 - mean, 0])
    # Rewards 1, 0, 0.5 and −1.
    assert advantages(overlong="penalty") == pytest.approx([0.875, -0.125, 0.375, -1.125])


def test_the_penalty_makes_a_group_of_wrong_ones_live() -> None:
    group = group_of((0.0, 3, True), (0.0, 4, False))
    for name, live in (("grpo", False), ("dapo", True)):
        config = TrainConfig(algorithm=name)  # type: ignore[arg-type]
        assert bool(step_advantages([group], config, longest=10).any()) is live


# ---- The update ---------------------------------------------------------------------------------

QUIET = {"train__kl_weight": 0.0, "train__entropy_weight": 0.0}


def trained_tokens(batch, groups: set[int]) -> int:
    completions = [r.completion for w in batch for n in groups for r in w.groups[n].rollouts]
    return sum(c.num_trained_tokens for c in completions)


@pytest.mark.parametrize(
    ("algorithm", "live"),
    # Rewards of the groups: 1 0 0, flat, 0 1 0. Two of three are right nowhere, so that k = 3
    # leaves no choice that is wrong: nothing is learned, though the rewards differ.
    [("reinforce_plus_plus", {0, 2}), ("maxrl", {0, 2}), ("rloo", {0, 2}), ("pass_at_k", set())],
)
def test_what_is_run_is_read_off_the_advantages(algorithm: str, live: set[int]) -> None:
    config = config_of(train__algorithm=algorithm, train__pass_at_k=3, **QUIET)
    policy = policy_of()
    batch = batch_of(policy, config)
    found, metrics = gradients(policy, "tree", batch, config)
    assert metrics["tokens/trained_run"] == trained_tokens(batch, live)
    expected, _ = gradients(policy, "flat", batch, config)
    assert_equal(found, expected)


def another_sampler(batch):
    """The same completions, drawn by something that held other log-probabilities for them."""
    torch.manual_seed(3)

    def moved(rollout: Rollout) -> Rollout:
        noise = (0.5 * torch.randn(len(rollout.completion.token_ids))).tolist()
        known = rollout.completion.sampler_logprobs
        logprobs = tuple(a + b for a, b in zip(known, noise, strict=True))
        return replace(rollout, completion=replace(rollout.completion, sampler_logprobs=logprobs))

    return [
        replace(
            w,
            groups=tuple(
                replace(g, rollouts=tuple(moved(r) for r in g.rollouts)) for g in w.groups
            ),
        )
        for w in batch
    ]


@pytest.mark.parametrize(
    ("algorithm", "mode", "options"),
    [
        ("grpo", "truncate", {}),
        ("gspo", "token_mask", {}),
        ("cispo", "sequence_mask", {"train__importance_min": 0.1}),
        ("dapo", "off", {}),
    ],
)
def test_a_sampler_that_differs(algorithm: str, mode: str, options: dict[str, Any]) -> None:
    """The tree's gradient equals plain autograd's, whose old log-probabilities are its own."""
    settings = {"train__algorithm": algorithm, "train__importance_correction": mode, **options}
    config = config_of(**settings)
    policy, reference = policy_of(), reference_of("llama")
    batch = another_sampler(batch_of(policy, config))
    found, metrics = gradients(policy, "tree", batch, config, reference)
    for one in (policy, reference):
        one.network.set_attn_implementation("sdpa")
    policy.network.zero_grad()
    by_hand(policy, batch, config, layout_of(policy, config), reference).backward()
    expected = {n: p.grad for n, p in policy.network.named_parameters() if p.grad is not None}
    assert_equal(found, expected)
    if mode == "off":  # the sampler's stand for the old ones: the ratio takes the difference up
        assert metrics["policy/mismatch"] == 0 and abs(metrics["policy/ratio"] - 1) > 0.01
    else:
        assert metrics["policy/mismatch"] > 0.1
        assert metrics["policy/ratio"] == pytest.approx(1, abs=1e-9)
        assert (metrics["policy/dropped_fraction"] > 0) is (mode != "truncate")


def test_old_logprobs_stay_those_before_the_first_update() -> None:
    config = config_of(train__updates_per_batch=2, train__importance_correction="truncate", **QUIET)
    policy = policy_of()
    batch = another_sampler(batch_of(policy, config))
    _, still = gradients(policy, "tree", batch, config)  # at a rate of 0
    assert still["policy/ratio"] == pytest.approx(1, abs=1e-9)


# ---- Dynamic sampling ---------------------------------------------------------------------------


def test_dapo_samples_dynamically_from_the_start(tmp_path: Path) -> None:
    """An untrained model is never right: all its groups are flat, so the budget is used up."""
    run = tiny_run(tmp_path, train__algorithm="dapo")
    wanted = run.config.train.documents_per_step * run.config.train.positions_per_document
    for first, rounds in (("auto", 3), ("never", 1), (5, 1)):
        train = run.config.train.model_copy(update={"dynamic_sampling_from": first})
        config = run.config.model_copy(update={"train": train})
        trainer = open_train(replace(run, config=config))
        _, generated = trainer.collector.collect(trainer.state)
        assert sum(len(graded.groups) for graded in generated) == rounds * wanted
