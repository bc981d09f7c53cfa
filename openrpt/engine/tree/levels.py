"""The document tree: a document is computed once for all its positions and rollouts.

Level 0, the shared prefix: head ⊕ the document's window, run once.
Level 1, a position: its tail (with the forced tokens that its completions share), run once a
position, seeing the prefix up to the position.
Level 2, a rollout: the completion's own tokens, seeing all of the above.

A step costs T + P·tail + P·G·completion tokens in place of P·G·(T + tail + completion). It is
exact: one softmax over shared and own keys. `gradients.py` has the way back.

Legend: L prefix tokens, P positions, R rollouts of a micro-batch, d hidden size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openrpt.engine.branches import Branch, CompletionIndex, pad
from openrpt.engine.model import Model
from openrpt.engine.tree.attention import OwnKeys, TreePass

PADDING_POSITION = 1 << 40
"""The position of a padded key: beyond every query, so never attended to."""


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

    def backward(self, policy: Model, leaf: "Level", extra: Sequence[Tensor] = ()) -> None:
        """Sends what the leaf has collected, and the extra losses, through this level.

        Divided weights are gathered from the last layer down, so there the way back begins at the
        last states, whether or not anything has read them.
        """
        roots: list[tuple[Tensor, Tensor | None]] = [
            (root, at.grad.to(root.dtype))
            for root, at in zip(self.tensors, leaf.leaves, strict=True)
            if at.grad is not None
        ]
        if policy.divided is not None and leaf.leaves[0].grad is None:
            roots.append((self.hidden, torch.zeros_like(self.hidden)))
        roots += [(loss, None) for loss in extra if loss.requires_grad]
        if roots:
            gradients = [gradient for _, gradient in roots]
            policy.backward([root for root, _ in roots], gradients)


def run_level(policy: Model, ids: Tensor, position_ids: Tensor, tree_pass: TreePass) -> Level:
    """Runs the backbone once over new tokens ids [B, n] at absolute position_ids [B, n]."""
    hidden = policy.states(**_inputs(ids, position_ids, tree_pass))
    collected = [tree_pass.collected[layer] for layer in range(len(tree_pass.collected))]
    return Level(hidden=hidden, layers=collected)


def _inputs(ids: Tensor, position_ids: Tensor, tree_pass: TreePass) -> dict[str, Any]:
    return {
        "input_ids": ids,
        "position_ids": position_ids,
        # A ready 4D mask stops transformers from building one: the pass has its own.
        "attention_mask": torch.zeros(1, 1, 1, 1, device=ids.device),
        "tree_pass": tree_pass,
    }


def packed_states(
    policy: Model, sequences: Sequence[Sequence[int]], layers: Sequence[int]
) -> list[Tensor]:
    """Returns the sequences' states [N, d], joined, for each of the layers; one pass over N tokens.

    Each sequence attends to itself alone and begins at position 0, so packing changes nothing but
    the time that it takes. Inside they are ordered by length: equal ones attend in one call.
    """
    device = policy.device
    lengths = [len(sequence) for sequence in sequences]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    ids = torch.tensor([[token for index in order for token in sequences[index]]], device=device)
    counted = [torch.arange(lengths[index], device=device) for index in order]
    positions = torch.cat(counted)[None]  # [1, N]
    in_order = tuple(lengths[index] for index in order)
    tree_pass = TreePass(query_positions=positions, lengths=in_order)
    found = policy.layer_states(layers, **_inputs(ids, positions, tree_pass))
    places = torch.tensor(_places(lengths, order), device=device)
    return [hidden[0][places] for hidden in found]


def _places(lengths: Sequence[int], order: Sequence[int]) -> NDArray[np.int64]:
    """Returns where each token stands once sequences of these lengths are joined in `order`: [N].

    >>> _places([2, 1], order=[1, 0]).tolist()
    [1, 2, 0]
    """
    ends = np.cumsum(lengths)
    moved = [np.arange(ends[index] - lengths[index], ends[index]) for index in order]
    return np.argsort(np.concatenate(moved))


def run_prefix(policy: Model, prefix_ids: Sequence[int]) -> Level:
    """Runs level 0: head ⊕ window, L tokens, causal."""
    ids = torch.tensor([list(prefix_ids)], device=policy.device)  # [1, L]
    positions = torch.arange(ids.shape[1], device=policy.device)[None]
    return run_level(policy, ids, positions, TreePass(query_positions=positions))


def run_tails(policy: Model, prefix: Level, branches: Sequence[Branch]) -> Level:
    """Runs level 1: the tails [P, n], right-padded, each seeing its own share of the prefix."""
    ids = pad([branch.tail_ids for branch in branches], policy.device)  # [P, n]
    lengths = _prefix_lengths(branches, policy.device)  # [P]
    position_ids = lengths[:, None] + torch.arange(ids.shape[1], device=policy.device)
    tree_pass = TreePass(
        query_positions=position_ids,
        shared=first_keys(prefix, max(branch.prefix_length for branch in branches)),
        shared_lengths=lengths,
    )
    return run_level(policy, ids, position_ids, tree_pass)


def run_completions(
    policy: Model,
    prefix: Level,
    tails: Level | None,
    branches: Sequence[Branch],
    rows: list[CompletionIndex],
) -> Tensor:
    """Runs level 2: returns hidden states [R, T, d]; the one at [r, t] predicts token t of the
    completion.

    The state that predicts the first token is the tail's last (the prefix's where the tail is
    empty), so a completion's last token is never run.
    """
    device = policy.device
    last = last_hidden(prefix, tails, branches)  # [P, d]
    index = torch.tensor([b for b, _ in rows], device=device)  # [R]
    first = last[index][:, None]  # [R, 1, d]
    inputs = [branches[b].completions[c][:-1] for b, c in rows]
    if not are_run(branches, rows):
        return first
    ids = pad(inputs, device)  # [R, T - 1]
    chosen = [branches[b] for b, _ in rows]
    lengths = _prefix_lengths(chosen, device)  # [R]
    starts = lengths + torch.tensor([len(b.tail_ids) for b in chosen], device=device)
    position_ids = starts[:, None] + torch.arange(ids.shape[1], device=device)
    own = None if tails is None else tail_keys(tails, branches, index)
    tree_pass = TreePass(
        query_positions=position_ids,
        shared=first_keys(prefix, max(branch.prefix_length for branch in chosen)),
        shared_lengths=lengths,
        own=own,
    )
    level = run_level(policy, ids, position_ids, tree_pass)
    return torch.cat([first, level.hidden], dim=1)  # [R, T, d]


def backward_completions(
    policy: Model, loss: Tensor, branches: Sequence[Branch], rows: Sequence[CompletionIndex]
) -> None:
    """Goes back from the loss of a micro-batch to the leaves: through the pass that ran its
    completions, if any of them was run."""
    if are_run(branches, rows):
        policy.backward([loss])
    else:
        loss.backward()


def are_run(branches: Sequence[Branch], rows: Sequence[CompletionIndex]) -> bool:
    """Returns whether any of these completions is run: one token is predicted without."""
    return any(len(branches[b].completions[c]) > 1 for b, c in rows)


def last_hidden(prefix: Level, tails: Level | None, branches: Sequence[Branch]) -> Tensor:
    """Returns the states [P, d] from which each branch's completions start."""
    device = prefix.hidden.device
    if tails is None:
        return prefix.hidden[0, _prefix_lengths(branches, device) - 1]
    ends = torch.tensor([len(branch.tail_ids) - 1 for branch in branches], device=device)
    return tails.hidden[torch.arange(len(branches), device=device), ends]


