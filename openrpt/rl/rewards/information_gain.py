"""The worth of a thought: how much likelier the text's true next tokens are after it.

The reward of RLP (arXiv 2510.01265): log p_θ(x_t | x_<t, thought) − log p̄(x_t | x_<t),
in nats, where p̄ is a moving average of the policy that reads the plain prefix. Both are read
without gradient, teacher forced, on the document tree.
"""

from collections.abc import Sequence

import torch

from openrpt.data.prompts import Layout
from openrpt.data.tokens import literal_bytes
from openrpt.data.work import Work
from openrpt.engine.branches import Branch
from openrpt.engine.engine import Engine
from openrpt.engine.logprobs import selected_logprobs
from openrpt.engine.model import Model
from openrpt.types import Group, Rollout

_TokenIds = tuple[int, ...]


def true_tokens(work: Work, count: int) -> list[_TokenIds]:
    """Returns the next `count` tokens of the text at each position, fewer at the document's end."""
    ids = work.document.token_ids
    return [tuple(ids[p.index : p.index + count].tolist()) for p in work.positions]


def thought_logprobs(
    engine: Engine,
    layout: Layout,
    work: Work,
    groups: Sequence[Group],
    targets: Sequence[_TokenIds],
) -> list[list[float]]:
    """Gives Σ log p(target | prompt, thought, close) for each rollout of each group, in nats.

    The thought is closed as the sampler forces it to (the box is open then), also where the policy
    wrote another close or none: what is judged is the thought. Equal thoughts of a group are run
    once, so that their values are equal to the bit.
    """
    branches, places = [], []
    lengths = work.prefix_lengths(layout)
    for group, length, target in zip(groups, lengths, targets, strict=True):
        thoughts = [thought_ids(engine.model, layout, rollout) for rollout in group.rollouts]
        distinct = list(dict.fromkeys(thoughts))
        branches.append(
            Branch(
                prefix_length=length,
                tail_ids=layout.tail_ids,
                completions=tuple(thought + layout.close_ids + target for thought in distinct),
            )
        )
        places.append([distinct.index(thought) for thought in thoughts])
    prefix_ids = work.prefix_ids(layout, whole=False)
    found = _target_logprobs(engine, prefix_ids, branches, targets)
    return [[own[i] for i in place] for own, place in zip(found, places, strict=True)]


def plain_logprobs(
    engine: Engine, layout: Layout, work: Work, targets: Sequence[_TokenIds]
) -> list[float]:
    """Gives Σ log p(target | prefix) at each position, in nats: no template, no thought."""
    head, first = layout.plain_head_ids, work.window.start
    last = work.positions[-1].index
    prefix_ids = head + tuple(work.document.token_ids[first:last].tolist())
    branches = [
        Branch(prefix_length=len(head) + position.index - first, tail_ids=(), completions=(target,))
        for position, target in zip(work.positions, targets, strict=True)
    ]
    return [own[0] for own in _target_logprobs(engine, prefix_ids, branches, targets)]


def thought_ids(policy: Model, layout: Layout, rollout: Rollout) -> _TokenIds:
    """Returns the completion's tokens that make the thought, its close and a stop token left
    out."""
    ids, size, end = rollout.completion.token_ids, len(rollout.thought), 0
    for count, token in enumerate(ids):
        end += len(literal_bytes(policy.table, [token], layout.literal))
        if end >= size:  # a token that the thought shares with its close belongs to the close
            return ids[: count + (end == size)] if size else ()
    return ids


def _target_logprobs(
    engine: Engine,
    prefix_ids: _TokenIds,
    branches: Sequence[Branch],
    targets: Sequence[_TokenIds],
) -> list[list[float]]:
    """Gives Σ log p of the target with which each completion ends, at temperature 1."""
    found = engine.branch_states(prefix_ids, branches)
    pairs = [
        (states[-len(target) :], target)
        for own, target in zip(found, targets, strict=True)
        for states in own
    ]
    hidden = torch.cat([states for states, _ in pairs])
    ids = torch.tensor([i for _, target in pairs for i in target], device=hidden.device)
    with torch.no_grad():
        logprobs = selected_logprobs(hidden, engine.model.head, ids)[0].double()
    sums = iter(part.sum().item() for part in logprobs.split([len(t) for _, t in pairs]))
    return [[next(sums) for _ in own] for own in found]
