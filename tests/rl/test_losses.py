"""The policy loss against the published formulas of TRL and verl, worked by hand token by token."""

import math
from dataclasses import replace

import pytest
import torch

from openrpt.rl.losses import LossConfig, LossInputs, StepTotals, policy_loss

B, T = 4, 5
LENGTHS = [5, 3, 1, 4]
TOTALS = StepTotals(tokens=17, rollouts=6, length=9)  # of a whole step: more than these rollouts
AGGREGATIONS = ["token_mean", "sequence_mean", "constant_length"]


def inputs(seed: int = 0, spread: float = 0.5) -> LossInputs:
    """Random float64 inputs whose ratios lie on both sides of the clips; gaps in the masks."""
    torch.manual_seed(seed)

    def values() -> torch.Tensor:
        return -2 + spread * torch.randn(B, T, dtype=torch.float64)

    mask = torch.arange(T)[None] < torch.tensor(LENGTHS)[:, None]
    mask[0, 2] = False  # a forced token in the middle
    return LossInputs(
        trainer_logprobs=values().requires_grad_(),
        old_logprobs=values(),
        sampler_logprobs=values(),
        reference_logprobs=values(),
        entropies=torch.rand(B, T, dtype=torch.float64).requires_grad_(),
        advantages=torch.tensor([1.5, -0.7, 0.4, -1.1], dtype=torch.float64),
        loss_mask=mask,
    )


def by_hand(given: LossInputs, config: LossConfig, totals: StepTotals) -> torch.Tensor:
    """One scalar at a time, from the formulas:

    per token −min(ρ A, clip(ρ, 1 − low, 1 + high) A) (arXiv 2402.03300, Eq. 3), or CISPO's
    −clip(ρ, …) A log p with the first factor constant (arXiv 2506.13585), times the importance
    weight, plus β (exp(ref − now) − (ref − now) − 1), minus the bonus.
    """
    total = torch.zeros((), dtype=torch.float64)
    for i in range(B):
        tokens = [t for t in range(T) if given.loss_mask[i, t]]
        logs = [given.trainer_logprobs[i, t] - given.old_logprobs[i, t] for t in tokens]
        if config.ratio_level == "sequence":  # GSPO-token (arXiv 2507.18071), as verl has it
            mean = sum(log.detach() for log in logs) / len(logs)
            logs = [log - log.detach() + mean for log in logs]
        losses = []
        for t, log_ratio in zip(tokens, logs, strict=True):
            ratio, advantage = log_ratio.exp(), given.advantages[i]
            clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
            loss = -torch.minimum(ratio * advantage, clipped * advantage)
            if config.surrogate == "cispo":
                loss = -clipped.item() * advantage * given.trainer_logprobs[i, t]
            loss = loss * weight_by_hand(given, config, i, t)
            gap = given.reference_logprobs[i, t] - given.trainer_logprobs[i, t]
            loss = loss + config.kl_weight * (gap.exp() - gap - 1)
            losses.append(loss - config.entropy_weight * given.entropies[i, t])
        if config.aggregation == "token_mean":
            total = total + sum(losses) / totals.tokens
        elif config.aggregation == "sequence_mean":
            total = total + sum(losses) / len(losses) / totals.rollouts
        else:
            total = total + sum(losses) / (totals.rollouts * totals.length)
    return total


def weight_by_hand(given: LossInputs, config: LossConfig, i: int, t: int) -> float:
    def weight(token: int) -> float:
        return math.exp(given.old_logprobs[i, token] - given.sampler_logprobs[i, token])

    found = weight(t)
    match config.importance_correction:
        case "off":
            return 1.0
        case "truncate":
            return min(found, config.importance_max)
        case "sequence_mask":
            found = math.prod(weight(token) for token in range(T) if given.loss_mask[i, token])
    return found if config.importance_min <= found <= config.importance_max else 0.0


