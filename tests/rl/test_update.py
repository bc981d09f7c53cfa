"""A whole update: the gradient of every term together, tree against flat, any micro-batch."""

from dataclasses import replace

import pytest
import torch

from openrpt.engine.engine import bind
from openrpt.errors import UserError
from openrpt.rl.batch import step_totals
from openrpt.rl.losses import StepTotals
from openrpt.rl.nonfinite import NotFinite
from openrpt.rl.update import update_policy
from tests.helpers.byte_policy import policy_of
from tests.helpers.updates import (
    assert_equal,
    batch_of,
    by_hand,
    config_of,
    gradients,
    layout_of,
    reference_of,
)


@pytest.mark.parametrize("template", ["minimal", "chat"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_the_whole_gradient_equals_flat(family, template):
    """NTP + GRPO + entropy + KL in one step, whatever the micro-batch."""
    config = config_of(prompt__template=template)
    policy, reference = policy_of(family), reference_of(family)
    batch = batch_of(policy, config)
    expected, flat_metrics = gradients(policy, "flat", batch, config, reference)
    for tokens in (1, 13, 1024):
        config = config_of(prompt__template=template, memory__microbatch_tokens=tokens)
        found, metrics = gradients(policy, "tree", batch, config, reference)
        assert_equal(found, expected)
        assert metrics == pytest.approx(flat_metrics, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("algorithm", ["grpo", "dr_grpo"])
@pytest.mark.parametrize(("template", "think"), [("minimal", 0), ("minimal", 2), ("chat", 2)])
def test_the_whole_gradient_equals_plain_autograd(algorithm, template, think):
    config = config_of(
        train__algorithm=algorithm, prompt__template=template, prompt__think_budget=think
    )
    policy, reference = policy_of(), reference_of("llama")
    layout = layout_of(policy, config)
    batch = batch_of(policy, config)
    found, metrics = gradients(policy, "tree", batch, config, reference)
    for one in (policy, reference):
        one.network.set_attn_implementation("sdpa")
    policy.network.zero_grad()
    loss = by_hand(policy, batch, config, layout, reference)
    loss.backward()
    expected = {n: p.grad for n, p in policy.network.named_parameters()}
    assert_equal(found, expected)
    total = metrics["loss/policy"] + config.train.ntp_weight * metrics["loss/ntp"]
    assert total == pytest.approx(loss.item(), rel=1e-9)
    norm = torch.stack([g.norm() for g in expected.values()]).norm().item()
    assert metrics["optim/grad_norm"] == pytest.approx(norm, rel=1e-8)


def test_the_ratio_is_1_before_the_first_update():
    config = config_of(train__kl_weight=0.0)
    policy = policy_of()
    _, metrics = gradients(policy, "tree", batch_of(policy, config), config)
    assert metrics["policy/ratio"] == pytest.approx(1, abs=1e-12)
    assert metrics["policy/sampler_difference"] < 1e-12
    assert metrics["policy/clip_fraction"] == metrics["policy/mismatch"] == 0


def test_flat_groups_are_not_run_but_count():
    """Their gradient is 0: the step equals one that runs them, and divides by all rollouts."""
    config = config_of(train__kl_weight=0.0, train__entropy_weight=0.0)
    policy = policy_of()
    batch = batch_of(policy, config)
    skipped, metrics = gradients(policy, "tree", batch, config)
    run, run_metrics = gradients(policy, "flat", batch, config)
    assert_equal(skipped, run)
    completions = [r.completion for w in batch for n in (0, 2) for r in w.groups[n].rollouts]
    trained = sum(c.num_trained_tokens for c in completions)
    assert metrics["tokens/trained_run"] == run_metrics["tokens/trained_run"] == trained
    layout = layout_of(policy, config)
    everything = [r.completion for w in batch for g in w.groups for r in g.rollouts]
    assert step_totals(batch, config, layout) == StepTotals(
        tokens=sum(c.num_trained_tokens for c in everything),
        rollouts=18,
        length=2 + 3 + len(layout.answer_start_ids),
    )
    # Without NTP the loss of the other groups alone is 18 / 12 times as large.
    alone = config_of(train__kl_weight=0.0, train__entropy_weight=0.0, train__ntp_weight=0.0)
    whole, _ = gradients(policy, "tree", batch, alone)
    kept = [
        replace(
            w,
            work=replace(w.work, positions=(w.work.positions[0], w.work.positions[2])),
            groups=(w.groups[0], w.groups[2]),
            advantages=w.advantages[[0, 2]],
        )
        for w in batch
    ]
    others, _ = gradients(policy, "tree", kept, alone)
    assert_equal({n: g * 12 / 18 for n, g in others.items()}, whole)


def test_only_live_groups_are_divided_by_where_that_is_asked_for():
    values = {"train__kl_weight": 0.0, "train__entropy_weight": 0.0, "train__ntp_weight": 0.0}
    policy = policy_of()
    for algorithm in ("grpo", "dapo", "rloo"):  # each aggregation
        settings = values | {"train__algorithm": algorithm, "train__overlong": "keep"}
        live = config_of(**settings, train__denominator="live")
        batch = batch_of(policy, live)
        found, _ = gradients(policy, "tree", batch, live)
        kept = [
            replace(
                w,
                work=replace(w.work, positions=(w.work.positions[0], w.work.positions[2])),
                groups=(w.groups[0], w.groups[2]),
                advantages=w.advantages[[0, 2]],
            )
            for w in batch
        ]
        alone, _ = gradients(policy, "tree", kept, config_of(**settings))
        assert_equal(found, alone)
    with pytest.raises(UserError, match="denominator = live does not hold with kl_weight"):
        config_of(train__denominator="live")


def test_positive_advantages_are_weighed_down():
    policy = policy_of()
    whole = batch_of(policy, config_of())
    found = batch_of(policy, config_of(train__positive_weight=0.1))
    for one, other in zip(whole, found, strict=True):
        positive = one.advantages > 0
        assert positive.any() and (~positive).any()
        assert torch.equal(other.advantages[~positive], one.advantages[~positive])
        assert torch.equal(other.advantages[positive], 0.1 * one.advantages[positive])


def test_entropy_and_kl_read_flat_groups():
    policy = policy_of()
    config = config_of(train__ntp_weight=0.0, train__kl_weight=0.0)
    batch = batch_of(policy, config, flat=(0, 1, 2))
    _, metrics = gradients(policy, "tree", batch, config)
    completions = [r.completion for w in batch for g in w.groups for r in g.rollouts]
    assert metrics["tokens/trained_run"] == sum(c.num_trained_tokens for c in completions)
    assert metrics["optim/grad_norm"] > 0


def test_a_step_with_nothing_to_learn_changes_nothing():
    policy = policy_of()
    config = config_of(train__ntp_weight=0.0, train__kl_weight=0.0, train__entropy_weight=0.0)
    batch = batch_of(policy, config, flat=(0, 1, 2))
    found, metrics = gradients(policy, "tree", batch, config)
    assert found == {} and metrics["optim/grad_norm"] == 0 == metrics["tokens/trained_run"]


def test_several_updates_are_off_policy_after_the_first():
    config = config_of(train__updates_per_batch=3, train__kl_weight=0.0)
    policy = policy_of()
    batch = batch_of(policy, config)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.05)
    layout = layout_of(policy, config)
    metrics = update_policy(bind("tree", policy), optimizer, batch, config, layout)
    assert abs(metrics["policy/ratio"] - 1) > 1e-4


def test_a_gradient_that_is_not_finite_changes_nothing():
    config = config_of(train__kl_weight=0.0)
    policy = policy_of()
    batch = batch_of(policy, config)
    batch = [replace(w, advantages=w.advantages * float("nan")) for w in batch]
    before = {n: p.detach().clone() for n, p in policy.network.named_parameters()}
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.1)
    layout = layout_of(policy, config)
    said = (
        "a loss is not finite at document d0, positions 6, 15, 16; document d1, positions 6, 15, 16"
    )
    with pytest.raises(NotFinite, match=f"^{said}: the update was not made; .*skip"):
        update_policy(bind("tree", policy), optimizer, batch, config, layout)
    assert all((p == before[n]).all() for n, p in policy.network.named_parameters())


def test_the_position_of_a_loss_that_is_not_finite_is_named():
    config = config_of(train__kl_weight=0.0, memory__microbatch_tokens=1000)
    policy = policy_of()
    batch = batch_of(policy, config)
    batch[1].advantages[2, 0] = float("inf")
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.1)
    layout = layout_of(policy, config)
    with pytest.raises(NotFinite, match=r"^a loss is not finite at document d1, position 16: "):
        update_policy(bind("tree", policy), optimizer, batch, config, layout)
