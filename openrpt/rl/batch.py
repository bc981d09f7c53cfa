"""A step's rollouts, graded and weighted, and the branches of the tree that its update runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openrpt.config.reinforcement import TrainConfig
from openrpt.config.sections import Config
from openrpt.data.prompts import Budget, Layout
from openrpt.data.work import Work
from openrpt.engine.branches import Branch
from openrpt.engine.model import Model
from openrpt.rl.advantages import exact_scale, group_advantages, overlong_penalty
from openrpt.rl.answers import Answered, answered_thoughts
from openrpt.rl.losses import StepTotals
from openrpt.rl.own_advantages import load_advantages, own_advantages
from openrpt.rl.thoughts import read_thought
from openrpt.types import Completion, Group, Rollout


@dataclass(frozen=True, kw_only=True, eq=False)
class Graded:
    """A document's window with its graded groups, one a position."""

    work: Work
    groups: tuple[Group, ...]
    near_boundary: int = 0
    """Sampled tokens whose uniform lay near a boundary."""

    def weighted(self, advantages: Tensor, answer_weights: Tensor | None = None) -> "Weighted":
        """Returns the same window with what its rollouts weigh: advantages, answer_weights [P,
        G]."""
        return Weighted(
            work=self.work,
            groups=self.groups,
            near_boundary=self.near_boundary,
            advantages=advantages,
            answer_weights=answer_weights,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Weighted(Graded):
    """A graded window whose rollouts were compared with one another: what is trained on.

    Legend: P positions, G rollouts of each.
    """

    advantages: Tensor  # [P, G] float64
    answer_weights: Tensor | None = None  # [P, G] float64
    """The gain of the reward by a right answer's probability after each thought; None where the
    sampled answers are trained on, as the thoughts are."""


def weighted_batch(kept: Sequence[Graded], config: Config, layout: Layout) -> list[Weighted]:
    """Returns the step's graded windows with their advantages; `kept` is all that the step trains
    on."""
    groups = [group for graded in kept for group in graded.groups]
    sizes = [len(graded.groups) for graded in kept]
    longest = Budget.of(config.prompt).trained(layout)
    advantages = step_advantages(groups, config.train, longest=longest).split(sizes)
    if config.train.answer_gradient == "sampled":
        return [graded.weighted(part) for graded, part in zip(kept, advantages, strict=True)]
    answers = _answer_weights(groups, config).split(sizes)
    return [
        graded.weighted(part, of_answers)
        for graded, part, of_answers in zip(kept, advantages, answers, strict=True)
    ]


def step_advantages(groups: Sequence[Group], config: TrainConfig, *, longest: int) -> Tensor:
    """Returns the advantages over a whole step: [groups, group_size], float64.

    `longest`: `Budget.trained`; a completion that did not stop counts as one of
    `longest` tokens. Those above 0 are multiplied by `train.positive_weight` at last. Raises
    UserError as `group_advantages` and `own_advantages` do.
    """
    algorithm = config.recipe()
    rewards = torch.tensor([group.rewards for group in groups], dtype=torch.float64)
    completions = [[rollout.completion for rollout in group.rollouts] for group in groups]
    stopped = torch.tensor([[c.finish_reason == "stop" for c in row] for row in completions])
    if algorithm.overlong == "penalty":
        lengths = torch.tensor([[c.num_trained_tokens for c in row] for row in completions])
        lengths = torch.where(stopped, lengths, longest)
        rewards = rewards + overlong_penalty(lengths, longest, buffer=config.overlong_buffer)
    mask = stopped if algorithm.overlong == "mask" else None
    if own := load_advantages(config):
        advantages = own_advantages(own, rewards, groups, mask=mask)
    else:
        advantages = group_advantages(rewards, algorithm.advantage, mask=mask, k=config.pass_at_k)
    return torch.where(advantages > 0, config.positive_weight * advantages, advantages)


def _answer_weights(groups: Sequence[Group], config: Config) -> Tensor:
    """Returns what each rollout's reward gains by V, the probability of a right answer after its
    thought: [groups, group_size], float64.

    The terms' derivatives by V (1 for `expected`, 1 / (expected_floor + V) for `log_expected`) with
    their weights, times the estimator's scale.
    """
    terms = config.reward.terms

    def slope(rollout: Rollout) -> float:
        weight = terms.get("expected", 0.0)
        if "log_expected" in rollout.terms:
            weight += terms["log_expected"] * math.exp(-rollout.terms["log_expected"])
        return weight

    slopes = [[slope(rollout) for rollout in group.rollouts] for group in groups]
    rewards = torch.tensor([group.rewards for group in groups], dtype=torch.float64)
    scale = exact_scale(rewards, config.train.recipe().advantage)
    return torch.tensor(slopes, dtype=torch.float64) * scale


def thoughts_alone(weighted: Weighted, layout: Layout, config: Config) -> Weighted:
    """Returns the same batch with completions that end with their thought, its seed and what was
    drawn, where the sampled answers are not trained on."""
    if weighted.answer_weights is None:
        return weighted

    def cut(completion: Completion) -> Completion:
        thought = read_thought(completion, layout, think_budget=config.prompt.think_budget)
        return replace(
            completion,
            token_ids=completion.token_ids[: thought.drawn],
            sampler_logprobs=completion.sampler_logprobs[: thought.drawn],
            loss_mask=completion.loss_mask[: thought.drawn],
        )

    groups = tuple(
        replace(
            group,
            rollouts=tuple(replace(r, completion=cut(r.completion)) for r in group.rollouts),
        )
        for group in weighted.groups
    )
    return replace(weighted, groups=groups)


def answers_in(weighted: Weighted, policy: Model, layout: Layout, config: Config) -> list[Answered]:
    """Returns the thoughts whose right answers an update runs; none where the sampled ones are
    trained."""
    if weighted.answer_weights is None:
        return []
    return answered_thoughts(weighted.groups, weighted.work, policy, layout, config)


def step_totals(batch: Sequence[Weighted], config: Config, layout: Layout) -> StepTotals:
    """Returns what the losses of a step are divided by; `batch` is the whole step's.

    With `train.denominator` = "live" flat groups are not counted.
    """
    every = config.train.denominator == "all"
    completions = [
        rollout.completion
        for weighted in batch
        for group, advantages in zip(weighted.groups, weighted.advantages, strict=True)
        if every or bool((advantages != 0).any())
        for rollout in group.rollouts
    ]
    return StepTotals(
        tokens=sum(completion.num_trained_tokens for completion in completions),
        rollouts=len(completions),
        length=Budget.of(config.prompt).trained(layout),
    )


def opening_length(group: Group) -> int:
    """Returns the number of forced tokens that all completions of a group begin with.

    In the tree they join the tail.
    """
    masks = [r.completion.loss_mask for r in group.rollouts]
    return min(mask.index(True) if True in mask else len(mask) for mask in masks)


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupBranch:
    """A group as it hangs off the prefix: rollouts of the same tokens are one completion."""

    branch: Branch
    """The group's branch: its completions are without the opening, its tail with it."""
    opening: int
    """Tokens of every completion that stand in the branch's tail."""
    members: tuple[tuple[int, ...], ...]
    """The rollouts of each of the branch's completions."""


def group_branch(group: Group, prefix_length: int, layout: Layout) -> GroupBranch:
    """Returns the branch of a group behind a prefix of so many tokens, head included."""
    opening = opening_length(group)
    members: dict[tuple[int, ...], list[int]] = {}
    for r, rollout in enumerate(group.rollouts):
        members.setdefault(rollout.completion.token_ids[opening:], []).append(r)
    return GroupBranch(
        branch=Branch(
            prefix_length=prefix_length,
            tail_ids=layout.tail_ids + group.rollouts[0].completion.token_ids[:opening],
            completions=tuple(members),
        ),
        opening=opening,
        members=tuple(tuple(rollouts) for rollouts in members.values()),
    )


def branches_of(weighted: Weighted, layout: Layout, *, run_flat: bool) -> list[GroupBranch]:
    """Returns the branches of a window, one a position.

    A group whose advantages are all 0 has no completions there unless `run_flat`.
    """
    branches = []
    lengths = weighted.work.prefix_lengths(layout)
    for group, advantages, length in zip(
        weighted.groups, weighted.advantages, lengths, strict=True
    ):
        found = group_branch(group, length, layout)
        if not run_flat and not bool((advantages != 0).any()):
            found = replace(found, branch=replace(found.branch, completions=()), members=())
        branches.append(found)
    return branches


def reads_flat_groups(config: TrainConfig) -> bool:
    """Returns whether a term other than the reward reads a group whose advantages are all 0."""
    return config.kl_weight > 0 or config.entropy_weight > 0
