"""`[reward]`: what training rewards."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator

from openrpt.config.parts import PartName
from openrpt.config.section import MOST_TOKENS, Binds, Section, binds

REWARDS = (
    "prefix",
    "first_token",
    "span",
    "dense",
    "conditional_dense",
    "length_weighted",
    "information_gain",
    "expected",
    "log_expected",
    "segment",
    "random",
    "flipped",
)
"""The names that `reward.terms` knows, beside import paths (`package.module:function`)."""

EXACT_TERMS = ("expected", "log_expected")
"""Those that are the probability of a right answer itself, or a function of it."""

_REWARD = PartName(kind="reward", known=REWARDS)
_JUDGE = PartName(kind="judge", known=("exact", "fuzzy"))


LARGEST_REWARD = 1e15
"""The largest reward or weight, of either sign; beyond it one counts as not finite. The square of
this one, which the advantages take, is still finite in float32."""


class RewardConfig(Section):
    """What training rewards (docs/rewards.md); evaluation always grades by prefix match."""

    BINDS: ClassVar[Binds] = binds("train")

    terms: dict[str, float] = Field(
        {"prefix": 1.0},
        description="Rewards and their weights, which are summed (a weight of 0 only measures): "
        + ", ".join(REWARDS)
        + ", or a function of yours as package.module:function",
    )
    on_error: Annotated[Literal["stop", "zero"], binds("train", recorded=True)] = Field(
        "stop", description="A reward that raises or is no finite number: stop, or count it as 0"
    )
    length_bonus: float = Field(
        0.5, ge=0, description="length_weighted: what any number of further tokens earns at most"
    )
    information_tokens: int = Field(
        1,
        ge=1,
        le=MOST_TOKENS,
        description="information_gain: true next tokens whose log-probability counts",
    )
    baseline_decay: float = Field(
        0.999,
        ge=0,
        le=1,
        description="information_gain: what the baseline, a moving average of the policy, keeps of"
        " itself in a step",
    )
    expected_tokens: int = Field(
        3,
        ge=1,
        le=MOST_TOKENS,
        description="expected, log_expected: right answers of at most so many true tokens count",
    )
    expected_floor: float = Field(
        1e-6,
        gt=0,
        le=1,
        description="log_expected: what is added to the probability before its logarithm, so that"
        " a thought that can't be answered has one",
    )
    thought_cost: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="What a drawn token of thought takes off the reward; 0 = nothing",
    )
    thought_cost_limit: float = Field(
        0.1, ge=0, le=1e6, description="What a thought of any length takes off the reward at most"
    )
    segment_judge: Annotated[str, AfterValidator(_JUDGE)] = Field(
        "exact",
        description="segment: exact, fuzzy (both on normalised text), or a function of yours as"
        " package.module:function",
    )
    segment_threshold: float = Field(
        0.8,
        ge=0,
        le=1,
        description="segment, fuzzy: likeness from which on it is a match; 0 = the likeness itself"
        " is the reward",
    )
    random_probability: float = Field(
        0.5, ge=0, le=1, description="random: probability of a reward of 1, else 0"
    )
    flip_probability: float = Field(
        0.1,
        ge=0,
        le=1,
        description="flipped: probability that a prefix match counts as none, and none as one",
    )

    @property
    def exact_terms(self) -> list[str]:
        """The terms that read how probable right answers are."""
        return [name for name in EXACT_TERMS if name in self.terms]

    @field_validator("terms")
    @classmethod
    def _terms_are_known(cls, terms: dict[str, float]) -> dict[str, float]:
        for name, weight in terms.items():
            _REWARD(name)
            if not abs(weight) <= LARGEST_REWARD:
                raise ValueError(
                    f"the weight of '{name}' must be at most {LARGEST_REWARD:g}, of either sign"
                )
        if not any(terms.values()):
            raise ValueError("at least one reward must have a weight other than 0")
        return terms
