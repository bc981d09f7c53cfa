"""Separate AdamW states for the plain loss and the rest: against torch, and over a restart."""

from pathlib import Path
from typing import Any

import torch

from openrpt.engine.engine import bind
from openrpt.rl.optimizer import PairedAdamW, make_optimizer
from openrpt.rl.update import update_policy
from openrpt.runs.run import Run
from openrpt.stages.train import train
from tests.helpers.byte_policy import policy_of
from tests.helpers.run_files import rollouts_of, rows_of, weights_of
from tests.helpers.tiny_model import copied_run, tiny_run
from tests.helpers.updates import assert_equal, batch_of, config_of, gradients, layout_of

RATE, DECAY, BETAS = 0.1, 0.05, (0.9, 0.99)


def test_the_pair_is_the_mean_of_two_of_torchs() -> None:
    """Over steps in which now the one and now the other gradient is missing."""
    torch.manual_seed(0)
    start = torch.randn(3, 4, dtype=torch.float64)
    own = torch.nn.Parameter(start.clone())
    pair = PairedAdamW([{"params": [own], "weight_decay": DECAY}], lr=RATE, betas=BETAS)
    singles = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    adams = [torch.optim.AdamW([p], lr=RATE, betas=BETAS, weight_decay=0.0) for p in singles]
    weights = start.clone()
    for step in range(6):
        given = [torch.randn(3, 4, dtype=torch.float64) for _ in range(2)]
        before = [p.detach().clone() for p in singles]
        for n, (p, gradient) in enumerate(zip(singles, given, strict=True)):
            p.grad = None if step == 2 + n else gradient
        own.grad = singles[0].grad
        pair.set_aside()
        own.grad = singles[1].grad
        pair.step()
        for adam in adams:
            adam.step()
        moved = [p.detach() - old for p, old in zip(singles, before, strict=True)]
        weights = weights * (1 - RATE * DECAY) + (moved[0] + moved[1]) / 2
        assert (own.detach() - weights).abs().max() < 1e-12


def test_each_gradient_goes_to_its_own_moments() -> None:
    """After the first step the mean of a gradient is a tenth of it: of the rollouts' and the
    text's, which together are the joint one."""
    config = config_of(train__kl_weight=0.0, train__adam_states="separate")
    policy = policy_of()
    batch = batch_of(policy, config)
    joint, known = gradients(policy, "tree", batch, config_of(train__kl_weight=0.0))
    alone, _ = gradients(
        policy, "tree", batch, config_of(train__kl_weight=0.0, train__ntp_weight=0.0)
    )
    optimizer = make_optimizer(
        policy, config.optim, weight_decay=config.optim.weight_decay, paired=True
    )
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    layout = layout_of(policy, config)
    metrics = update_policy(bind("tree", policy), optimizer, batch, config, layout)
    for key in ("loss/policy", "loss/ntp"):
        assert abs(metrics[key] - known[key]) < 1e-10
    names = {parameter: name for name, parameter in policy.network.named_parameters()}
    kept = {names[p]: optimizer.state[p] for p in names}
    assert_equal({n: 10 * state["exp_avg"] for n, state in kept.items()}, alone)
    both = {n: 10 * (state["exp_avg"] + state["text_exp_avg"]) for n, state in kept.items()}
    assert_equal(both, joint)


def test_a_run_with_exact_answers_and_separate_states_resumes_to_the_same_bits(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {
        "prompt__think_budget": 3,
        "reward__terms": {"expected": 1.0, "log_expected": 0.01, "prefix": 0.0},
        "reward__thought_cost": 0.001,
        "train__algorithm": "rloo",
        "train__answer_gradient": "exact",
        "train__adam_states": "separate",
        "train__learning_rate": 1e-3,
    }
    begun = tiny_run(tmp_path, **settings)
    whole, parts = (copied_run(begun, name, **settings) for name in ("whole", "parts"))
    for run, stops in ((whole, (4,)), (parts, (2, 4))):
        for steps in stops:
            section = run.config.train.model_copy(update={"steps": steps})
            train(Run(path=run.path, config=run.config.model_copy(update={"train": section})))
    assert rows_of(whole) == rows_of(parts)
    assert rollouts_of(whole) == rollouts_of(parts)
    assert weights_of(whole, 4) == weights_of(parts, 4)
    last = rows_of(whole)[-1]
    for key in ("reward/expected", "reward/log_expected", "thought/share", "thought/tokens"):
        assert key in last
    assert last["loss/answer"] < 0 < last["reward/expected"] < 1