def tail_keys(tails: Level, branches: Sequence[Branch], index: Tensor) -> OwnKeys:
    """Returns the tails' keys [R, K, n, D] for completions of the branches index [R]; padding is
    never attended to."""
    device, width = index.device, tails.hidden.shape[1]
    lengths = _prefix_lengths(branches, device)
    steps = torch.arange(width, device=device)
    tail_lengths = torch.tensor([len(branch.tail_ids) for branch in branches], device=device)
    positions = torch.where(  # [P, n]
        steps < tail_lengths[:, None], lengths[:, None] + steps, PADDING_POSITION
    )
    layers = [(key[index], value[index]) for key, value in tails.layers]
    return OwnKeys(layers=layers, positions=positions[index])


def first_keys(prefix: Level, length: int) -> list[tuple[Tensor, Tensor]]:
    """Returns the keys and values of the prefix's first `length` tokens, by layer."""
    return [(key[:, :, :length], value[:, :, :length]) for key, value in prefix.layers]


def _prefix_lengths(branches: Sequence[Branch], device: torch.device) -> Tensor:
    return torch.tensor([branch.prefix_length for branch in branches], device=device)


@torch.no_grad()
def branch_states(
    policy: Model,
    prefix_ids: Sequence[int],
    branches: Sequence[Branch],
    *,
    microbatch_tokens: int = 1024,
) -> list[list[Tensor]]:
    """Returns, for each branch and completion, the states [T, d] that predict it, without
    gradient."""
    prefix = run_prefix(policy, prefix_ids)
    found: list[list[Tensor]] = [[] for _ in branches]
    for first, part in portions(branches, microbatch_tokens):
        tails = None
        if any(branch.tail_ids for branch in part):
            tails = run_tails(policy, prefix, part)
        for rows in micro_batches(part, microbatch_tokens):
            hidden = run_completions(policy, prefix, tails, part, rows)
            for (b, c), states in zip(rows, hidden, strict=True):
                found[first + b].append(states[: len(part[b].completions[c])])
    return found


def portions(
    branches: Sequence[Branch], tokens: int | None
) -> Iterator[tuple[int, Sequence[Branch]]]:
    """Yields branches in order with the number of the first, as many at a time as have tails within
    `tokens` when padded (at least one; None = all). Those with a tail and those without are apart.
    """
    start = longest = 0
    for b, branch in enumerate(branches):
        longest = max(longest, len(branch.tail_ids))
        full = tokens is not None and longest * (b + 1 - start) > tokens
        if b > start and (full or (not branch.tail_ids) != (not branches[start].tail_ids)):
            yield start, branches[start:b]
            start, longest = b, len(branch.tail_ids)
    if branches:
        yield start, branches[start:]


def micro_batches(branches: Sequence[Branch], tokens: int) -> list[list[CompletionIndex]]:
    """Returns all completions in order, as many at a time as stay within `tokens` when padded (at
    least one)."""
    batches: list[list[CompletionIndex]] = []
    longest = 0
    for b, branch in enumerate(branches):
        for c, completion in enumerate(branch.completions):
            length = max(longest, len(completion))
            if batches and length * (len(batches[-1]) + 1) <= tokens:
                batches[-1].append((b, c))
                longest = length
            else:
                batches.append([(b, c)])
                longest = len(completion)
    return batches
