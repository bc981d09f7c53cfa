"""Metrics of a step's thinking: where the policy thinks, how long, and what it wins by that."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from openrpt.config.prompt import PromptConfig
from openrpt.data.prompts import Layout
from openrpt.data.token_classes import CLASS_NAMES, CONTEXT, token_class
from openrpt.data.tokens import TokenTable
from openrpt.data.work import Work
from openrpt.rl.batch import Graded
from openrpt.rl.thoughts import read_thought


@dataclass(frozen=True, kw_only=True, slots=True)
class _Told:
    """A rollout, as the metrics read it."""

    free_tokens: int
    reward: float


def thought_metrics(
    generated: Sequence[Graded], layout: Layout, table: TokenTable, prompt: PromptConfig
) -> dict[str, float]:
    """Returns the share of rollouts with a drawn thought, their tokens, and the rewards with and
    without one.

    Over all rollouts, and by the class of the true token at their position, with that behind the
    key (`number`, say). Empty where nothing is drawn before the close (`prompt.think_budget` = 0);
    a mean over nothing is left out.
    """
    if prompt.think_budget == 0:
        return {}
    everything: list[_Told] = []
    of_class: dict[str, list[_Told]] = defaultdict(list)
    for graded in generated:
        for group in graded.groups:
            told = []
            for rollout in group.rollouts:
                thought = read_thought(rollout.completion, layout, think_budget=prompt.think_budget)
                told.append(_Told(free_tokens=thought.free_tokens, reward=rollout.reward))
            everything += told
            index = group.prompt.position.index
            of_class[CLASS_NAMES[_class_at(graded.work, index, table)]] += told
    metrics = _describe(everything)
    for name in sorted(of_class):
        metrics |= {f"{key}/{name}": value for key, value in _describe(of_class[name]).items()}
    return metrics


def _class_at(work: Work, index: int, table: TokenTable) -> str:
    ids = work.document.token_ids[max(index - CONTEXT, 0) : index + 1].tolist()
    *before, token = (table.bytes[i] for i in ids)
    return token_class(token, b"".join(before)[-CONTEXT:])


def _describe(told: Sequence[_Told]) -> dict[str, float]:
    thinking = [one for one in told if one.free_tokens]
    at_once = [one.reward for one in told if not one.free_tokens]
    found = {"thought/share": len(thinking) / len(told)}
    if thinking:
        found["thought/tokens"] = sum(one.free_tokens for one in thinking) / len(thinking)
        found["thought/reward_with"] = sum(one.reward for one in thinking) / len(thinking)
    if at_once:
        found["thought/reward_without"] = sum(at_once) / len(at_once)
    return found
