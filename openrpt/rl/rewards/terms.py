"""The reward that is trained on: a weighted sum of terms over the groups of a document.

A term is a function `(groups, context) → [[float]]`, a number for each rollout of each group; so
it may read the group and the model. Groups come graded by prefix match (`grade_groups`), which
stays with each rollout as `exact`: pass rates and accuracy never change their meaning.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from openrpt.config.rewards import LARGEST_REWARD, RewardConfig
from openrpt.config.sections import Config
from openrpt.data.prompts import Layout
from openrpt.data.spans import same_span
from openrpt.data.tokens import literal_bytes
from openrpt.data.work import Work
from openrpt.engine.engine import Engine
from openrpt.errors import UserError
from openrpt.rl.answers import expected_rewards
from openrpt.rl.grading import CONTINUATION_TOKENS
from openrpt.rl.rewards.fitting import require_fitting
from openrpt.rl.rewards.information_gain import plain_logprobs, thought_logprobs, true_tokens
from openrpt.rl.rewards.matching import (
    dense_reward,
    exact_judge,
    first_token_match,
    fuzzy_judge,
    length_weighted_match,
    next_segment,
    prediction_tokens,
    segment_reward,
)
from openrpt.rl.rewards.user import UserFunction, load_function
from openrpt.rl.thoughts import read_thought
from openrpt.seeding import generator
from openrpt.types import Group, Rollout

_READABLE = ("prediction", "continuation", "thought", "prefix")
"""The facts that a user's own reward may read: bytes, of the continuation the bytes of its
tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RewardContext:
    """The things that a term may read beside the groups of one document."""

    config: Config
    step: int
    work: Work
    token_bytes: Sequence[bytes]
    """The whole document's."""
    engine: Engine
    """The policy's engine."""
    layout: Layout
    baseline: Engine | None
    """The engine of the policy's moving average, for `information_gain`; None without that term."""

    def continuation(self, group: Group) -> Sequence[bytes]:
        """Returns the true tokens from the group's position on, as far as a prediction is
        compared."""
        index = group.prompt.position.index
        return self.token_bytes[index : index + CONTINUATION_TOKENS]

    def prediction_tokens(self, rollout: Rollout) -> list[tuple[int, bytes]]:
        """Returns the tokens of a rollout's prediction, as `matching.prediction_tokens` gives
        them."""
        ids, literal = rollout.completion.token_ids, self.layout.literal
        pieces = [literal_bytes(self.engine.model.table, [i], literal) for i in ids]
        return prediction_tokens(pieces, rollout.prediction)


class RewardTerm(Protocol):
    """A function that grades a document's groups, already graded by prefix match:
    [groups][rollouts]."""

    def __call__(self, groups: Sequence[Group], context: RewardContext) -> list[list[float]]: ...


def _each(groups: Sequence[Group], value: Callable[[Group, Rollout], float]) -> list[list[float]]:
    return [[value(group, rollout) for rollout in group.rollouts] for group in groups]


