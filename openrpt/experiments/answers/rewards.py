"""Which reward, and how much noise does it bear?"""

from collections.abc import Sequence
from typing import Any

from openrpt.experiments.answers.comparing import in_words, with_baseline
from openrpt.experiments.answers.experiment import Arm, Experiment, Size
from openrpt.experiments.answers.outcome import Outcome

_EXACT: dict[str, Any] = {
    "train.answer_gradient": "exact",
    "train.algorithm": "dr_grpo",
    "train.dynamic_sampling_from": "never",
}
_TERMS = {
    "first_token": "the first token alone",
    "span": "the whole number or word",
    "segment": "the text up to its next segment",
    "length_weighted": "prefix match, more for longer ones",
    "dense": "wrong predictions by their probability",
    "conditional_dense": "the same, in groups with a right one",
    "information_gain": "what the thought adds to the truth's log-probability",
    "expected": "the exact probability of a right answer",
    "log_expected": "its logarithm",
}
_FLIPPED = (5, 10, 20)


def _arms(size: Size) -> Sequence[Arm]:
    rewarded = [
        Arm(name=name, what=what, changes={"reward.terms": {name: 1.0}})
        for name, what in _TERMS.items()
    ]
    exact = [
        Arm(
            name=f"{name}-exact",
            what=f"{_TERMS[name]}, differentiated itself (Dr. GRPO)",
            changes={"reward.terms": {name: 1.0}, **_EXACT},
        )
        for name in ("expected", "log_expected")
    ]
    flipped = [
        Arm(
            name=f"flipped-{percent}",
            what=f"prefix match, wrong in {percent} % of rollouts at random",
            changes={"reward.terms": {"flipped": 1.0}, "reward.flip_probability": percent / 100},
        )
        for percent in _FLIPPED
    ]
    prefix = Arm(
        name="prefix",
        what="the paper's: the prediction is a prefix of the text",
        changes={"reward.terms": {"prefix": 1.0}},
    )
    coin = Arm(name="random", what="a coin", changes={"reward.terms": {"random": 1.0}})
    arms = [prefix, *rewarded, *exact, *flipped, coin]
    return [arm for arm in arms if not size.rewards or arm.name in size.rewards]


def _answer(outcome: Outcome) -> str:
    return in_words(with_baseline(outcome, outcome.compared, "prefix"))


REWARDS = Experiment(
    name="rewards",
    question="Which reward teaches most at equal steps, and how many wrong rewards does it bear?",
    setting="One start a seed; from it, as many steps of reinforcement on the same problems in the"
    " same order under each reward. All are measured alike. Steps and rollouts are equal,"
    " FLOPs are not: the exact probability of an answer takes a pass of its own, and a reward under"
    " which fewer groups are flat trains on more of them.",
    arms=_arms,
    baseline="prefix",
    measures=("accuracy", "within", "beyond", "standard", "flat"),
    answer=_answer,
    limits=[
        "Every reward has prefix match's learning rate; one of its own may suit another better.",
        "Flips are independent. A verifier that is wrong in the same way each time is another"
        " matter.",
    ],
    lab_limits=[
        "The laboratory's answers are one character, so first_token, span, segment and"
        " length_weighted can differ from prefix match only in how they end: their worth on longer"
        " targets is not seen.",
    ],
)
