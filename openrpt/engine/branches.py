"""What hangs off a shared prefix: branches with their completions, and the losses on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CompletionIndex = tuple[int, int]
"""The numbers (branch, completion) of a completion."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """A branch at one position of a shared prefix: a tail, and the completions behind it.

    `tail_ids` are run once for all the completions; they may be empty in every branch.

    >>> Branch(prefix_length=5, tail_ids=(9, 9), completions=((4, 2), (7, 2))).prefix_length
    5
    """

    prefix_length: int
    """Tokens of the prefix that the branch sees, head included."""
    tail_ids: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...] = ()
    """Ids of each completion, behind prefix and tail."""


def pad(
    sequences: Sequence[Sequence[float]], device: torch.device, dtype: torch.dtype = torch.long
) -> Tensor:
    """Puts B sequences into one tensor [B, longest], right-padded with 0; the padding is never
    read."""
    width = max((len(sequence) for sequence in sequences), default=0)
    rows = [list(sequence) + [0] * (width - len(sequence)) for sequence in sequences]
    return torch.tensor(rows, dtype=dtype, device=device).view(len(sequences), width)


PrefixLoss = Callable[[Tensor], Tensor]
"""A loss on the hidden states of the prefix [L, d]."""
CompletionLoss = Callable[[list[CompletionIndex], Tensor], Tensor]
"""A loss on completions, by their indices, and their hidden states [R, T, d], of which the one at t
predicts token t."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Passage:
    """A document's window with what hangs off it, and the losses on it."""

    prefix_ids: Sequence[int]
    branches: Sequence[Branch]
    prefix_loss: PrefixLoss | None = None
    completion_loss: CompletionLoss | None = None