CONFIGS = {
    "plain": LossConfig(),
    "asymmetric clip": LossConfig(clip_low=0.1, clip_high=0.6),
    "kl": LossConfig(kl_weight=0.3),
    "entropy": LossConfig(entropy_weight=0.2),
    "truncated importance": LossConfig(importance_correction="truncate", importance_max=1.5),
    "masked tokens": LossConfig(importance_correction="token_mask", importance_max=1.5),
    "masked rollouts": LossConfig(importance_correction="sequence_mask", importance_min=0.2),
    "cispo": LossConfig(surrogate="cispo", clip_low=1.0, clip_high=0.2),
    "cispo, all": LossConfig(
        surrogate="cispo",
        clip_low=0.1,
        kl_weight=0.3,
        entropy_weight=0.2,
        importance_correction="token_mask",
    ),
    "sequence": LossConfig(ratio_level="sequence", clip_low=0.05, clip_high=0.1),
    "all": LossConfig(
        ratio_level="sequence",
        kl_weight=0.3,
        entropy_weight=0.2,
        importance_correction="truncate",
    ),
}


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", CONFIGS)
def test_value_and_gradient_by_hand(name, aggregation):
    config = replace(CONFIGS[name], aggregation=aggregation)
    live = 0
    for seed in range(3):
        given = inputs(seed)
        leaves = [given.trainer_logprobs, given.entropies]
        found = policy_loss(given, config, TOTALS).loss
        expected = by_hand(given, config, TOTALS)
        assert found.item() == pytest.approx(expected.item(), rel=1e-12)
        got = torch.autograd.grad(found, leaves, allow_unused=True)
        wanted = torch.autograd.grad(expected, leaves, allow_unused=True)
        for a, b in zip(got, wanted, strict=True):
            a, b = (torch.zeros(B, T) if g is None else g for g in (a, b))
            torch.testing.assert_close(a.double(), b.double(), rtol=1e-10, atol=1e-14)
        live += int(wanted[0].count_nonzero())
    assert live > 5  # not all of it was clipped


def one_token(ratio: float, advantage: float, **options) -> tuple[float, float]:
    """Loss and d loss / d log p of a single token."""
    now = torch.tensor([[math.log(ratio) - 1]], dtype=torch.float64, requires_grad=True)
    old = torch.full((1, 1), -1.0, dtype=torch.float64)
    given = LossInputs(
        trainer_logprobs=now,
        old_logprobs=old,
        sampler_logprobs=options.pop("sampler", old),
        reference_logprobs=options.pop("reference", None),
        advantages=torch.tensor([advantage], dtype=torch.float64),
        loss_mask=torch.ones(1, 1, dtype=torch.bool),
    )
    totals = StepTotals(tokens=1, rollouts=1, length=1)
    loss = policy_loss(given, LossConfig(**options), totals).loss
    return loss.item(), torch.autograd.grad(loss, now)[0].item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.0, 2.0, -2.0, -2.0),  # on-policy: −A, and the policy gradient
        (1.1, 2.0, -2.2, -2.2),  # inside
        (1.5, 2.0, -2.56, 0.0),  # above 1 + 0.28 with A > 0: clipped, no gradient
        (0.5, 2.0, -1.0, -1.0),  # below with A > 0: not clipped
        (1.5, -2.0, 3.0, 3.0),  # above with A < 0: not clipped
        (0.5, -2.0, 1.6, 0.0),  # below 1 − 0.2 with A < 0: clipped
    ],
)
def test_clips_are_asymmetric(ratio, advantage, loss, gradient):
    found = one_token(ratio, advantage, clip_low=0.2, clip_high=0.28)
    assert found == (pytest.approx(loss), pytest.approx(gradient))


def test_kl_is_k3():
    """exp(ref − now) − (ref − now) − 1: 0 where equal, with gradient 1 − exp(ref − now)."""
    at = torch.full((1, 1), -1.0, dtype=torch.float64)
    assert one_token(1.0, 0.0, reference=at, kl_weight=0.5) == (pytest.approx(0), pytest.approx(0))
    loss, gradient = one_token(1.0, 0.0, reference=at + 0.3, kl_weight=0.5)
    assert loss == pytest.approx(0.5 * (math.exp(0.3) - 0.3 - 1))
    assert gradient == pytest.approx(0.5 * (1 - math.exp(0.3)))


