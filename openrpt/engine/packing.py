"""Documents side by side in one pass: each attends to itself alone and begins at position 0, so
packing changes nothing but the time that it takes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from openrpt.engine.flat import flat_hidden
from openrpt.engine.model import Model
from openrpt.engine.tree.attention import NAME as TREE_ATTENTION
from openrpt.engine.tree.attention import TreePass
from openrpt.engine.tree.levels import run_level


def packs(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices of sequences in order, as many at a time as stay within `tokens` (at least one).

    >>> packs([3, 2, 4, 9], 6)
    [[0, 1], [2], [3]]
    """
    found: list[list[int]] = []
    filled = 0
    for index, length in enumerate(lengths):
        if found and filled + length <= tokens:
            found[-1].append(index)
            filled += length
        else:
            found.append([index])
            filled = length
    return found


def packed_hidden(policy: Model, sequences: Sequence[Sequence[int]]) -> Tensor:
    """[N, d]: what separate passes over the sequences give, joined; N tokens in all.

    A policy that runs flat computes them one by one: not every layer can keep them apart.
    """
    if policy.causal_lm.config._attn_implementation != TREE_ATTENTION:
        return torch.cat([flat_hidden(policy, sequence) for sequence in sequences])
    device = policy.device
    ids = torch.tensor([[token for sequence in sequences for token in sequence]], device=device)
    lengths = tuple(len(sequence) for sequence in sequences)
    positions = torch.cat([torch.arange(length, device=device) for length in lengths])[None]
    tree_pass = TreePass(query_positions=positions, lengths=lengths)
    return run_level(policy, ids, positions, tree_pass).hidden[0]
