"""The document tree: a document is computed once for all its positions and rollouts.

Level 0, the shared prefix: head ⊕ the document's window, run once.
Level 1, a position: its tail (with the forced tokens that its completions share), run once a
position, seeing the prefix up to the position.
Level 2, a rollout: the completion's own tokens, seeing all of the above.

A step costs T + P·tail + P·G·completion tokens in place of P·G·(T + tail + completion). It is
exact: one softmax over shared and own keys. In training, what an outer level gives to an inner
one is a leaf: micro-batches of rollouts accumulate gradients into the leaves, then tails run
backward, then the prefix, once. Peak memory is the window plus one micro-batch.

For one process: the gradient of the input embedding comes last and by a backward pass of its own
(`embeddings_as_leaves`), and leaves stand between the levels, so hooks that count on one backward
pass through every parameter, as those of DistributedDataParallel and FSDP, do not see a step as a
whole. Sum the `.grad` of the processes after `accumulate_gradients` in their place.

Legend: L prefix tokens, P positions, R rollouts of a micro-batch, d hidden size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from openrpt.engine.branches import Branch, CompletionLoss, PrefixLoss, Row, TailLoss, pad
from openrpt.engine.model import Model
from openrpt.engine.tree.attention import OwnKeys, TreePass

EMBEDDING_TOKENS = 8192
"""Tokens whose embeddings' gradients wait for one backward pass (19 MB at d = 576)."""

PADDING_POSITION = 1 << 40
"""The position of a padded key: beyond every query, so never attended to."""


@dataclass(kw_only=True, eq=False)
class Level:
    """The outcome of one forward pass: what inner levels attend to and start from."""

    hidden: Tensor  # [B, n, d]
    layers: list[tuple[Tensor, Tensor]]  # keys, values [B, K, n, D]

    def leaf(self) -> "Level":
        """The same values as leaves that collect gradients, where gradients are recorded."""

        def cut(tensor: Tensor) -> Tensor:
            return tensor.detach().requires_grad_(tensor.requires_grad)

        return Level(hidden=cut(self.hidden), layers=[(cut(k), cut(v)) for k, v in self.layers])

    def backward(self, leaf: "Level", extra: Sequence[Tensor] = ()) -> None:
        """Sends what the leaf has collected, and the extra losses, through this level."""
        pairs = [(self.hidden, leaf.hidden)]
        for (key, value), (leaf_key, leaf_value) in zip(self.layers, leaf.layers, strict=True):
            pairs += [(key, leaf_key), (value, leaf_value)]
        roots: list[tuple[Tensor, Tensor | None]]
        roots = [(root, at.grad) for root, at in pairs if at.grad is not None]
        roots += [(loss, None) for loss in extra if loss.requires_grad]
        if roots:
            gradients = [gradient for _, gradient in roots]
            torch.autograd.backward([root for root, _ in roots], gradients)


def run_level(policy: Model, ids: Tensor, position_ids: Tensor, tree_pass: TreePass) -> Level:
    """One pass of the backbone over new tokens ids [B, n] at absolute position_ids [B, n]."""
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
    """For each of the layers [N, d]: the sequences' states, joined; one pass over N tokens.

    Each sequence attends to itself alone and begins at position 0, so packing changes nothing but
    the time that it takes.
    """
    device = policy.device
    ids = torch.tensor([[token for sequence in sequences for token in sequence]], device=device)
    lengths = tuple(len(sequence) for sequence in sequences)
    positions = torch.cat([torch.arange(length, device=device) for length in lengths])[None]
    tree_pass = TreePass(query_positions=positions, lengths=lengths)
    found = policy.layer_states(layers, **_inputs(ids, positions, tree_pass))
    return [hidden[0] for hidden in found]


def run_prefix(policy: Model, prefix_ids: Sequence[int]) -> Level:
    """Level 0: head ⊕ window, causal."""
    ids = torch.tensor([list(prefix_ids)], device=policy.device)
    positions = torch.arange(ids.shape[1], device=policy.device)[None]
    return run_level(policy, ids, positions, TreePass(query_positions=positions))