def test_importance_is_truncated_above_only():
    old = torch.full((1, 1), -1.0, dtype=torch.float64)
    for gap, weight in [(-2.0, math.exp(-2)), (0.5, math.exp(0.5)), (2.0, 3.0)]:
        found = one_token(
            1.0, 2.0, sampler=old - gap, importance_correction="truncate", importance_max=3.0
        )
        assert found == (pytest.approx(-2 * weight), pytest.approx(-2 * weight))


@pytest.mark.parametrize("mode", ["token_mask", "sequence_mask"])
@pytest.mark.parametrize(("weight", "kept"), [(0.4, 0), (0.6, 1), (1.9, 1), (2.1, 0)])
def test_masks_drop_outside_the_band_and_keep_the_weight_inside(mode, weight, kept):
    old = torch.full((1, 1), -1.0, dtype=torch.float64)
    sampler = old - math.log(weight)
    found = one_token(1.0, 2.0, sampler=sampler, importance_correction=mode)
    assert found == (pytest.approx(-2 * weight * kept), pytest.approx(-2 * weight * kept))


def test_the_correction_leaves_kl_alone():
    old = torch.full((1, 1), -1.0, dtype=torch.float64)
    options = {"reference": old + 0.3, "kl_weight": 0.5}
    plain = one_token(1.0, 0.0, **options)
    dropped = one_token(1.0, 2.0, sampler=old - 5, importance_correction="token_mask", **options)
    assert dropped == plain and plain[0] > 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "gradient"),
    [
        (1.0, 2.0, -2.0),  # on-policy: the policy gradient, as everywhere
        (1.5, 2.0, -2.56),  # beyond the clip the gradient goes on, with the clipped weight
        (1.5, -2.0, 2.56),  # for a bad rollout too
        (0.1, 2.0, -0.2),  # no bound below
    ],
)
def test_cispo_gives_every_token_a_gradient(ratio, advantage, gradient):
    found = one_token(ratio, advantage, surrogate="cispo", clip_low=1.0, clip_high=0.28)
    assert found[1] == pytest.approx(gradient)


def test_sequence_ratio_is_the_geometric_mean():
    """GSPO's gradient: s_i · A_i · (1 / |y_i|) Σ ∇ log p, with s_i = exp(mean log ratio)."""
    given = inputs(spread=0.05)  # inside the clips
    config = LossConfig(ratio_level="sequence", aggregation="sequence_mean")
    loss = policy_loss(given, config, TOTALS).loss
    (gradient,) = torch.autograd.grad(loss, given.trainer_logprobs)
    expected = torch.zeros_like(gradient)
    for i in range(B):
        mask = given.loss_mask[i]
        s = (given.trainer_logprobs - given.old_logprobs)[i, mask].mean().exp()
        expected[i, mask] = (-s * given.advantages[i] / mask.sum() / TOTALS.rollouts).detach()
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", CONFIGS)
def test_micro_batches_sum_to_the_step(name, aggregation):
    config = replace(CONFIGS[name], aggregation=aggregation)
    given = inputs()
    whole = policy_loss(given, config, TOTALS)
    names = ["trainer_logprobs", "old_logprobs", "sampler_logprobs", "reference_logprobs"]
    names += ["entropies", "advantages", "loss_mask"]
    for cut in ([1, 3], [1, 1, 1, 1]):
        pieces = [getattr(given, name).split(cut) for name in names]
        outputs = [
            policy_loss(LossInputs(**dict(zip(names, part, strict=True))), config, TOTALS)
            for part in zip(*pieces, strict=True)
        ]
        total = sum(output.loss.item() for output in outputs)
        assert total == pytest.approx(whole.loss.item(), rel=1e-12)
        for key, value in whole.metrics.items():
            total = sum(o.metrics[key].total for o in outputs)
            assert total == pytest.approx(value.total, rel=1e-12)
            assert sum(o.metrics[key].count for o in outputs) == value.count


