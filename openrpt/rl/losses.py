"""The policy loss: a pure function of log-probabilities, checked against formulas by hand.

On-policy its value is near 0 by construction (advantages of a group sum to 0): look at the
gradient norm and at the flat-group fraction, not at the loss.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from openrpt.config.algorithms import Aggregation, ImportanceCorrection, RatioLevel, Surrogate
from openrpt.rl.tally import Mean


@dataclass(frozen=True, kw_only=True, eq=False)
class LossInputs:
    """The tensors that the loss of N rollouts of at most T tokens reads; what the mask leaves out
    may be anything.

    Log-probabilities are at the sampling temperature, named by who computed them:
    `trainer` now, with gradient; `old` by the trainer's weights before the first update;
    `sampler` when the tokens were drawn; `reference` by a frozen model, or None.
    """

    trainer_logprobs: Tensor  # [N, T]
    old_logprobs: Tensor  # [N, T]
    sampler_logprobs: Tensor  # [N, T]
    advantages: Tensor  # [N]
    loss_mask: Tensor  # [N, T] bool
    reference_logprobs: Tensor | None = None  # [N, T]
    entropies: Tensor | None = None  # [N, T]
    """Entropy of each token's distribution, nats, with gradient; needed by an entropy bonus."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """The settings of the loss; the words are explained in `openrpt.config.algorithms`."""

    ratio_level: RatioLevel = "token"
    surrogate: Surrogate = "clip"
    clip_low: float = 0.2
    clip_high: float = 0.2
    aggregation: Aggregation = "token_mean"
    kl_weight: float = 0.0
    entropy_weight: float = 0.0
    importance_correction: ImportanceCorrection = "off"
    importance_min: float = 0.5
    """The importance weight below which the masks drop."""
    importance_max: float = 2.0
    """The importance weight above which the masks drop, and truncation cuts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTotals:
    """The totals that losses are divided by: the whole step's, over all micro-batches and workers.

    Flat groups count, too, but with `train.denominator` = "live".
    """

    tokens: int
    """The number of trained tokens."""
    rollouts: int
    """Rollouts of all groups."""
    length: int
    """The most trained tokens a rollout may have (Dr. GRPO's constant)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LossOutputs:
    """The loss of a micro-batch, and what it was like."""

    loss: Tensor  # []
    metrics: dict[str, Mean] = field(default_factory=dict)
    """Means over the micro-batch's trained tokens."""


def policy_loss(inputs: LossInputs, config: LossConfig, totals: StepTotals) -> LossOutputs:
    """Returns the policy-gradient loss (clipped: arXiv 2402.03300, Eq. 3), with its options.

    ratio = exp(trainer − old), clipped to [1 − clip_low, 1 + clip_high]; importance correction
    by exp(old − sampler); KL to the reference by the k3 estimator; entropy bonus. The correction
    weighs the policy term alone. The sum over micro-batches of `loss` is the step's loss: every
    division is by the step's totals, in which dropped tokens count too.
    """
    mask = inputs.loss_mask  # [N, T]
    log_ratio = torch.where(mask, inputs.trainer_logprobs - inputs.old_logprobs, 0.0)  # [N, T]
    lengths = mask.sum(1).clamp_min(1)  # [N]
    if config.ratio_level == "sequence":
        mean = log_ratio.sum(1, keepdim=True) / lengths[:, None]  # [N, 1]
        # GSPO's token form: the value is the sequence's, the gradient flows through each token.
        log_ratio = (log_ratio - log_ratio.detach() + mean.detach()) * mask
    ratio = log_ratio.exp()
    advantages = inputs.advantages[:, None]  # [N, 1]
    clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    if config.surrogate == "cispo":
        logprobs = torch.where(mask, inputs.trainer_logprobs, 0.0)
        loss = -clipped.detach() * advantages * logprobs
        outside = ratio != clipped
    else:
        loss = -torch.minimum(ratio * advantages, clipped * advantages)
        outside = ratio * advantages > clipped * advantages
    mismatch = torch.where(mask, inputs.old_logprobs - inputs.sampler_logprobs, 0.0)
    weights = _importance_weights(mismatch, config)  # [N, T]
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
        sums = {
            "policy/clip_fraction": float((outside & mask).sum()),
            "policy/ratio": float(torch.where(mask, ratio, 0.0).sum()),
            "policy/mismatch": float(mismatch.abs().sum()),
        }
        if config.importance_correction != "off":
            sums["policy/dropped_fraction"] = float(((weights == 0) & mask).sum())
        tokens = float(mask.sum())
    metrics = {name: Mean(total=value, count=tokens) for name, value in sums.items()}
    return LossOutputs(loss=total, metrics=metrics)


def _importance_weights(mismatch: Tensor, config: LossConfig) -> Tensor:
    """Returns the constants that the policy term is weighed by: mismatch = old − sampler [N, T], 0
    where not trained, → [N, T].

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
