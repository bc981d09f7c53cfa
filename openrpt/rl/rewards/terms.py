"""The terms of the reward that are known by name (`reward.terms`)."""

import math
from collections.abc import Sequence

from openrpt.data.spans import same_span
from openrpt.rl.answers import expected_rewards
from openrpt.rl.rewards.information_gain import plain_logprobs, thought_logprobs, true_tokens
from openrpt.rl.rewards.matching import dense_reward, first_token_match, length_weighted_match
from openrpt.rl.rewards.term import RewardContext, RewardTerm, each_rollout
from openrpt.seeding import generator
from openrpt.types import Group, Rollout


def prefix(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
    """Returns the paper's reward, the prefix match: 1 where a rollout is exact, else 0."""
    return each_rollout(groups, lambda group, rollout: float(rollout.exact))


def first_token(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
    """Returns the paper's first-token matching, `matching.first_token_match`."""

    def value(group: Group, rollout: Rollout) -> float:
        own = [token for _, token in context.prediction_tokens(rollout)]
        return first_token_match(own, context.continuation(group))

    return each_rollout(groups, value)


def span(groups: Sequence[Group], context: RewardContext) -> list[list[float]]:
    """Returns 1 where the prediction, cut where its span ends, is the text's whole number, word or
    LaTeX command (`openrpt.data.spans`), else 0."""

    def value(group: Group, rollout: Rollout) -> float:
        continuation = b"".join(context.continuation(group))
        return float(same_span(rollout.prediction or b"", continuation))

    return each_rollout(groups, value)


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

    return each_rollout(groups, value)


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
    return each_rollout(
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
"""The terms by name; `segment` and users' own are made of what the configuration names, by
`configured.make_terms`."""
