"""The terms that a configuration names: those of `terms.py`, a judge's, and users' own."""

from collections.abc import Sequence
from functools import partial

from openrpt.config.rewards import RewardConfig
from openrpt.config.sections import Config
from openrpt.rl.rewards.fitting import require_fitting
from openrpt.rl.rewards.matching import exact_judge, fuzzy_judge, next_segment, segment_reward
from openrpt.rl.rewards.term import RewardContext, RewardTerm, rollout_place
from openrpt.rl.rewards.terms import TERMS
from openrpt.rl.rewards.user import number_of
from openrpt.types import Group
from openrpt.user_code import UserFunction, is_import_path, load_function

_READABLE = ("prediction", "continuation", "thought", "prefix")
"""The facts that a user's own reward may read: bytes, of the continuation the bytes of its
tokens."""


def _segment_term(judge: UserFunction) -> RewardTerm:
    """Returns the term of a judge, who says what the prediction is worth against the text's next
    segment."""

    def segment(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
        def value(group: Group, number: int) -> float:
            def judged(*, prediction: str, segment: str) -> float:
                return number_of(
                    judge,
                    {"prediction": prediction, "segment": segment},
                    where=rollout_place(group, number),
                    on_error=context.config.reward.on_error,
                )

            return segment_reward(group.rollouts[number].prediction, text, judged)

        found = []
        for group in groups:
            text = next_segment(context.continuation(group))
            found.append([value(group, number) for number in range(len(group.rollouts))])
        return found

    return segment


def _user_term(function: UserFunction) -> RewardTerm:
    """Returns the term of a user's own function, called for one rollout after the other."""

    def term(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
        def value(group: Group, number: int) -> float:
            rollout, position = group.rollouts[number], group.prompt.position
            values = {
                "prediction": rollout.prediction,
                "continuation": list(context.continuation(group)),
                "thought": rollout.thought,
                "prefix": b"".join(context.token_bytes[position.window_start : position.index]),
            }
            on_error = context.config.reward.on_error
            return number_of(
                function, values, where=rollout_place(group, number), on_error=on_error
            )

        return [[value(group, r) for r in range(len(group.rollouts))] for group in groups]

    return term


def make_terms(config: Config) -> dict[str, RewardTerm]:
    """Returns the terms of `reward.terms`, in their order, before anything heavy is loaded.

    Raises UserError for a user's function that can't be had or asks for what there is not, and as
    `require_fitting` does.
    """
    require_fitting(config)
    settings = config.reward
    terms: dict[str, RewardTerm] = {}
    for name in settings.terms:
        if is_import_path(name):
            terms[name] = _user_term(load_function(name, key="reward.terms", known=_READABLE))
        elif name == "segment":
            terms[name] = _segment_term(_make_judge(settings))
        else:
            terms[name] = TERMS[name]
    return terms


def _make_judge(settings: RewardConfig) -> UserFunction:
    """Returns the judge of `reward.segment_judge`. Raises UserError for a user's that can't be
    had."""
    known = ("prediction", "segment")
    match settings.segment_judge:
        case "exact":
            return UserFunction(path="exact", function=exact_judge, reads=known)
        case "fuzzy":
            function = partial(fuzzy_judge, threshold=settings.segment_threshold)
            return UserFunction(path="fuzzy", function=function, reads=known)
        case path:
            return load_function(path, key="reward.segment_judge", known=known)
