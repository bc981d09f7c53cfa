"""One optimizer update from a batch of graded groups: advantages, the tree's gradients, a step.

Every division is by the whole step's totals, so nothing depends on micro-batches. A flat group
is not run unless a term other than the reward reads it; the totals count it all the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openrpt.advantages import group_advantages, overlong_penalty
from openrpt.config import Config, TrainConfig
from openrpt.data import Work
from openrpt.engine import Engine
from openrpt.logprobs import selected_logprobs
from openrpt.losses import LossConfig, LossInputs, StepTotals, policy_loss
from openrpt.model_check import require_finite
from openrpt.models import Policy
from openrpt.nonfinite import NotFinite, Places
from openrpt.prompts import Layout
from openrpt.text_loss import TextTerms, text_loss
from openrpt.tree import Branch, Row, pad
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


def loss_config_for(train: TrainConfig) -> LossConfig:
    """The loss of the config's algorithm, with its weights."""
    algorithm = train.recipe()
    return LossConfig(
        ratio_level=algorithm.ratio_level,
        surrogate=algorithm.surrogate,
        clip_low=algorithm.clip_low,
        clip_high=algorithm.clip_high,
        aggregation=algorithm.aggregation,
        kl_weight=train.kl_weight,
        entropy_weight=train.entropy_weight,
        importance_correction=train.importance_correction,
        importance_min=train.importance_min,
        importance_max=train.importance_max,
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


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchLoss:
    """The policy loss of one document's micro-batches; collects metrics as it is called."""

    policy: Policy
    graded: GradedWork
    branches: Sequence[GroupBranch]
    totals: StepTotals
    config: LossConfig
    temperature: float
    reference: "list[list[Tensor]] | None"
    old: "list[list[Tensor]] | None"
    """By the trainer before the first update; None = the sampler's stand for them."""
    metrics: dict[str, float]
    places: Places

    def __call__(self, rows: list[Row], hidden: Tensor) -> Tensor:
        """rows and hidden [R, T, d] of a micro-batch → its share of the step's loss.

        The rows are distinct completions; the loss is over their rollouts, N of them.
        """
        device, width = hidden.device, hidden.shape[1]
        rollouts = [
            (row, b, r) for row, (b, c) in enumerate(rows) for r in self.branches[b].members[c]
        ]
        of_rollout = [rows[row] for row, _, _ in rollouts]
        row_of = torch.tensor([row for row, _, _ in rollouts], device=device)  # [N]
        sampler = torch.zeros(len(rollouts), width, dtype=torch.float64, device=device)
        mask = torch.zeros(len(rollouts), width, dtype=torch.bool, device=device)
        for i, (_, b, r) in enumerate(rollouts):
            completion = self.graded.groups[b].rollouts[r].completion
            opening = self.branches[b].opening
            own = len(completion.token_ids) - opening
            known = completion.sampler_logprobs[opening:]
            sampler[i, :own] = torch.tensor(known, dtype=torch.float64)
            mask[i, :own] = torch.tensor(completion.loss_mask[opening:])
        logprobs, entropies = self._logprobs(rows, hidden, row_of, mask)
        sampler = sampler.to(logprobs.dtype)
        advantages = torch.stack([self.graded.advantages[b, r] for _, b, r in rollouts])
        inputs = LossInputs(
            trainer_logprobs=logprobs,
            old_logprobs=sampler if self.old is None else _padded(self.old, of_rollout, sampler),
            sampler_logprobs=sampler,
            reference_logprobs=(
                None if self.reference is None else _padded(self.reference, of_rollout, sampler)
            ),
            entropies=entropies,
            advantages=advantages.to(sampler),
            loss_mask=mask,
        )
        outputs = policy_loss(inputs, self.config, self.totals)
        if not math.isfinite(outputs.loss.detach()):
            self._note_places(inputs, [b for _, b, _ in rollouts])
        with torch.no_grad():
            difference = (inputs.trainer_logprobs - sampler)[mask].abs()
            self._add("run_tokens", float(mask.sum()))
            self._add("policy/entropy", float(entropies[mask].sum()))
            self._add("policy/sampler_difference", float(difference.sum()))
            self._add("loss/policy", float(outputs.loss.detach()))
            for name, value in outputs.metrics.items():
                self._add(name, value)
        return outputs.loss

    def _logprobs(
        self, rows: list[Row], hidden: Tensor, row_of: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies, each [N, T]; a logit is computed once a distinct row."""
        ids = pad([self.branches[b].branch.completions[c] for b, c in rows], hidden.device)
        read = torch.zeros_like(ids).index_add_(0, row_of, mask.long()) > 0
        found = selected_logprobs(
            hidden[read], self.policy.head, ids[read], temperature=self.temperature
        )
        logprobs, entropies = (
            torch.zeros_like(read, dtype=part.dtype).masked_scatter(read, part)[row_of]
            for part in found
        )
        return logprobs, entropies

    def _note_places(self, inputs: LossInputs, branches: Sequence[int]) -> None:
        """Those of the rollouts with a number that is not finite; all, where each number is."""
        read = [inputs.trainer_logprobs, inputs.sampler_logprobs, inputs.old_logprobs]
        read += [
            known for known in (inputs.entropies, inputs.reference_logprobs) if known is not None
        ]
        finite = inputs.advantages.isfinite()  # [N]
        for values in read:
            finite = finite & (values.isfinite() | ~inputs.loss_mask).all(1)
        bad = [b for b, fine in zip(branches, finite.tolist(), strict=True) if not fine]
        work = self.graded.work
        positions = [work.positions[b].index for b in bad or branches]
        self.places.note(work.document.document_id, positions)

    def _add(self, name: str, value: float) -> None:
        self.metrics[name] = self.metrics.get(name, 0.0) + value


def _padded(known: list[list[Tensor]], rows: list[Row], like: Tensor) -> Tensor:
    """Log-probabilities of a micro-batch's rollouts out of a document's: [N, T]."""
    padded = torch.zeros_like(like)
    for i, (b, c) in enumerate(rows):
        padded[i, : len(known[b][c])] = known[b][c].to(like)
    return padded


@dataclass(frozen=True, kw_only=True, eq=False)
class PrefixLoss:
    """The plain next-token loss over a window's real tokens, in the same pass."""

    policy: Policy
    work: Work
    prefix_ids: tuple[int, ...]
    head_length: int
    weight: float
    step_tokens: int
    """Tokens of plain text in the whole step."""
    metrics: dict[str, float]
    places: Places

    def __call__(self, hidden: Tensor) -> Tensor:
        """Hidden states of the prefix [L, d] → weight · Σ −log p / the step's tokens."""
        first = max(self.head_length, 1)
        targets = torch.tensor(self.prefix_ids[first:], device=hidden.device)
        terms = TextTerms(targets=targets, ntp_scale=self.weight / self.step_tokens)
        loss, ntp, _ = text_loss(hidden[first - 1 : -1], self.policy.head, terms)
        if not math.isfinite(ntp):
            window, document_id = self.work.window, self.work.document.document_id
            own = hidden[self.head_length :]
            if not self.places.note_text(document_id, own, start=window.start):
                self.places.note(document_id, [window.start])
        mean = self.metrics.get("loss/ntp", 0.0) + ntp / self.step_tokens
        self.metrics["loss/ntp"] = mean
        return loss


def num_ntp_tokens(work: Work, layout: Layout) -> int:
    return work.window.end - work.window.start - (not layout.head_ids)


def completion_logprobs(
    model: Policy,
    engine: Engine,
    graded: GradedWork,
    groups: Sequence[GroupBranch],
    config: Config,
    layout: Layout,
) -> list[list[Tensor]]:
    """Each distinct completion's log-probabilities by a model, after the opening: [T]."""
    prefix_ids = graded.work.prefix_ids(layout, whole=False)
    branches = [group.branch for group in groups]
    found = engine.branch_hidden(model, prefix_ids, branches)
    with torch.no_grad():
        return [
            [
                selected_logprobs(
                    states,
                    model.head,
                    torch.tensor(ids, device=states.device),
                    temperature=config.train.temperature,
                )[0]
                for states, ids in zip(found_branch, branch.completions, strict=True)
            ]
            for found_branch, branch in zip(found, branches, strict=True)
        ]


def update_policy(
    policy: Policy,
    engine: Engine,
    optimizer: torch.optim.Optimizer,
    batch: Sequence[GradedWork],
    config: Config,
    layout: Layout,
    *,
    reference: Policy | None = None,
) -> dict[str, float]:
    """Runs `updates_per_batch` optimizer steps; returns the last one's metrics.

    Raises NotFinite as `apply_update` does: the updates before that one stand.
    """
    train = config.train
    totals = step_totals(batch, config, layout)
    loss_config = loss_config_for(train)
    run_flat = reads_flat_groups(train)
    all_branches = [branches_of(graded, layout, run_flat=run_flat) for graded in batch]

    def logprobs_by(model: Policy | None) -> list[list[list[Tensor]] | None]:
        if model is None:
            return [None] * len(batch)
        return [
            completion_logprobs(model, engine, graded, branches, config, layout)
            if any(group.members for group in branches)
            else None
            for graded, branches in zip(batch, all_branches, strict=True)
        ]

    references = logprobs_by(reference if train.kl_weight else None)
    olds = logprobs_by(policy if train.importance_correction != "off" else None)
    ntp_tokens = sum(num_ntp_tokens(graded.work, layout) for graded in batch)
    metrics: dict[str, float] = {}
    for _ in range(train.updates_per_batch):
        metrics = {}
        places = Places(graded.work.document.document_id for graded in batch)
        optimizer.zero_grad(set_to_none=True)
        for graded, branches, known, old in zip(batch, all_branches, references, olds, strict=True):
            prefix_ids = graded.work.prefix_ids(layout, whole=train.ntp_weight > 0)
            run = any(group.members for group in branches)
            if not run and not train.ntp_weight:
                continue
            completion_loss = BatchLoss(
                policy=policy,
                graded=graded,
                branches=branches,
                totals=totals,
                config=loss_config,
                temperature=train.temperature,
                reference=known,
                old=old,
                metrics=metrics,
                places=places,
            )
            prefix_loss = PrefixLoss(
                policy=policy,
                work=graded.work,
                prefix_ids=prefix_ids,
                head_length=len(layout.head_ids),
                weight=train.ntp_weight,
                step_tokens=max(ntp_tokens, 1),
                metrics=metrics,
                places=places,
            )
            engine.accumulate_gradients(
                policy,
                prefix_ids,
                [group.branch for group in branches] if run else [],
                prefix_loss=prefix_loss if train.ntp_weight else None,
                completion_loss=completion_loss,
                microbatch_tokens=train.microbatch_tokens,
            )
        norm = apply_update(policy, optimizer, train.max_grad_norm, places, stage="train")
        metrics["optim/grad_norm"] = norm
    return _normalised(metrics)


def apply_update(
    policy: Policy, optimizer: torch.optim.Optimizer, max_norm: float, places: Places, *, stage: str
) -> float:
    """Clips and steps; the gradient's norm before clipping. `stage`: whose learning rate it is.

    Raises NotFinite, and changes nothing, where that norm is not finite; and UserError where the
    step itself has made weights that are not.
    """
    norm = float(torch.nn.utils.clip_grad_norm_(policy.parameters(), max_norm))
    if not math.isfinite(norm):
        optimizer.zero_grad(set_to_none=True)
        raise NotFinite(norm, places, f"--{stage}.learning_rate")
    optimizer.step()
    trained = ((n, p) for n, p in policy.model.named_parameters() if p.requires_grad)
    rate = optimizer.param_groups[0]["lr"]
    require_finite(trained, what=f"{stage}.learning_rate is too high ({rate:g} here): the policy")
    return norm


def _normalised(metrics: dict[str, float]) -> dict[str, float]:
    """Sums over tokens become means over the tokens that were run."""
    tokens = metrics.pop("run_tokens", 0.0)
    means = {"policy/entropy", "policy/sampler_difference", "policy/ratio", "policy/mismatch"}
    means |= {"policy/clip_fraction", "policy/dropped_fraction"}
    found = {k: v / max(tokens, 1.0) if k in means else v for k, v in metrics.items()}
    found["tokens/trained_run"] = tokens
    return found
