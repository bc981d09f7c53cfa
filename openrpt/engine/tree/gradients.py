"""The gradient of a step on the document tree, level by level.

What an outer level gives to an inner one is a leaf: micro-batches of rollouts accumulate gradients
into the leaves, then tails run backward, then the prefix, once. Peak memory is the window plus one
micro-batch.

The gradient of the input embedding comes last and by a backward pass of its own
(`embeddings_as_leaves`), and leaves stand between the levels, so hooks that count on one backward
pass through every parameter, as those of DistributedDataParallel, do not see a step as a whole. Sum
the `.grad` of the processes after `accumulate_gradients` in their place. Where the weights
themselves are divided (`engine.divided`), layers are gathered pass by pass, which
`Model.backward` sees to.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from openrpt.engine.branches import Branch, CompletionLoss, PrefixLoss, TailLoss
from openrpt.engine.model import Model
from openrpt.engine.tree.levels import (
    backward_completions,
    last_hidden,
    micro_batches,
    portions,
    run_completions,
    run_prefix,
    run_tails,
)

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
        for first, part in portions(branches, tail_tokens):
            has_tails = any(branch.tail_ids for branch in part)
            tails = run_tails(policy, prefix_leaf, part) if has_tails else None
            tails_leaf = tails.leaf() if tails is not None else None
            if completion_loss is not None:
                for rows in micro_batches(part, microbatch_tokens):
                    hidden = run_completions(policy, prefix_leaf, tails_leaf, part, rows)
                    loss = completion_loss([(first + b, c) for b, c in rows], hidden)
                    backward_completions(policy, loss, part, rows)
            tail_losses = []
            if tail_loss is not None:
                tail_losses = [tail_loss(last_hidden(prefix_leaf, tails, part))]
            if tails is not None and tails_leaf is not None:
                tails.backward(policy, tails_leaf, tail_losses)
            elif tail_losses:
                tail_losses[0].backward()
        prefix.backward(policy, prefix_leaf, prefix_losses)
