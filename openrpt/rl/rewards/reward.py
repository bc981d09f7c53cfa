"""The reward that is trained on: a weighted sum of terms over the groups of a document, less what
the thought costs.

Groups come graded by prefix match (`grade_groups`), which stays with each rollout as `exact`: pass
rates and accuracy never change their meaning.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from openrpt.config.rewards import LARGEST_REWARD, RewardConfig
from openrpt.errors import UserError
from openrpt.rl.rewards.term import RewardContext, RewardTerm, rollout_place
from openrpt.rl.thoughts import read_thought
from openrpt.types import Group, Rollout


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
                f"reward '{name}' is {value} for {rollout_place(groups[g], r)}; mend it, or count"
                " such rollouts as 0 with --reward.on_error zero"
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
