"""The likelihood that a model gives to texts after a context."""

from collections.abc import Sequence

import torch
from torch import Tensor

from openrpt.engine.branches import Branch
from openrpt.engine.engine import Engine
from openrpt.engine.head import Head, in_cache
from openrpt.errors import UserError
from openrpt.evaluation.end_tasks.answer_book import Answer


@torch.no_grad()
def rate_texts(
    engine: Engine, context_ids: Sequence[int], continuations: Sequence[Sequence[int]]
) -> Answer:
    """Returns how likely the continuations are (none empty), in one pass over the context; of a
    context that does not fit the end is read. Raises UserError for a continuation that the model
    can't hold."""
    model = engine.model
    longest, most = max(len(ids) for ids in continuations), model.max_length
    if longest > most:
        raise UserError(f"a text of {longest} tokens to rate: the model holds {most}")
    ids = tuple(context_ids)[-(most + 1 - longest) :]
    branch = Branch(
        prefix_length=len(ids), tail_ids=(), completions=tuple(map(tuple, continuations))
    )
    (hidden,) = engine.branch_states(ids, [branch])
    targets = [torch.tensor(c, device=model.device) for c in branch.completions]
    logprobs = [_likelihood(model.head, h, t) for h, t in zip(hidden, targets, strict=True)]
    return Answer(logprobs=logprobs, cut=len(context_ids) - len(ids))


def _likelihood(head: Head, hidden: Tensor, targets: Tensor) -> tuple[float, bool]:
    """Returns (log-probability of targets [T], whether each is the most likely token), from hidden
    [T, d]; the head a chunk at a time."""
    total, greedy = 0.0, True
    pairs = zip(hidden.split(head.chunk_rows), targets.split(head.chunk_rows), strict=True)
    for part, ids in pairs:
        for block, own in zip(in_cache(head.logits(part)), in_cache(ids), strict=True):
            logp = block.log_softmax(-1)
            total += float(logp.gather(-1, own[:, None]).sum())
            greedy = greedy and bool((logp.argmax(-1) == own).all())
    return total, greedy
