"""Rows of the document tree that are being decoded, with keys of their own behind what they
share.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from openrpt.engine.branches import Branch
from openrpt.engine.model import Model
from openrpt.engine.placing import put
from openrpt.engine.tree.attention import OwnKeys, TreePass
from openrpt.engine.tree.level import Level, run_level
from openrpt.engine.tree.levels import (
    PADDING_POSITION,
    Trunks,
    document_keys,
    last_hidden,
    run_tails,
    tail_keys,
)

_TAIL_TOKENS = 2048
"""Most tokens of several documents' tails in one pass."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tree:
    """A document's tree, run as far as its completions begin."""

    prefix: Level
    tails: Level | None
    branches: list[Branch]

    def last_hidden(self) -> Tensor:
        """Returns the states [P, d] from which the completions start."""
        return last_hidden(Trunks.of([(self.prefix, self.branches)]), self.tails)

    def lengths(self) -> Tensor:
        """Returns [P, 2] on the host: tokens of the prefix, and with the tail."""
        pairs = [(b.prefix_length, b.prefix_length + len(b.tail_ids)) for b in self.branches]
        return torch.tensor(pairs).view(-1, 2)

    def own_keys(self, index: Tensor) -> OwnKeys:
        """Returns the tails' keys at the positions index [U]; none of them without tails."""
        index = put(index, self.prefix.hidden.device)
        if self.tails is not None:
            return tail_keys(self.tails, self.branches, index)
        rows = len(index)
        layers = [
            (key.expand(rows, -1, -1, -1)[:, :, :0], value.expand(rows, -1, -1, -1)[:, :, :0])
            for key, value in self.prefix.layers
        ]
        return OwnKeys(layers=layers, positions=index.new_empty(rows, 0))

    @property
    def text(self) -> "Tree":
        """The same positions in the prefix alone: nothing hangs off it."""
        branches = [replace(branch, tail_ids=()) for branch in self.branches]
        return Tree(prefix=self.prefix, tails=None, branches=branches)


def with_tails(policy: Model, trees: Sequence[Tree]) -> list[Tree]:
    """Returns the trees with their tails run, those of several documents in one pass."""
    found: list[Tree] = []
    for group in _tail_groups(trees):
        trunks = Trunks.of([(tree.prefix, tree.branches) for tree in group])
        counts = [len(tree.branches) for tree in group]
        tails = run_tails(policy, trunks)
        parts = [tensor.split(counts) for tensor in tails.tensors]  # [tensors][trees]
        for tree, tensors in zip(group, zip(*parts, strict=True), strict=True):
            found.append(replace(tree, tails=Level.of(tensors)))
    return found


def _tail_groups(trees: Sequence[Tree]) -> Iterator[list[Tree]]:
    """Yields the trees in order, as many at a time as have tails within _TAIL_TOKENS when padded:
    at least one."""
    group: list[Tree] = []
    rows = longest = 0
    for tree in trees:
        own = max(len(branch.tail_ids) for branch in tree.branches)
        rows, longest = rows + len(tree.branches), max(longest, own)
        if group and rows * longest > _TAIL_TOKENS:
            yield group
            group, rows, longest = [], len(tree.branches), own
        group.append(tree)
    if group:
        yield group


