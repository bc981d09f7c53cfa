"""The right answers to a position, and how likely a thought makes them, by teacher forcing.

A right answer is the text's own next k tokens, the box's end, and a stop token (none where the
prediction's budget ends there). These are disjoint completions, each of which the grader calls
right, so the sum of their probabilities is at most the probability that a sampled answer is right.
What it leaves out: other tokens that spell the same bytes, answers longer than
`reward.expected_tokens`, and what goes on behind the box's end and is right all the same.

On the document tree a thought is a tail (thought, close, opened box), and its right answers are
the completions behind it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openrpt.config.sections import Config
from openrpt.data.prompts import Layout
from openrpt.data.tokens import literal_bytes
from openrpt.data.work import Work
from openrpt.engine.branches import Branch, CompletionIndex
from openrpt.engine.engine import Engine
from openrpt.engine.logprobs import selected_logprobs
from openrpt.engine.model import Model
from openrpt.rl.completions import BOX, extract_prediction
from openrpt.rl.rewards.matching import prefix_match
from openrpt.rl.thoughts import read_thought
from openrpt.types import Group


@dataclass(frozen=True, kw_only=True, slots=True)
class RightAnswer:
    """A completion's rest that is right, behind an opened box."""

    ids: tuple[int, ...]
    """The answer's ids: k tokens of the text and the box's end."""
    stops: bool
    """Whether a stop token follows; without one, the budget has ended."""


def right_answers(
    next_ids: Sequence[int], policy: Model, layout: Layout, config: Config
) -> tuple[RightAnswer, ...]:
    """Returns the right answers of at most `reward.expected_tokens` tokens, the shortest first.

    `next_ids`: the text's tokens from the position on. An answer that the grader would not call
    right is left out: one with a box or a thought's end of its own, say.
    """
    budget, end = config.prompt.prediction_budget, layout.answer_end_ids
    table, literal = policy.table, layout.literal
    most = min(config.reward.expected_tokens, budget - len(end), len(next_ids))
    pieces = [literal_bytes(table, [token], literal) for token in next_ids[:most]]
    found = []
    for k in range(1, most + 1):
        if next_ids[k - 1] in policy.stop_ids:
            break
        ids = tuple(next_ids[:k]) + end
        said = layout.thought_end + BOX + literal_bytes(table, ids, literal)
        if prefix_match(extract_prediction(said, thought_end=layout.thought_end), pieces):
            found.append(RightAnswer(ids=ids, stops=len(ids) < budget))
    return tuple(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A distinct thought of a group, with the right answers behind it."""

    group: int
    """Index of the group in its window."""
    members: tuple[int, ...]
    """The rollouts that thought so."""
    branch: Branch
    """The thought's branch: its tail ends with the thought; its completions are the right
    answers."""
    stops: tuple[bool, ...]
    """For each right answer, whether its last id stands for all stop tokens."""


def answered_thoughts(
    groups: Sequence[Group], work: Work, policy: Model, layout: Layout, config: Config
) -> list[Answered]:
    """Returns the distinct thoughts of a window's groups, those that can't be answered rightly
    left out."""
    document = work.document.token_ids
    most, found = config.reward.expected_tokens, []
    for g, (group, length) in enumerate(zip(groups, work.prefix_lengths(layout), strict=True)):
        index = group.prompt.position.index
        answers = right_answers(document[index : index + most].tolist(), policy, layout, config)
        members: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
        for r, rollout in enumerate(group.rollouts):
            thought = read_thought(
                rollout.completion, layout, think_budget=config.prompt.think_budget
            )
            if thought.has_answer and answers:
                members.setdefault((thought.ids, thought.box_ids), []).append(r)
        found += [
            Answered(
                group=g,
                members=tuple(rollouts),
                branch=Branch(
                    prefix_length=length,
                    tail_ids=layout.tail_ids + ids,
                    completions=tuple(_completions(box_ids, answers, policy)),
                ),
                stops=tuple(answer.stops for answer in answers),
            )
            for (ids, box_ids), rollouts in members.items()
        ]
    return found


def _completions(
    box_ids: tuple[int, ...], answers: Sequence[RightAnswer], policy: Model
) -> Iterator[tuple[int, ...]]:
    stop = tuple(sorted(policy.stop_ids)[:1])
    for answer in answers:
        yield box_ids + answer.ids + (stop if answer.stops else ())


def answer_logprobs(
    policy: Model,
    answered: Sequence[Answered],
    rows: Sequence[CompletionIndex],
    hidden: Tensor,
    *,
    temperature: float,
) -> Tensor:
    """Returns the log-probability of each right answer, in nats: hidden [R, T, d] → [R].

    `rows`: (number of the answered thought, of its right answer). Differentiable in hidden and the
    head's parameters.
    """
    stop_ids = sorted(policy.stop_ids)
    places: list[tuple[int, int, int]] = []  # (row, token, id)
    stopping: list[int] = []
    for r, (a, c) in enumerate(rows):
        ids = answered[a].branch.completions[c]
        if answered[a].stops[c]:
            ids = ids[:-1]
            stopping.append(r)
        places += [(r, t, token) for t, token in enumerate(ids)]
    said = len(places)
    for r in stopping:
        a, c = rows[r]
        last = len(answered[a].branch.completions[c]) - 1
        places += [(r, last, token) for token in stop_ids]
    row, token, chosen = torch.tensor(places, device=hidden.device).unbind(1)  # each [places]
    logprobs, _ = selected_logprobs(
        hidden[row, token], policy.head, chosen, temperature=temperature
    )  # [places]
    logprobs = logprobs.double()
    total = logprobs.new_zeros(len(rows)).index_add(0, row[:said], logprobs[:said])  # [R]
    if stopping:  # any of the stop tokens ends it
        ends = logprobs[said:].view(len(stopping), len(stop_ids)).logsumexp(1)  # [stopping]
        total = total.index_add(0, row.new_tensor(stopping), ends)
    return total


@torch.no_grad()
def expected_rewards(
    engine: Engine, groups: Sequence[Group], work: Work, layout: Layout, config: Config
) -> list[list[float]]:
    """Returns each rollout's probability of a right answer after its thought: [groups][rollouts].

    At the sampling temperature. Equal thoughts of a group are run once, so that their values are
    equal to the bit; a thought without an answer has 0.
    """
    values = [[0.0] * len(group.rollouts) for group in groups]
    answered = answered_thoughts(groups, work, engine.model, layout, config)
    if not answered:
        return values
    prefix_ids = work.prefix_ids(layout, whole=False)
    found = engine.branch_states(prefix_ids, [one.branch for one in answered])
    for a, (one, states) in enumerate(zip(answered, found, strict=True)):
        logprobs = answer_logprobs(
            engine.model,
            answered,
            [(a, c) for c in range(len(states))],
            torch.nn.utils.rnn.pad_sequence(states, batch_first=True),
            temperature=config.train.temperature,
        )
        value = float(logprobs.exp().sum())
        for r in one.members:
            values[one.group][r] = value
    return values
