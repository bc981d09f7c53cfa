"""A step's graded rollouts, and the branches of the tree that its update runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openrpt.config.reinforcement import TrainConfig
from openrpt.config.sections import Config
from openrpt.data.prompts import Layout
from openrpt.data.work import Work
from openrpt.engine.branches import Branch
from openrpt.rl.advantages import group_advantages, overlong_penalty
from openrpt.rl.losses import StepTotals
from openrpt.types import Group


@dataclass(frozen=True, kw_only=True, eq=False)
class GradedWork:
    """A document's window with its graded groups, one a position."""

    work: Work
    groups: tuple[Group, ...]
    advantages: Tensor  # [P, G]
    near_boundary: int = 0


def step_advantages(groups: Sequence[Group], config: TrainConfig, *, longest: int) -> Tensor:
    """[groups, group_size], over the whole step; `longest`: as `longest_completion` gives it.

    A completion that did not stop counts as one of `longest` tokens.
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
    return group_advantages(rewards, algorithm.advantage, mask=mask, k=config.pass_at_k)


def longest_completion(config: Config, layout: Layout) -> int:
    """Most trained tokens that a completion may have."""
    answer = len(layout.answer_start_ids) * (config.prompt.think_budget > 0)
    return config.prompt.think_budget + config.prompt.prediction_budget + answer


def step_totals(batch: Sequence[GradedWork], config: Config, layout: Layout) -> StepTotals:
    completions = [
        r.completion for graded in batch for group in graded.groups for r in group.rollouts
    ]
    return StepTotals(
        tokens=sum(completion.num_trained_tokens for completion in completions),
        rollouts=len(completions),
        length=longest_completion(config, layout),
    )


def opening_length(group: Group) -> int:
    """Forced tokens that all completions of a group begin with: they join the tail in the tree."""
    shortest = min(len(r.completion.token_ids) for r in group.rollouts)
    for token in range(shortest):
        if any(r.completion.loss_mask[token] for r in group.rollouts):
            return token
    return shortest


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupBranch:
    """A group as it hangs off the prefix: rollouts of the same tokens are one completion."""

    branch: Branch
    opening: int
    """Tokens of every completion that stand in the branch's tail."""
    members: tuple[tuple[int, ...], ...]
    """The rollouts of each of the branch's completions."""


def group_branch(group: Group, prefix_length: int, layout: Layout) -> GroupBranch:
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


def branches_of(graded: GradedWork, layout: Layout, *, run_flat: bool) -> list[GroupBranch]:
    """One branch a position; a flat group's completions are left out unless they are read."""
    branches = []
    lengths = graded.work.prefix_lengths(layout)
    for group, advantages, length in zip(graded.groups, graded.advantages, lengths, strict=True):
        found = group_branch(group, length, layout)
        if not run_flat and not bool((advantages != 0).any()):
            found = replace(found, branch=replace(found.branch, completions=()), members=())
        branches.append(found)
    return branches


def reads_flat_groups(config: TrainConfig) -> bool:
    """Whether a term other than the reward reads a group whose advantages are all 0."""
    return config.kl_weight > 0 or config.entropy_weight > 0