def prefix(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
    """Returns the paper's reward, the prefix match: 1 where a rollout is exact, else 0."""
    return _each(groups, lambda group, rollout: float(rollout.exact))


def first_token(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
    """Returns the paper's first-token matching, `matching.first_token_match`."""

    def value(group: Group, rollout: Rollout) -> float:
        own = [token for _, token in context.prediction_tokens(rollout)]
        return first_token_match(own, context.continuation(group))

    return _each(groups, value)


def span(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
    """Returns 1 where the prediction, cut where its span ends, is the text's whole number, word or
    LaTeX command (`openrpt.data.spans`), else 0."""

    def value(group: Group, rollout: Rollout) -> float:
        continuation = b"".join(context.continuation(group))
        return float(same_span(rollout.prediction or b"", continuation))

    return _each(groups, value)


def dense(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
    """Returns the paper's dense reward, `matching.dense_reward`.

    The probability of a wrong prediction is the product of the sampler's probabilities (at the
    sampling temperature) of the tokens that hold its bytes; a forced token counts as sure.
    """

    def value(group: Group, rollout: Rollout) -> float:
        # The first of equal completions speaks for all: rounding must not make a group live.
        ids = rollout.completion.token_ids
        rollout = next(other for other in group.rollouts if other.completion.token_ids == ids)
        tokens = context.prediction_tokens(rollout)
        if not tokens:
            return 0.0
        logprob = sum(rollout.completion.sampler_logprobs[index] for index, _ in tokens)
        return dense_reward(rollout.exact, math.exp(logprob))

    return _each(groups, value)


def conditional_dense(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
    """Returns the dense reward in groups with an exact rollout, else 0 (arXiv 2506.08007, Appendix
    A)."""
    return [
        values if any(rollout.exact for rollout in group.rollouts) else [0.0] * len(values)
        for group, values in zip(groups, dense(groups, context), strict=True)
    ]


def length_weighted(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
    """Returns the prefix match with a bonus for length, `matching.length_weighted_match`."""
    bonus = context.config.reward.length_bonus
    return _each(
        groups,
        lambda group, rollout: length_weighted_match(
            rollout.prediction, context.continuation(group), bonus=bonus
        ),
    )


def information_gain(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
    """Returns the reward of RLP (arXiv 2510.01265), `information_gain.py`: nats, of either sign."""
    assert context.baseline is not None
    targets = true_tokens(context.work, context.config.reward.information_tokens)
    layout, work = context.layout, context.work
    thoughts = thought_logprobs(context.engine, layout, work, groups, targets)
    plain = plain_logprobs(context.baseline, layout, work, targets)
    return [[value - base for value in own] for own, base in zip(thoughts, plain, strict=True)]


def expected(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
    """Returns the exact probability of a right answer after the thought, `answers.py`: [0, 1]."""
    return expected_rewards(context.engine, groups, context.work, context.layout, context.config)


def log_expected(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
    """Returns the logarithm of that probability and `reward.expected_floor` together, in nats."""
    floor = context.config.reward.expected_floor
    return [[math.log(floor + value) for value in own] for own in expected(groups, context)]


def random(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
    """Returns the control's reward: a coin keyed by (seed, step, document, position, rollout),
    blind to the text."""
    probability = context.config.reward.random_probability
    return [
        [float(_coin(group, number, context, probability)) for number in range(len(group.rollouts))]
        for group in groups
    ]


def flipped(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
    """Returns the prefix match as a verifier has it that errs at random: turned round with the
    probability `reward.flip_probability`, by the coin of `random`."""
    probability = context.config.reward.flip_probability
    return [
        [
            float(rollout.exact != _coin(group, number, context, probability))
            for number, rollout in enumerate(group.rollouts)
        ]
        for group in groups
    ]


def _coin(group: Group, number: int, context: RewardContext, probability: float) -> bool:
    position = group.prompt.position
    key = (context.config.seed, "reward", context.step, position.document_id, position.index)
    return bool(generator(*key, number).random() < probability)


TERMS: dict[str, RewardTerm] = {
    "prefix": prefix,
    "first_token": first_token,
    "span": span,
    "dense": dense,
    "conditional_dense": conditional_dense,
    "length_weighted": length_weighted,
    "information_gain": information_gain,
    "expected": expected,
    "log_expected": log_expected,
    "random": random,
    "flipped": flipped,
}
"""The terms by name; `segment` and users' own are made of what the config names: `make_terms`."""


def _segment_term(judge: UserFunction) -> RewardTerm:
    """Returns the term of a judge, who says what the prediction is worth against the text's next
    segment."""

    def segment(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
        def value(group: Group, number: int) -> float:
            def judged(*, prediction: str, segment: str) -> float:
                return judge(
                    {"prediction": prediction, "segment": segment},
                    where=_place(group, number),
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
            return function(values, where=_place(group, number), on_error=on_error)

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
        if ":" in name:
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


def reward_groups(
    groups: Sequence[Group], terms: Mapping[str, RewardTerm], context: RewardContext
) -> list[Group]:
    """Gives groups that are graded by prefix match the reward that is trained on: the sum of the
    terms, less what the thought costs.

    A term that is not finite, or beyond LARGEST_REWARD with its weight, stops the run, or is left
    out and counts as 0, as `reward.on_error` says. Raises UserError, which names the document,
    position and rollout.
    """
    values = {name: term(groups, context) for name, term in terms.items()}
    settings = context.config.reward

    def rewarded(g: int, r: int) -> Rollout:
        found = {name: of_groups[g][r] for name, of_groups in values.items()}
        finite = {
            name: value
            for name, value in found.items()
            if math.isfinite(value) and abs(settings.terms[name] * value) <= LARGEST_REWARD
        }
        for name in found.keys() - finite.keys() if settings.on_error == "stop" else ():
            value = f"{found[name]}"
            if math.isfinite(found[name]):
                value += f", with its weight beyond ±{LARGEST_REWARD:g},"
            raise UserError(
                f"reward '{name}' is {value} for {_place(groups[g], r)}; mend it, or count such"
                " rollouts as 0 with --reward.on_error zero"
            )
        rollout = groups[g].rollouts[r]
        reward = sum((settings.terms[name] * value for name, value in finite.items()), 0.0)
        if settings.thought_cost:
            reward -= _thought_cost(rollout, context)
        return replace(rollout, reward=reward, terms=finite)

    return [
        replace(group, rollouts=tuple(rewarded(g, r) for r in range(len(group.rollouts))))
        for g, group in enumerate(groups)
    ]


def _thought_cost(rollout: Rollout, context: RewardContext) -> float:
    """Returns min(tokens · thought_cost, thought_cost_limit) for the drawn tokens of its
    thought."""
    settings, think_budget = context.config.reward, context.config.prompt.think_budget
    thought = read_thought(rollout.completion, context.layout, think_budget=think_budget)
    return min(thought.free_tokens * settings.thought_cost, settings.thought_cost_limit)


def _place(group: Group, number: int) -> str:
    """Returns where a rollout stands, in words."""
    position = group.prompt.position
    return f"document {position.document_id}, position {position.index}, rollout {number}"


def reward_metrics(groups: Sequence[Group], settings: RewardConfig) -> dict[str, float]:
    """Returns the share of exact rollouts, and each term's mean before its weight."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    metrics = {"reward/exact": sum(r.exact for r in rollouts) / len(rollouts)}
    for name in settings.terms:
        known = [rollout.terms[name] for rollout in rollouts if name in rollout.terms]
        if known:
            metrics[f"reward/{name}"] = sum(known) / len(known)
    if settings.on_error == "zero":
        wanted = len(settings.terms) * len(rollouts)
        metrics["reward/errors"] = float(wanted - sum(len(r.terms) for r in rollouts))
    return metrics
