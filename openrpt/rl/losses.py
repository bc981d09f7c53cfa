"""The policy loss: a pure function of log-probabilities, checked against formulas by hand.

On-policy its value is near 0 by construction (advantages of a group sum to 0): look at the
gradient norm and at the flat-group fraction, not at the loss.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from openrpt.config.algorithms import Aggregation, ImportanceCorrection, RatioLevel, Surrogate


@dataclass(frozen=True, kw_only=True, eq=False)
class LossInputs:
    """Each [rollouts, tokens] (advantages [rollouts]); what the mask leaves out may be anything.

    Log-probabilities are at the sampling temperature, named by who computed them:
    `trainer` now, with gradient; `old` by the trainer's weights before the first update;
    `sampler` when the tokens were drawn; `reference` by a frozen model, or None.
    """

    trainer_logprobs: Tensor
    old_logprobs: Tensor
    sampler_logprobs: Tensor
    advantages: Tensor
    loss_mask: Tensor
    reference_logprobs: Tensor | None = None
    entropies: Tensor | None = None
    """Entropy of each token's distribution, nats, with gradient; needed by an entropy bonus."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """The words are explained in `algorithms.py`."""

    ratio_level: RatioLevel = "token"
    surrogate: Surrogate = "clip"
    clip_low: float = 0.2
    clip_high: float = 0.2
    aggregation: Aggregation = "token_mean"
    kl_weight: float = 0.0
    entropy_weight: float = 0.0
    importance_correction: ImportanceCorrection = "off"
    importance_min: float = 0.5
    """Below it the masks drop."""
    importance_max: float = 2.0
    """Above it the masks drop, and truncation cuts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTotals:
    """Of the whole step, over all micro-batches and workers; flat groups count too."""

    tokens: int
    """Trained tokens."""
    rollouts: int
    length: int
    """Most trained tokens a rollout may have (Dr. GRPO's constant)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LossOutputs:
    loss: Tensor
    metrics: dict[str, float] = field(default_factory=dict)
    """Sums over the micro-batch, to be divided by the step's tokens."""


def policy_loss(inputs: LossInputs, config: LossConfig, totals: StepTotals) -> LossOutputs:
    """The policy-gradient loss (clipped: arXiv 2402.03300, Eq. 3), with its options.

    ratio = exp(trainer − old), clipped to [1 − clip_low, 1 + clip_high]; importance correction
    by exp(old − sampler); KL to the reference by the k3 estimator; entropy bonus. The correction
    weighs the policy term alone. The sum over micro-batches of `loss` is the step's loss: every
    division is by the step's totals, in which dropped tokens count too.
    """
    mask = inputs.loss_mask
    log_ratio = torch.where(mask, inputs.trainer_logprobs - inputs.old_logprobs, 0.0)
    lengths = mask.sum(1).clamp_min(1)
    if config.ratio_level == "sequence":
        mean = log_ratio.sum(1, keepdim=True) / lengths[:, None]
        # GSPO's token form: the value is the sequence's, the gradient flows through each token.
        log_ratio = (log_ratio - log_ratio.detach() + mean.detach()) * mask
    ratio = log_ratio.exp()
    advantages = inputs.advantages[:, None]
    clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    if config.surrogate == "cispo":
        logprobs = torch.where(mask, inputs.trainer_logprobs, 0.0)
        loss = -clipped.detach() * advantages * logprobs
        outside = ratio != clipped
    else:
        loss = -torch.minimum(ratio * advantages, clipped * advantages)
        outside = ratio * advantages > clipped * advantages
    mismatch = torch.where(mask, inputs.old_logprobs - inputs.sampler_logprobs, 0.0)
    weights = importance_weights(mismatch, config)
    loss = loss * weights
    if config.kl_weight and inputs.reference_logprobs is not None:
        difference = inputs.reference_logprobs - inputs.trainer_logprobs
        difference = torch.where(mask, difference, 0.0)
        loss = loss + config.kl_weight * (difference.exp() - difference - 1)
    if config.entropy_weight and inputs.entropies is not None:
        loss = loss - config.entropy_weight * inputs.entropies
    loss = torch.where(mask, loss, 0.0)
    if config.aggregation == "token_mean":
        total = loss.sum() / max(totals.tokens, 1)
    elif config.aggregation == "sequence_mean":
        total = (loss.sum(1) / lengths).sum() / max(totals.rollouts, 1)
    else:
        total = loss.sum() / max(totals.rollouts * totals.length, 1)
    with torch.no_grad():
        metrics = {
            "policy/clip_fraction": float((outside & mask).sum()),
            "policy/ratio": float(torch.where(mask, ratio, 0.0).sum()),
            "policy/mismatch": float(mismatch.abs().sum()),
        }
        if config.importance_correction != "off":
            metrics["policy/dropped_fraction"] = float(((weights == 0) & mask).sum())
    return LossOutputs(loss=total, metrics=metrics)


def importance_weights(mismatch: Tensor, config: LossConfig) -> Tensor:
    """Constants that the policy term is weighed by: mismatch = old − sampler [B, T], 0 where not
    trained, → [B, T].

    truncate: "TIS", min(w, max) a token. token_mask: "IcePop" (arXiv 2510.18855), w where it is
    inside [min, max], else 0. sequence_mask: "MIS", the same of the product over the rollout.
    """
    if config.importance_correction == "off":
        return torch.ones_like(mismatch)
    if config.importance_correction == "truncate":
        return mismatch.exp().clamp_max(config.importance_max)
    if config.importance_correction == "sequence_mask":
        mismatch = mismatch.sum(1, keepdim=True).expand_as(mismatch)
    weights = mismatch.exp()
    inside = (weights >= config.importance_min) & (weights <= config.importance_max)
    return torch.where(inside, weights, 0.0)