@pytest.mark.parametrize("name", CONFIGS)
def test_what_the_mask_leaves_out_may_be_anything(name):
    given = inputs()
    clean = policy_loss(given, CONFIGS[name], TOTALS)
    (expected,) = torch.autograd.grad(clean.loss, given.trainer_logprobs)
    dirty = {}
    for field in ("trainer_logprobs", "old_logprobs", "sampler_logprobs", "reference_logprobs"):
        values = getattr(given, field).detach().clone()
        values[~given.loss_mask] = {"old_logprobs": math.inf}.get(field, math.nan)
        dirty[field] = values
    dirty["trainer_logprobs"].requires_grad_()
    dirty["entropies"] = given.entropies.detach().masked_fill(~given.loss_mask, math.nan)
    found = policy_loss(replace(given, **dirty), CONFIGS[name], TOTALS)
    (gradient,) = torch.autograd.grad(found.loss, dirty["trainer_logprobs"])
    assert found.loss.item() == pytest.approx(clean.loss.item(), rel=1e-12)
    torch.testing.assert_close(gradient, expected)
    assert {name: mean.value for name, mean in found.metrics.items()} == pytest.approx(
        {name: mean.value for name, mean in clean.metrics.items()}
    )


def test_a_rollout_without_trained_tokens_is_counted_but_adds_nothing():
    given = inputs()
    mask = given.loss_mask.clone()
    mask[1] = False
    for aggregation in AGGREGATIONS:
        config = LossConfig(aggregation=aggregation)  # type: ignore[arg-type]
        loss = policy_loss(replace(given, loss_mask=mask), config, TOTALS).loss
        (gradient,) = torch.autograd.grad(loss, given.trainer_logprobs)
        assert torch.isfinite(loss) and not gradient[1].any() and gradient[0].any()


def test_metrics_are_means_over_trained_tokens():
    given = inputs()
    config = LossConfig(clip_low=0.1, clip_high=0.3)
    metrics = policy_loss(given, config, TOTALS).metrics
    ratios = (given.trainer_logprobs - given.old_logprobs).exp()
    clipped = mismatch = 0.0
    for i in range(B):
        for t in range(T):
            if given.loss_mask[i, t]:
                mismatch += abs(given.old_logprobs[i, t] - given.sampler_logprobs[i, t]).item()
                up = given.advantages[i] > 0 and ratios[i, t] > 1.3
                down = given.advantages[i] < 0 and ratios[i, t] < 0.9
                clipped += bool(up or down)
    assert metrics["policy/clip_fraction"].total == clipped > 0
    ratio = ratios[given.loss_mask]
    assert metrics["policy/ratio"].value == pytest.approx(ratio.mean().item())
    assert metrics["policy/mismatch"].value == pytest.approx(mismatch / len(ratio))
    assert {mean.count for mean in metrics.values()} == {len(ratio)}


def test_the_dropped_and_the_clipped_are_counted():
    given = inputs()
    config = LossConfig(importance_correction="token_mask", surrogate="cispo", clip_high=0.3)
    metrics = policy_loss(given, config, TOTALS).metrics
    weights = (given.old_logprobs - given.sampler_logprobs).exp()[given.loss_mask]
    dropped = ((weights < 0.5) | (weights > 2)).sum().item()
    assert metrics["policy/dropped_fraction"].total == dropped > 0
    ratios = (given.trainer_logprobs - given.old_logprobs).exp()[given.loss_mask]
    assert (
        metrics["policy/clip_fraction"].total == ((ratios < 0.8) | (ratios > 1.3)).sum().item() > 0
    )
    assert "policy/dropped_fraction" not in policy_loss(given, LossConfig(), TOTALS).metrics
