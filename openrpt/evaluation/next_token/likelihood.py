"""How likely the true next token is, after the text alone and after a thought."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from openrpt.data.prompts import Layout
from openrpt.data.work import Work
from openrpt.engine.branches import Branch
from openrpt.engine.logprobs import selected_logprobs
from openrpt.evaluation.next_token.subject import Subject, chunks
from openrpt.evaluation.next_token.thoughts import Thoughts

_Row = tuple[int, tuple[int, ...]]
"""A row: (which position, the ids between its prefix and its true token)."""


def likelihoods(
    subject: Subject, work: Work, thoughts: Mapping[str, Thoughts]
) -> dict[str, np.ndarray]:
    """Nats of the true next token at each of the work's positions: each [P].

    `ntp`: after the text alone. Each kind of thought in `thoughts`: behind the thought, its forced
    close and the box's opening, where the true token is teacher-forced; mean over rollouts. The
    whole distribution counts, special tokens and all.
    """
    layout, count = subject.layout, len(work.positions)
    plain: list[_Row] = [(p, ()) for p in range(count)]
    thought: list[_Row] = [
        (p, layout.tail_ids + ids + layout.close_ids)
        for kind in thoughts.values()
        for p, own in enumerate(kind)
        for ids in own
    ]
    if layout.head_ids == layout.plain_head_ids:
        both = _true_token_nll(subject, work, layout, plain + thought)
        without, after = both[:count], both[count:]
    else:
        without = _true_token_nll(subject, work, subject.layout.plain, plain)
        after = _true_token_nll(subject, work, layout, thought)
    if not thoughts:
        return {"ntp": without}
    means = after.reshape(len(thoughts), count, -1).mean(-1)
    return {"ntp": without} | dict(zip(thoughts, means, strict=True))


@torch.no_grad()
def _true_token_nll(
    subject: Subject, work: Work, layout: Layout, rows: Sequence[_Row]
) -> np.ndarray:
    """Returns [rows]: nats of a position's true token after head ⊕ prefix ⊕ the row's ids."""
    policy = subject.policy
    prefix_ids, lengths = work.prefix_ids(layout, whole=False), work.prefix_lengths(layout)
    true_ids = [int(work.document.token_ids[position.index]) for position in work.positions]
    found: list[float] = []
    for part in chunks([len(ids) + 1 for _, ids in rows]):
        branches = [
            Branch(prefix_length=lengths[p], tail_ids=(), completions=((*ids, true_ids[p]),))
            for p, ids in rows[part]
        ]
        states = subject.engine.branch_states(prefix_ids, branches)
        last = torch.stack([own[0][-1] for own in states])  # [n, d]: before the true token
        targets = torch.tensor([true_ids[p] for p, _ in rows[part]], device=policy.device)
        logprobs, _ = selected_logprobs(last, policy.head, targets)
        found += (-logprobs).tolist()
    return np.array(found)
