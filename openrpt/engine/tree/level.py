"""A level of the document tree: a forward pass, what inner levels read of it, the way back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from openrpt.engine.model import Model
from openrpt.engine.tree.attention import TreePass


@dataclass(kw_only=True, eq=False)
class Level:
    """A forward pass's outcome: what inner levels attend to and start from."""

    hidden: Tensor  # [B, n, d]
    layers: list[tuple[Tensor, Tensor]]  # keys, values [B, K, n, D]
    leaves: list[Tensor] = field(default_factory=list)
    """Where the gradients of `tensors` are summed, in float32 or wider: many micro-batches add
    to them. Empty in a level that is no leaf."""

    @classmethod
    def of(cls, tensors: Sequence[Tensor], leaves: Sequence[Tensor] = ()) -> "Level":
        """Returns the level whose `tensors` these are."""
        hidden, *own = tensors
        layers = list(zip(own[::2], own[1::2], strict=True))
        return cls(hidden=hidden, layers=layers, leaves=[*leaves])

    @property
    def tensors(self) -> list[Tensor]:
        """The states, and each layer's keys and values."""
        return [self.hidden, *(tensor for pair in self.layers for tensor in pair)]

    def leaf(self) -> "Level":
        """Returns the same values as leaves that collect gradients, where gradients are
        recorded."""

        def wide(tensor: Tensor) -> Tensor:
            dtype = torch.promote_types(tensor.dtype, torch.float32)
            return tensor.detach().to(dtype).requires_grad_(tensor.requires_grad)

        leaves = [wide(tensor) for tensor in self.tensors]
        same = [leaf.to(tensor.dtype) for leaf, tensor in zip(leaves, self.tensors, strict=True)]
        return Level.of(same, leaves)

    def split(self, lengths: Sequence[int]) -> "list[Level]":
        """Returns the levels of documents of these lengths, packed in this one's row."""
        hidden = self.hidden.split(list(lengths), dim=1)
        keys = [tensor.split(list(lengths), dim=2) for tensor in self.tensors[1:]]
        return [Level.of(tensors) for tensors in zip(hidden, *keys, strict=True)]


def backward_levels(
    policy: Model,
    levels: Sequence[Level],
    leaves: Sequence[Level],
    extra: Sequence[Tensor] = (),
) -> None:
    """Sends what the leaves have collected, and the extra losses, through the pass that these
    levels come from.

    Divided weights are gathered from the last layer down, so there the way back begins at the
    last states, whether or not anything has read them.
    """
    roots: list[tuple[Tensor, Tensor | None]] = []
    for level, leaf in zip(levels, leaves, strict=True):
        roots += [
            (root, at.grad.to(root.dtype))
            for root, at in zip(level.tensors, leaf.leaves, strict=True)
            if at.grad is not None
        ]
        if policy.divided is not None and leaf.leaves[0].grad is None:
            roots.append((level.hidden, torch.zeros_like(level.hidden)))
    roots += [(loss, None) for loss in extra if loss.requires_grad]
    if roots:
        gradients = [gradient for _, gradient in roots]
        policy.backward([root for root, _ in roots], gradients)


def run_level(policy: Model, ids: Tensor, position_ids: Tensor, tree_pass: TreePass) -> Level:
    """Runs the backbone once over new tokens ids [B, n] at absolute position_ids [B, n]."""
    hidden = policy.states(**level_inputs(ids, position_ids, tree_pass))
    collected = [tree_pass.collected[layer] for layer in range(len(tree_pass.collected))]
    return Level(hidden=hidden, layers=collected)


def level_inputs(ids: Tensor, position_ids: Tensor, tree_pass: TreePass) -> dict[str, Any]:
    """Returns what the backbone is called with for a pass over the tree."""
    return {
        "input_ids": ids,
        "position_ids": position_ids,
        # A ready 4D mask stops transformers from building one: the pass has its own.
        "attention_mask": torch.zeros(1, 1, 1, 1, device=ids.device),
        "tree_pass": tree_pass,
    }
