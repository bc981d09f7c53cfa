"""The gradient of a step on the document tree, level by level.

What an outer level gives to an inner one is a leaf: micro-batches of rollouts accumulate gradients
into the leaves, then tails run backward, then the prefixes, once. Documents share passes, not keys:
a pass has its price whatever it holds. Peak memory is the prefixes plus one micro-batch.

The gradient of the input embedding comes last and by a backward pass of its own
(`embeddings_as_leaves`), the head's in few products (`head_gradient.py`), and leaves stand between
the levels, so hooks that count on one backward pass through every parameter, as those of
DistributedDataParallel, do not see a step as a whole. Sum the `.grad` of the processes after
`accumulate_gradients` in their place. Where the weights themselves are divided (`engine.divided`),
layers are gathered pass by pass, which `Model.backward` sees to.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

import torch
from torch import Tensor

from openrpt.engine.branches import CompletionIndex, Passage
from openrpt.engine.model import Model
from openrpt.engine.tree.level import backward_levels
from openrpt.engine.tree.levels import (
    Trunks,
    backward_completions,
    run_completions,
    run_prefixes,
    run_tails,
)
from openrpt.engine.tree.portions import micro_batches, portions

_EMBEDDING_TOKENS = 8192
"""Most tokens whose embeddings' gradients wait for one backward pass (19 MB at d = 576)."""


@contextmanager
def embeddings_as_leaves(policy: Model) -> Iterator[None]:
    """Makes what the input embedding gives a leaf, too; its own backward pass comes last.

    That pass writes a matrix as large as the vocabulary, however few tokens there are: run once for
    _EMBEDDING_TOKENS in place of once a micro-batch.
    """
    module = policy.causal_lm.get_input_embeddings()
    waiting: list[tuple[Tensor, Tensor]] = []  # ids [B, n] and the leaf [B, n, d]

    def cut(module: torch.nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        if not output.requires_grad:
            return output
        if sum(ids.numel() for ids, _ in waiting) > _EMBEDDING_TOKENS:
            send()
        waiting.append((inputs[0], output.detach().requires_grad_()))
        return waiting[-1][1]

    def send() -> None:
        """Sends what has a gradient by now; the prefix's has none until its own backward pass."""
        done = [(ids, leaf.grad) for ids, leaf in waiting if leaf.grad is not None]
        waiting[:] = [pair for pair in waiting if pair[1].grad is None]
        if done:
            gradients = torch.cat([gradient.flatten(0, 1) for _, gradient in done])  # [tokens, d]
            ids = torch.cat([ids.flatten() for ids, _ in done])
            module.forward(ids).backward(gradients)  # not a call: the hook stays out of it

    hook = module.register_forward_hook(cut)
    try:
        yield
        send()
    finally:
        hook.remove()


def accumulate_gradients(
    policy: Model, passages: Sequence[Passage], *, microbatch_tokens: int = 1024
) -> None:
    """Adds the gradient of all losses of some documents, whose levels run together, to the
    parameters' `.grad`.

    Losses are sums or are divided by the step's totals by the caller, so that nothing depends
    on micro-batches. Peak memory is the prefixes, tails of `microbatch_tokens` tokens and one
    micro-batch, whatever the number of completions.
    """
    with embeddings_as_leaves(policy), policy.head_rows_together():
        prefixes = run_prefixes(policy, [one.prefix_ids for one in passages])
        prefix_losses = [
            one.prefix_loss(prefix.hidden[0])
            for one, prefix in zip(passages, prefixes, strict=True)
            if one.prefix_loss is not None
        ]
        leaves = [prefix.leaf() for prefix in prefixes]
        own = [one.branches for one in passages]
        trunks = Trunks.of(list(zip(leaves, own, strict=True)))
        for first, part in portions(trunks.branches, microbatch_tokens):
            _accumulate_branches(policy, passages, trunks, first, len(part), microbatch_tokens)
        backward_levels(policy, prefixes, leaves, prefix_losses)


def _accumulate_branches(
    policy: Model,
    passages: Sequence[Passage],
    trunks: Trunks,
    first: int,
    count: int,
    microbatch_tokens: int,
) -> None:
    """Adds the gradient of the completions of `count` branches from the `first` on."""
    part = trunks.part(first, count)
    tails = run_tails(policy, part) if part.has_tails else None
    tails_leaf = None if tails is None else tails.leaf()
    for rows in micro_batches(part.branches, microbatch_tokens):
        hidden = run_completions(policy, part, tails_leaf, rows)
        losses = list(_losses(passages, trunks, [(first + b, c) for b, c in rows], hidden))
        if losses:
            loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
            backward_completions(policy, loss, part.branches, rows)
    if tails is not None and tails_leaf is not None:
        backward_levels(policy, [tails], [tails_leaf])


def _losses(
    passages: Sequence[Passage], trunks: Trunks, rows: list[CompletionIndex], hidden: Tensor
) -> Iterator[Tensor]:
    """Yields each passage's loss on its rows among a micro-batch's: hidden [R, T, d]. Branches are
    numbered through all passages in `rows`, and from 0 for each passage's loss."""
    start = 0
    for number, group in groupby(rows, key=lambda row: trunks.document_of[row[0]]):
        own, loss = list(group), passages[number].completion_loss
        if loss is not None:
            before = trunks.document_of.index(number)
            width = max(len(trunks.branches[b].completions[c]) for b, c in own)
            states = hidden[start : start + len(own), :width]
            yield loss([(b - before, c) for b, c in own], states)
        start += len(own)
