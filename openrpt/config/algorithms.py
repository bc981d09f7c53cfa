"""Algorithms: what each name of `train.algorithm` stands for, piece by piece. No torch.

An algorithm is an advantage estimator (`advantages.py`) and a loss (`losses.py`) with its clips,
its aggregation and its treatment of flat groups and of completions that do not stop. Single pieces
are overridden by keys of `train`. `docs/algorithms.md` has the formulas and their papers.
"""

from dataclasses import dataclass
from typing import Literal

AlgorithmName = Literal[
    "grpo",
    "dr_grpo",
    "dapo",
    "rloo",
    "reinforce_plus_plus",
    "gspo",
    "cispo",
    "maxrl",
    "pass_at_k",
]
Estimator = Literal["grpo", "dr_grpo", "rloo", "reinforce_plus_plus", "maxrl", "pass_at_k"]
Aggregation = Literal["token_mean", "sequence_mean", "constant_length"]
"""token_mean: Σ tokens / the step's tokens (DAPO); sequence_mean: mean over rollouts of token
means (GRPO's paper); constant_length: Σ tokens / (rollouts · length) (Dr. GRPO)."""
RatioLevel = Literal["token", "sequence"]
"""token: GRPO; sequence: GSPO (arXiv 2507.18071), the geometric mean over the rollout."""
Surrogate = Literal["clip", "cispo"]
"""clip: PPO's minimum, no gradient beyond the clip; cispo (arXiv 2506.13585): the clipped ratio is
a constant weight on log p, so every token has a gradient."""
Overlong = Literal["keep", "mask", "penalty"]
"""Treatment of a completion that did not stop. mask: left out of its group, advantage 0; penalty:
DAPO's soft one (arXiv 2503.14476, Section 3.4), on the reward."""
ImportanceCorrection = Literal["off", "truncate", "token_mask", "sequence_mask"]
"""Correction for a sampler that differs from the trainer; w = exp(old − sampler). truncate: min(w,
max) a token (TIS); token_mask: w inside [min, max], else 0 (IcePop); sequence_mask: the same for
the product over the rollout (MIS)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Algorithm:
    """An algorithm's pieces: its advantage estimator, and its loss.

    >>> ALGORITHMS["dapo"].clip_high
    0.28
    """

    advantage: str
    """An `Estimator`, or the import path of a user's own."""
    aggregation: Aggregation
    ratio_level: RatioLevel = "token"
    surrogate: Surrogate = "clip"
    clip_low: float = 0.2
    """The ratio is clipped below 1 − this."""
    clip_high: float = 0.2
    """The ratio is clipped above 1 + this."""
    overlong: Overlong = "keep"
    dynamic_sampling_from: int | None = None
    """Step from which on flat groups are replaced by others; None = never."""


ALGORITHMS: dict[AlgorithmName, Algorithm] = {
    "grpo": Algorithm(advantage="grpo", aggregation="sequence_mean"),
    "dr_grpo": Algorithm(advantage="dr_grpo", aggregation="constant_length"),
    "dapo": Algorithm(
        advantage="grpo",
        aggregation="token_mean",
        clip_high=0.28,
        overlong="penalty",
        dynamic_sampling_from=0,
    ),
    "rloo": Algorithm(advantage="rloo", aggregation="constant_length"),
    "reinforce_plus_plus": Algorithm(advantage="reinforce_plus_plus", aggregation="token_mean"),
    "gspo": Algorithm(
        advantage="grpo",
        aggregation="sequence_mean",
        ratio_level="sequence",
        clip_low=3e-4,
        clip_high=4e-4,
    ),
    "cispo": Algorithm(
        advantage="grpo", aggregation="token_mean", surrogate="cispo", clip_low=1.0, clip_high=4.0
    ),
    "maxrl": Algorithm(advantage="maxrl", aggregation="constant_length"),
    "pass_at_k": Algorithm(advantage="pass_at_k", aggregation="token_mean"),
}

OVERRIDABLE = (
    "advantage",
    "aggregation",
    "ratio_level",
    "clip_low",
    "clip_high",
    "overlong",
    "dynamic_sampling_from",
)
"""Pieces that a key of `train` with the same name may override."""