def run_tails(policy: Model, prefix: Level, branches: Sequence[Branch]) -> Level:
    """Level 1: the tails [P, n], right-padded, each seeing its own share of the prefix."""
    ids = pad([branch.tail_ids for branch in branches], policy.device)
    lengths = _prefix_lengths(branches, policy.device)
    position_ids = lengths[:, None] + torch.arange(ids.shape[1], device=policy.device)
    tree_pass = TreePass(
        query_positions=position_ids, shared=first_keys(prefix, lengths), shared_lengths=lengths
    )
    return run_level(policy, ids, position_ids, tree_pass)


def run_completions(
    policy: Model, prefix: Level, tails: Level | None, branches: Sequence[Branch], rows: list[Row]
) -> Tensor:
    """Level 2: hidden states [R, T, d]; the one at [r, t] predicts token t of the completion.

    The state that predicts the first token is the tail's last (the prefix's where the tail is
    empty), so a completion's last token is never run.
    """
    device = policy.device
    last = last_hidden(prefix, tails, branches)
    index = torch.tensor([b for b, _ in rows], device=device)
    first = last[index][:, None]  # [R, 1, d]
    inputs = [branches[b].completions[c][:-1] for b, c in rows]
    ids = pad(inputs, device)
    if ids.shape[1] == 0:
        return first
    chosen = [branches[b] for b, _ in rows]
    lengths = _prefix_lengths(chosen, device)
    starts = lengths + torch.tensor([len(b.tail_ids) for b in chosen], device=device)
    position_ids = starts[:, None] + torch.arange(ids.shape[1], device=device)
    own = None if tails is None else tail_keys(tails, branches, index)
    tree_pass = TreePass(
        query_positions=position_ids,
        shared=first_keys(prefix, lengths),
        shared_lengths=lengths,
        own=own,
    )
    level = run_level(policy, ids, position_ids, tree_pass)
    return torch.cat([first, level.hidden], dim=1)


def last_hidden(prefix: Level, tails: Level | None, branches: Sequence[Branch]) -> Tensor:
    """[P, d]: the state from which each branch's completions start."""
    device = prefix.hidden.device
    if tails is None:
        return prefix.hidden[0, _prefix_lengths(branches, device) - 1]
    ends = torch.tensor([len(branch.tail_ids) - 1 for branch in branches], device=device)
    return tails.hidden[torch.arange(len(branches), device=device), ends]


def tail_keys(tails: Level, branches: Sequence[Branch], index: Tensor) -> OwnKeys:
    device, width = index.device, tails.hidden.shape[1]
    lengths = _prefix_lengths(branches, device)
    steps = torch.arange(width, device=device)
    tail_lengths = torch.tensor([len(branch.tail_ids) for branch in branches], device=device)
    positions = torch.where(
        steps < tail_lengths[:, None], lengths[:, None] + steps, PADDING_POSITION
    )
    layers = [(key[index], value[index]) for key, value in tails.layers]
    return OwnKeys(layers=layers, positions=positions[index])


