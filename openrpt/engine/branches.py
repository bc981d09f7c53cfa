"""What hangs off a shared prefix: branches with their completions, and the losses on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CompletionIndex = tuple[int, int]
"""(branch, completion): which completion of which branch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """What hangs off the prefix at one position.

    `tail_ids` are run once for all the completions; they may be empty in every branch.

    >>> Branch(prefix_length=5, tail_ids=(9, 9), completions=((4, 2), (7, 2))).prefix_length
    5
    """

    prefix_length: int
    """Tokens of the prefix that the branch sees, head included."""
    tail_ids: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...] = ()


def pad(
    sequences: Sequence[Sequence[float]], device: torch.device, dtype: torch.dtype = torch.long
) -> Tensor:
    """Puts B sequences into one tensor [B, longest], right-padded with 0; the padding is never
    read."""
    width = max((len(sequence) for sequence in sequences), default=0)
    rows = [list(sequence) + [0] * (width - len(sequence)) for sequence in sequences]
    return torch.tensor(rows, dtype=dtype, device=device).view(len(sequences), width)


PrefixLoss = Callable[[Tensor], Tensor]
"""Hidden states of the prefix [L, d] → a loss."""
TailLoss = Callable[[Tensor], Tensor]
"""Hidden states after the tails [P, d] → a loss."""
CompletionLoss = Callable[[list[CompletionIndex], Tensor], Tensor]
"""Rows and hidden states [R, T, d], the one at t predicting token t → a loss."""
