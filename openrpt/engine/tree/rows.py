"""Rows of the document tree that are being decoded, with keys of their own behind what they
share.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openrpt.engine.branches import Branch
from openrpt.engine.model import Model
from openrpt.engine.tree.attention import OwnKeys, TreePass
from openrpt.engine.tree.levels import (
    PADDING_POSITION,
    Level,
    first_keys,
    last_hidden,
    run_level,
    tail_keys,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tree:
    """A document's tree, run as far as its completions begin."""

    prefix: Level
    tails: Level | None
    branches: list[Branch]

    def last_hidden(self) -> Tensor:
        """Returns the states [P, d] from which the completions start."""
        return last_hidden(self.prefix, self.tails, self.branches)

    def lengths(self) -> Tensor:
        """Returns [P, 2]: tokens of the prefix, and with the tail."""
        pairs = [(b.prefix_length, b.prefix_length + len(b.tail_ids)) for b in self.branches]
        return torch.tensor(pairs, device=self.prefix.hidden.device).view(-1, 2)

    def own_keys(self, index: Tensor) -> OwnKeys | None:
        """Returns the tails' keys at the positions index [U]; None without tails."""
        return None if self.tails is None else tail_keys(self.tails, self.branches, index)

    @property
    def text(self) -> "Tree":
        """The same positions in the prefix alone: nothing hangs off it."""
        branches = [replace(branch, tail_ids=()) for branch in self.branches]
        return Tree(prefix=self.prefix, tails=None, branches=branches)


class TreeSequences:
    """Rows on the tree: own keys lie in a preallocated buffer, behind those they begin with.

    The buffer has a row for every rollout; those in use are its first.
    """

    def __init__(
        self,
        policy: Model,
        *,
        hidden: Tensor,  # [U, d]
        own: OwnKeys | None,  # the tail's keys, and the prefix's where none is shared
        lengths: Tensor,  # [U, 2] tokens of the prefix, and with the tail
        rollouts: int,  # rows that there may be in the end
        capacity: int,  # new tokens of a row
        prefix: Level | None,  # what all rows share, if anything
    ) -> None:
        self.policy, self.hidden, self.prefix = policy, hidden, prefix
        self.prefix_lengths, self.next_positions = lengths[:, 0], lengths[:, 1]
        layers = own.layers if own is not None else prefix.layers if prefix is not None else []
        positions = lengths.new_empty(len(hidden), 0) if own is None else own.positions
        filled = positions.shape[1]
        self.buffers = _buffers(layers, rollouts, filled + capacity)
        self.own = OwnKeys(layers=self._rows(len(hidden)), positions=positions, length=filled)
        if own is not None:
            for (keys, values), (key, value) in zip(self.own.layers, own.layers, strict=True):
                keys[:, :, :filled], values[:, :, :filled] = key, value

    def advance(self, ids: Tensor) -> None:
        """Appends ids [U, n] to every row: `Sequences.advance`."""
        new = torch.arange(ids.shape[1], device=ids.device)
        position_ids = self.next_positions[:, None] + new  # [U, n]
        shared = None if self.prefix is None else first_keys(self.prefix, self.prefix_lengths)
        tree_pass = TreePass(
            query_positions=position_ids,
            shared=shared,
            shared_lengths=self.prefix_lengths,
            own=self.own,
        )
        self.hidden = run_level(self.policy, ids, position_ids, tree_pass).hidden[:, -1]  # [U, d]
        self.own.positions = torch.cat([self.own.positions, position_ids], dim=1)
        self.own.length = self.own.positions.shape[1]
        self.next_positions = self.next_positions + ids.shape[1]

    def keep(self, index: Tensor) -> None:
        """Goes on with rows index [U] only: `Sequences.keep`."""
        before, filled = len(self.own.positions), self.own.positions.shape[1]
        rows = torch.arange(before, device=index.device)
        stay = before if torch.equal(index[:before], rows) else 0
        for buffer in self.buffers:  # only the rows that are new where they stand are copied
            buffer[:, stay : len(index), :, :filled] = buffer[:, index[stay:], :, :filled]
        self.own.layers = self._rows(len(index))
        self.own.positions = self.own.positions[index]
        self.prefix_lengths = self.prefix_lengths[index]
        self.next_positions = self.next_positions[index]

    def _rows(self, count: int) -> list[tuple[Tensor, Tensor]]:
        return [(buffer[0, :count], buffer[1, :count]) for buffer in self.buffers]


def _buffers(layers: Sequence[tuple[Tensor, Tensor]], rows: int, columns: int) -> list[Tensor]:
    """Returns a tensor a layer: room for keys and values, [2, rows, K, columns, D]."""
    return [key.new_empty(2, rows, key.shape[1], columns, key.shape[3]) for key, _ in layers]


def whole_keys(trees: Sequence[Tree], index: Tensor) -> OwnKeys:
    """Returns the prefix's and the tail's keys at the chosen positions, all trees' counted
    together, right-padded, for a row that shares nothing."""
    places = [(tree, place) for tree in trees for place in range(len(tree.branches))]
    chosen = [places[i] for i in index.tolist()]
    lengths = torch.cat([tree.lengths() for tree in trees])[index][:, 1]  # [U]
    steps = torch.arange(int(lengths.max()), device=index.device)
    positions = torch.where(steps < lengths[:, None], steps, PADDING_POSITION)  # [U, longest]
    layers = []
    for layer in range(len(trees[0].prefix.layers)):
        both = []
        for kind in range(2):  # keys, values
            rows = [_whole(tree, place, layer, kind) for tree, place in chosen]  # [K, n, D] each
            size = (len(rows), rows[0].shape[0], len(steps), rows[0].shape[2])
            whole = rows[0].new_zeros(size)  # [U, K, longest, D]
            for row, tensor in enumerate(rows):
                whole[row, :, : tensor.shape[1]] = tensor
            both.append(whole)
        layers.append((both[0], both[1]))
    return OwnKeys(layers=layers, positions=positions)


def _whole(tree: Tree, place: int, layer: int, kind: int) -> Tensor:
    """Returns a position's keys (kind 0) or values (1) of one layer: [K, n, D]."""
    branch = tree.branches[place]
    part = tree.prefix.layers[layer][kind][0, :, : branch.prefix_length]
    if tree.tails is None:
        return part
    return torch.cat([part, tree.tails.layers[layer][kind][place, :, : len(branch.tail_ids)]], 1)