def first_keys(prefix: Level, lengths: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The prefix's keys as far as any of these rows sees them."""
    longest = int(lengths.max())
    return [(key[:, :, :longest], value[:, :, :longest]) for key, value in prefix.layers]


def _prefix_lengths(branches: Sequence[Branch], device: torch.device) -> Tensor:
    return torch.tensor([branch.prefix_length for branch in branches], device=device)


@contextmanager
def embeddings_as_leaves(policy: Model) -> Iterator[None]:
    """Inside, what the input embedding gives is a leaf, too; its own backward pass comes last.

    That pass writes a matrix as large as the vocabulary, however few tokens there are: run once
    for EMBEDDING_TOKENS in place of once a micro-batch.
    """
    module = policy.causal_lm.get_input_embeddings()
    waiting: list[tuple[Tensor, Tensor]] = []  # ids [B, n] and the leaf [B, n, d]

    def cut(module: torch.nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        if not output.requires_grad:
            return output
        if sum(ids.numel() for ids, _ in waiting) > EMBEDDING_TOKENS:
            send()
        waiting.append((inputs[0], output.detach().requires_grad_()))
        return waiting[-1][1]

    def send() -> None:
        """What has a gradient by now; the prefix's has not until its own backward pass."""
        done = [(ids, leaf.grad) for ids, leaf in waiting if leaf.grad is not None]
        waiting[:] = [pair for pair in waiting if pair[1].grad is None]
        if done:
            gradients = torch.cat([gradient.flatten(0, 1) for _, gradient in done])
            ids = torch.cat([ids.flatten() for ids, _ in done])
            module.forward(ids).backward(gradients)  # not a call: the hook stays out of it

    hook = module.register_forward_hook(cut)
    try:
        yield
        send()
    finally:
        hook.remove()


def accumulate_gradients(
    policy: Model,
    prefix_ids: Sequence[int],
    branches: Sequence[Branch],
    *,
    prefix_loss: PrefixLoss | None = None,
    tail_loss: TailLoss | None = None,
    completion_loss: CompletionLoss | None = None,
    microbatch_tokens: int = 1024,
) -> None:
    """Adds the gradient of the three losses' sum to the parameters' `.grad`.

    Losses are sums or are divided by the step's totals by the caller, so that nothing depends
    on micro-batches. Peak memory is the prefix, tails of `microbatch_tokens` tokens (all of them
    with a tail loss, which reads them together) and one micro-batch, whatever the number of
    completions.
    """
    tail_tokens = microbatch_tokens if tail_loss is None else None
    with embeddings_as_leaves(policy):
        prefix = run_prefix(policy, prefix_ids)
        prefix_losses = [] if prefix_loss is None else [prefix_loss(prefix.hidden[0])]
        prefix_leaf = prefix.leaf()
        for first, part in _portions(branches, tail_tokens):
            has_tails = any(branch.tail_ids for branch in part)
            tails = run_tails(policy, prefix_leaf, part) if has_tails else None
            tails_leaf = tails.leaf() if tails is not None else None
            if completion_loss is not None:
                for rows in micro_batches(part, microbatch_tokens):
                    hidden = run_completions(policy, prefix_leaf, tails_leaf, part, rows)
                    completion_loss([(first + b, c) for b, c in rows], hidden).backward()
            tail_losses = []
            if tail_loss is not None:
                tail_losses = [tail_loss(last_hidden(prefix_leaf, tails, part))]
            if tails is not None and tails_leaf is not None:
                tails.backward(tails_leaf, tail_losses)
            elif tail_losses:
                tail_losses[0].backward()
        prefix.backward(prefix_leaf, prefix_losses)


@torch.no_grad()
def branch_states(
    policy: Model,
    prefix_ids: Sequence[int],
    branches: Sequence[Branch],
    *,
    microbatch_tokens: int = 1024,
) -> list[list[Tensor]]:
    """Without gradient: for each branch and completion the states [T, d] that predict it."""
    prefix = run_prefix(policy, prefix_ids)
    found: list[list[Tensor]] = [[] for _ in branches]
    for first, part in _portions(branches, microbatch_tokens):
        tails = None
        if any(branch.tail_ids for branch in part):
            tails = run_tails(policy, prefix, part)
        for rows in micro_batches(part, microbatch_tokens):
            hidden = run_completions(policy, prefix, tails, part, rows)
            for (b, c), states in zip(rows, hidden, strict=True):
                found[first + b].append(states[: len(part[b].completions[c])])
    return found


def _portions(
    branches: Sequence[Branch], tokens: int | None
) -> Iterator[tuple[int, Sequence[Branch]]]:
    """Branches in order, as many at a time as have tails within `tokens` when padded (at least
    one; None = all), with the number of the first. Those with a tail and those without are apart.
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


def micro_batches(branches: Sequence[Branch], tokens: int) -> list[list[Row]]:
    """All rows in order, as many at a time as stay within `tokens` when padded (at least one)."""
    batches: list[list[Row]] = []
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
