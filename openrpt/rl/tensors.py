"""A document's rollouts as padded tensors, and the micro-batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openrpt.engine.branches import CompletionIndex, pad
from openrpt.rl.batch import GroupBranch, Weighted


@dataclass(frozen=True, kw_only=True, eq=False)
class RolloutTensors:
    """The rollouts of one document as the loss reads them, without their openings.

    Made once a step, whatever the number of micro-batches and of updates.

    Legend: M distinct completions, in the order of the branches; N rollouts, in the order of their
    completions; T tokens of the longest completion. Padding is 0 and not in the mask.
    """

    rows: Tensor  # [M, 2] (branch, completion)
    ids: Tensor  # [M, T]
    read: Tensor  # [M, T] bool: a rollout is trained on the token
    row_of: Tensor  # [N] each rollout's completion
    sampler_logprobs: Tensor  # [N, T] float64
    loss_mask: Tensor  # [N, T] bool
    advantages: Tensor  # [N] float64
    old_logprobs: Tensor | None  # [M, T] by the trainer before the first update; None: as sampled
    reference_logprobs: Tensor | None  # [M, T]

    @classmethod
    def of(
        cls,
        weighted: Weighted,
        branches: Sequence[GroupBranch],
        *,
        old_logprobs: Tensor | None,
        reference_logprobs: Tensor | None,
        device: torch.device,
    ) -> "RolloutTensors":
        """Returns the rollouts of the branches' completions; those of a branch without any are
        left out."""
        rows = [(b, c) for b, group in enumerate(branches) for c in range(len(group.members))]
        rollouts = [(m, b, r) for m, (b, c) in enumerate(rows) for r in branches[b].members[c]]
        known = [
            (weighted.groups[b].rollouts[r].completion, branches[b].opening) for _, b, r in rollouts
        ]
        ids = pad([branches[b].branch.completions[c] for b, c in rows], device)  # [M, T]
        mask = pad(
            [one.loss_mask[opening:] for one, opening in known], device, torch.bool
        )  # [N, T]
        row_of = torch.tensor([m for m, _, _ in rollouts], device=device)  # [N]
        return cls(
            rows=torch.tensor(rows, device=device),  # [M, 2]
            ids=ids,
            read=torch.zeros_like(ids).index_add_(0, row_of, mask.long()) > 0,
            row_of=row_of,
            sampler_logprobs=pad(
                [one.sampler_logprobs[opening:] for one, opening in known], device, torch.float64
            ),
            loss_mask=mask,
            advantages=torch.stack([weighted.advantages[b, r] for _, b, r in rollouts]).to(device),
            old_logprobs=old_logprobs,
            reference_logprobs=reference_logprobs,
        )

    def of_rows(self, rows: Sequence[CompletionIndex], width: int) -> "RolloutTensors":
        """Returns the rollouts of these R completions only, none longer than `width` tokens.

        Rollouts come in the order of `rows`.
        """
        wanted = torch.tensor(rows, device=self.rows.device)  # [R, 2]
        place = (wanted[:, None] == self.rows).all(-1).int().argmax(1)  # [R] into M
        row_of, rollout = (place[:, None] == self.row_of).nonzero(as_tuple=True)  # [n], [n]

        def of_completions(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[place, :width]

        return replace(
            self,
            rows=wanted,
            ids=self.ids[place, :width],  # [R, width]
            read=self.read[place, :width],
            row_of=row_of,
            sampler_logprobs=self.sampler_logprobs[rollout, :width],  # [n, width]
            loss_mask=self.loss_mask[rollout, :width],
            advantages=self.advantages[rollout],
            old_logprobs=of_completions(self.old_logprobs),
            reference_logprobs=of_completions(self.reference_logprobs),
        )

    @property
    def branch_of(self) -> Tensor:
        """Each rollout's branch [N]."""
        return self.rows[self.row_of, 0]
