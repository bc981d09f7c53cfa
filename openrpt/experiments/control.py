"""One control of a run: the one thing that is changed, and the question that it answers."""

from dataclasses import dataclass, field
from typing import Any, Literal

from openrpt.errors import UserError, nearest

_Stage = Literal["evaluate", "warmup", "train", "pretrain"]
THOUGHTS = ["emptied", "cut", "swapped", "ntp_voting"]
"""The things that `evaluate.controls` can do to a thought, and what it can put in its place."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """One thing that is changed, and which of the stages it takes."""

    question: str
    """The question that it answers."""
    stage: _Stage
    """The last one that it runs before it is evaluated."""
    changes: dict[str, Any] = field(default_factory=dict)
    """The values of the run's configuration that are others, by dotted key."""
    evaluate: dict[str, Any] = field(default_factory=dict)
    """The same for its evaluation only."""

    @property
    def prompt(self) -> dict[str, Any]:
        """The changes that its evaluation shares."""
        return {key: value for key, value in self.changes.items() if key.startswith("prompt.")}


_NTP_ONLY = {"evaluate.modes": ["ntp"]}
CONTROLS = {
    "start": Control(question="was it there before, plain or under the prompt?", stage="evaluate"),
    "thought": Control(
        question="is it the thought? emptied, cut, swapped with another's; NTP voting",
        stage="evaluate",
        evaluate={"evaluate.controls": THOUGHTS},
    ),
    "warmup-self": Control(
        question="is it the form alone, learned from the model's own predictions?",
        stage="warmup",
        changes={"warmup.target": "self", "warmup.ntp_weight": 0.0, "warmup.traces": ""},
    ),
    "warmup-truth": Control(
        question="is it what a supervised warmup learns?",
        stage="warmup",
        changes={"warmup.target": "truth", "warmup.traces": ""},
    ),
    "random-reward": Control(
        question="is it the reward? a coin in its place",
        stage="train",
        changes={"reward.terms": {"random": 1.0}},
    ),
    "no-thought": Control(
        question="is it the thought? the same reinforcement, predicting at once",
        stage="train",
        changes={"prompt.candidates": 0, "prompt.think_budget": 0, "warmup.traces": ""},
        evaluate={"evaluate.controls": []},  # there is no thought to change
    ),
    "ntp-documents": Control(
        question="is it the text? plain next-token training on the same windows",
        stage="pretrain",
        changes={"pretrain.match_by": "documents"},
        evaluate=_NTP_ONLY,
    ),
    "ntp-flops": Control(
        question="is it worth its FLOPs? plain next-token training for as many",
        stage="pretrain",
        changes={"pretrain.match_by": "flops"},
        evaluate=_NTP_ONLY,
    ),
    "ntp-time": Control(
        question="is it worth its time? plain next-token training for as long",
        stage="pretrain",
        changes={"pretrain.match_by": "time"},
        evaluate=_NTP_ONLY,
    ),
}
"""The controls, in the order in which they are run and shown."""


def control_named(name: str) -> Control:
    """Returns the control of that name. Raises UserError for another, which names the nearest."""
    if name not in CONTROLS:
        hint = nearest(name, CONTROLS, otherwise=f"there are: {', '.join(CONTROLS)}")
        raise UserError(f"no control '{name}'{hint}")
    return CONTROLS[name]
