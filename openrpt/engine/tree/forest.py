"""Short documents side by side in training: the levels of several trees, each in one pass.

A document of a few dozen tokens with one position fills no matrix product, and a pass has its price
whatever it holds. Here the prefixes of many run as padded rows, then their tails, then their
completions, which hold their document's keys for themselves in place of sharing them. It computes
what `gradients.accumulate_gradients` does to rounding.

Legend: D documents, P positions of them all, R rollouts of a micro-batch, d hidden size.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from openrpt.engine.branches import Branch, CompletionIndex, Passage, pad
from openrpt.engine.model import Model
from openrpt.engine.packing import packs
from openrpt.engine.tree.attention import OwnKeys, TreePass
from openrpt.engine.tree.gradients import embeddings_as_leaves
from openrpt.engine.tree.level import Level, backward_levels, run_level
from openrpt.engine.tree.levels import PADDING_POSITION, are_run, backward_completions
from openrpt.engine.tree.portions import micro_batches


def is_short(passage: Passage) -> bool:
    """Returns whether a completion is as long as what it could share with others: as
    `Request.is_short`, of what was written."""
    if len(passage.branches) != 1 or not passage.branches[0].tail_ids:
        return False
    (branch,) = passage.branches
    longest = max(map(len, branch.completions), default=0)
    return len(passage.prefix_ids) <= len(branch.tail_ids) + longest


def groups(passages: Sequence[Passage], tokens: int) -> Iterator[list[Passage]]:
    """Yields the passages that run together, in their order: neighbours that are short, and
    neighbours that are not, as many as have prefixes and short ones' tails within `tokens` (at
    least one)."""
    for short, neighbours in groupby(passages, key=is_short):
        alike = list(neighbours)
        lengths = [len(one.prefix_ids) for one in alike]
        if short:
            lengths = [
                len(one.branches[0].tail_ids) + length
                for one, length in zip(alike, lengths, strict=True)
            ]
        for indexes in packs(lengths, tokens):
            yield [alike[index] for index in indexes]


def accumulate_together(policy: Model, passages: Sequence[Passage], microbatch_tokens: int) -> None:
    """Adds the gradient of all passages' losses, each of one branch, to the parameters' `.grad`."""
    branches = [one.branches[0] for one in passages]  # D = P: one position each
    with embeddings_as_leaves(policy), policy.head_rows_together():
        prefixes = _run_prefixes(policy, passages)
        prefix_losses = [
            one.prefix_loss(prefixes.hidden[row, : len(one.prefix_ids)])
            for row, one in enumerate(passages)
            if one.prefix_loss is not None
        ]
        prefix_leaf = prefixes.leaf()
        tails = _run_tails(policy, prefix_leaf, branches)
        tails_leaf = tails.leaf()
        for rows in micro_batches(branches, microbatch_tokens):
            hidden = _run_completions(policy, prefix_leaf, tails_leaf, branches, rows)
            losses = list(_losses(passages, rows, hidden))
            if losses:
                backward_completions(policy, torch.stack(losses).sum(), branches, rows)
        backward_levels(policy, [tails], [tails_leaf])
        backward_levels(policy, [prefixes], [prefix_leaf], prefix_losses)


def _losses(
    passages: Sequence[Passage], rows: list[CompletionIndex], hidden: Tensor
) -> Iterator[Tensor]:
    """Gives each passage's loss on its rows among a micro-batch's: hidden [R, T, d]."""
    for number, one in enumerate(passages):
        own = [place for place, (p, _) in enumerate(rows) if p == number]
        if own and one.completion_loss is not None:
            width = max(len(one.branches[0].completions[rows[place][1]]) for place in own)
            yield one.completion_loss([(0, rows[place][1]) for place in own], hidden[own, :width])


def _run_prefixes(policy: Model, passages: Sequence[Passage]) -> Level:
    """Runs level 0: the prefixes [D, n], right-padded; causal, so that no token sees the
    padding."""
    ids = pad([one.prefix_ids for one in passages], policy.device)  # [D, n]
    positions = torch.arange(ids.shape[1], device=policy.device).expand(len(ids), -1)  # [D, n]
    return run_level(policy, ids, positions, TreePass(query_positions=positions))


def _run_tails(policy: Model, prefixes: Level, branches: Sequence[Branch]) -> Level:
    """Runs level 1: the tails [P, n], right-padded, each behind its own document's prefix."""
    device = policy.device
    ids = pad([branch.tail_ids for branch in branches], device)  # [P, n]
    lengths = torch.tensor([branch.prefix_length for branch in branches], device=device)  # [P]
    positions = lengths[:, None] + torch.arange(ids.shape[1], device=device)  # [P, n]
    every = torch.arange(len(branches), device=device)
    own = OwnKeys(layers=prefixes.layers, positions=_prefix_positions(prefixes, lengths, every))
    return run_level(policy, ids, positions, TreePass(query_positions=positions, own=own))


def _run_completions(
    policy: Model,
    prefixes: Level,
    tails: Level,
    branches: Sequence[Branch],
    rows: list[CompletionIndex],
) -> Tensor:
    """Runs level 2; returns the hidden states [R, T, d], as `levels.run_completions` gives them."""
    device = policy.device
    index = torch.tensor([p for p, _ in rows], device=device)  # [R] into P
    tail_lengths = torch.tensor([len(branch.tail_ids) for branch in branches], device=device)  # [P]
    first = tails.hidden[index, tail_lengths[index] - 1][:, None]  # [R, 1, d]
    if not are_run(branches, rows):
        return first
    ids = pad([branches[p].completions[c][:-1] for p, c in rows], device)  # [R, T − 1]
    lengths = torch.tensor([branch.prefix_length for branch in branches], device=device)  # [P]
    starts = (lengths + tail_lengths)[index]  # [R]
    positions = starts[:, None] + torch.arange(ids.shape[1], device=device)  # [R, T − 1]
    steps = torch.arange(tails.hidden.shape[1], device=device)
    of_tails = torch.where(
        steps < tail_lengths[:, None], lengths[:, None] + steps, PADDING_POSITION
    )  # [P, n]
    own = OwnKeys(  # the row's prefix, then its tail: [R, prefix + tail]
        layers=[
            (torch.cat([key, own_key], 2)[index], torch.cat([value, own_value], 2)[index])
            for (key, value), (own_key, own_value) in zip(
                prefixes.layers, tails.layers, strict=True
            )
        ],
        positions=torch.cat([_prefix_positions(prefixes, lengths, index), of_tails[index]], 1),
    )
    level = run_level(policy, ids, positions, TreePass(query_positions=positions, own=own))
    return torch.cat([first, level.hidden], dim=1)


def _prefix_positions(prefixes: Level, lengths: Tensor, index: Tensor) -> Tensor:
    """Returns [rows, n]: where the keys of each row's prefix stand; none of the padding is seen."""
    steps = torch.arange(prefixes.hidden.shape[1], device=index.device)
    return torch.where(steps < lengths[index][:, None], steps, PADDING_POSITION)