class TreeSequences:
    """Rows on the tree: own keys lie in a preallocated buffer, behind those they begin with.

    The buffer has a row for every rollout; those in use are its first. Lengths, positions that come
    next and documents are kept on the host.
    """

    def __init__(
        self,
        policy: Model,
        *,
        hidden: Tensor,  # [U, d]
        own: OwnKeys,  # the tail's keys, and the prefix's where none is shared
        lengths: Tensor,  # [U, 2] tokens of the prefix, and with the tail
        rollouts: int,  # rows that there may be in the end
        capacity: int,  # new tokens of a row
        prefixes: Sequence[Level],  # what rows share, if anything
        document_of: Tensor,  # [U] each row's among these
    ) -> None:
        self.policy, self.hidden = policy, hidden
        self.prefixes, self.document_of = prefixes, document_of
        self.prefix_lengths, self.next_positions = lengths[:, 0], lengths[:, 1]
        filled = own.positions.shape[1]
        self.buffers = _buffers(own.layers, rollouts, filled + capacity)
        self.own = OwnKeys(layers=self._rows(len(hidden)), positions=own.positions, length=filled)
        for (keys, values), (key, value) in zip(self.own.layers, own.layers, strict=True):
            keys[:, :, :filled], values[:, :, :filled] = key, value

    def advance(self, ids: Tensor) -> None:
        """Appends ids [U, n] to every row: `Sequences.advance`."""
        device = self.hidden.device
        new = torch.arange(ids.shape[1])
        position_ids = put(self.next_positions[:, None] + new, device)  # [U, n]
        documents = document_keys(self.prefixes, self.prefix_lengths, self.document_of)
        tree_pass = TreePass(query_positions=position_ids, own=self.own, documents=documents)
        level = run_level(self.policy, put(ids, device), position_ids, tree_pass)
        self.hidden = level.hidden[:, -1]  # [U, d]
        self.own.positions = torch.cat([self.own.positions, position_ids], dim=1)
        self.own.length = self.own.positions.shape[1]
        self.next_positions = self.next_positions + ids.shape[1]

    def keep(self, index: Tensor) -> None:
        """Goes on with rows index [U] only: `Sequences.keep`."""
        filled, device = self.own.positions.shape[1], self.hidden.device
        moved = (index != torch.arange(len(index))).nonzero()[:, 0]
        there, source = put(moved, device), put(index[moved], device)
        for buffer in self.buffers if len(moved) else ():  # only what is new where it stands
            buffer[:, there, :, :filled] = buffer[:, source, :, :filled]
        self.own.layers = self._rows(len(index))
        self.own.positions = self.own.positions[put(index, device)]
        self.prefix_lengths = self.prefix_lengths[index]
        self.document_of = self.document_of[index]
        self.next_positions = self.next_positions[index]

    def _rows(self, count: int) -> list[tuple[Tensor, Tensor]]:
        return [(buffer[0, :count], buffer[1, :count]) for buffer in self.buffers]


def _buffers(layers: Sequence[tuple[Tensor, Tensor]], rows: int, columns: int) -> list[Tensor]:
    """Returns a tensor a layer: room for keys and values, [2, rows, K, columns, D]."""
    return [key.new_empty(2, rows, key.shape[1], columns, key.shape[3]) for key, _ in layers]


def joined_keys(trees: Sequence[Tree], index: Tensor, tree_of: Tensor) -> OwnKeys:
    """Returns the tails' keys at the chosen positions, all trees' counted together: index [U] in
    order, of the trees tree_of [U]; right-padded."""
    parts, before = [], 0
    for number, tree in enumerate(trees):
        parts.append(tree.own_keys(index[tree_of == number] - before))
        before += len(tree.branches)
    width = max(part.positions.shape[1] for part in parts)
    missing = [width - part.positions.shape[1] for part in parts]
    positions = [
        F.pad(part.positions, (0, more), value=PADDING_POSITION)
        for part, more in zip(parts, missing, strict=True)
    ]
    layers = []
    for layer in range(len(parts[0].layers)):
        keys, values = (
            torch.cat(
                [
                    F.pad(part.layers[layer][kind], (0, 0, 0, more))
                    for part, more in zip(parts, missing, strict=True)
                ]
            )
            for kind in range(2)
        )
        layers.append((keys, values))
    return OwnKeys(layers=layers, positions=torch.cat(positions))


def whole_keys(trees: Sequence[Tree], index: Tensor) -> OwnKeys:
    """Returns the prefix's and the tail's keys at the chosen positions, all trees' counted
    together, right-padded, for a row that shares nothing."""
    places = [(tree, place) for tree in trees for place in range(len(tree.branches))]
    chosen = [places[i] for i in index.tolist()]
    lengths = torch.cat([tree.lengths() for tree in trees])[index][:, 1]  # [U]
    steps = torch.arange(int(lengths.max()))
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
    return OwnKeys(layers=layers, positions=put(positions, trees[0].prefix.hidden.device))


def _whole(tree: Tree, place: int, layer: int, kind: int) -> Tensor:
    """Returns a position's keys (kind 0) or values (1) of one layer: [K, n, D]."""
    branch = tree.branches[place]
    part = tree.prefix.layers[layer][kind][0, :, : branch.prefix_length]
    if tree.tails is None:
        return part
    return torch.cat([part, tree.tails.layers[layer][kind][place, :, : len(branch.tail_ids)]], 1)
