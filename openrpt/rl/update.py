"""One optimizer update from a batch of graded groups: advantages, the tree's gradients, a step.

Every division is by the whole step's totals, so nothing depends on micro-batches. A flat group
is not run unless a term other than the reward reads it; the totals count it all the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openrpt.config.sections import Config, TrainConfig
from openrpt.data.prompts import Layout
from openrpt.data.work import Work
from openrpt.engine.branches import Passage, Row, pad
from openrpt.engine.engine import Engine
from openrpt.engine.head import selected_logprobs
from openrpt.engine.model import Policy
from openrpt.engine.text_loss import TextTerms, text_loss
from openrpt.rl.batch import GradedWork, GroupBranch, branches_of, reads_flat_groups, step_totals
from openrpt.rl.losses import LossConfig, LossInputs, StepTotals, policy_loss
from openrpt.rl.nonfinite import Places
from openrpt.rl.optimizer import apply_update


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
        passages = []
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
            passages.append(
                Passage(
                    prefix_ids=prefix_ids,
                    branches=[group.branch for group in branches] if run else [],
                    prefix_loss=prefix_loss if train.ntp_weight else None,
                    completion_loss=completion_loss,
                )
            )
        engine.accumulate_each(policy, passages, microbatch_tokens=train.microbatch_tokens)
        norm = apply_update(policy, optimizer, train.max_grad_norm, places, stage="train")
        metrics["optim/grad_norm"] = norm
    return _normalised(metrics)


def _normalised(metrics: dict[str, float]) -> dict[str, float]:
    """Sums over tokens become means over the tokens that were run."""
    tokens = metrics.pop("run_tokens", 0.0)
    means = {"policy/entropy", "policy/sampler_difference", "policy/ratio", "policy/mismatch"}
    means |= {"policy/clip_fraction", "policy/dropped_fraction"}
    found = {k: v / max(tokens, 1.0) if k in means else v for k, v in metrics.items()}
    found["tokens/trained_run"] = tokens
    return found
