"""The document tree: a document is computed once for all its positions and rollouts.

Level 0, the shared prefix: head ⊕ the document's window, run once.
Level 1, a position: its tail (with the forced tokens that its completions share), run once a
position, seeing the prefix up to the position.
Level 2, a rollout: the completion's own tokens, seeing all of the above.

A step costs T + P·tail + P·G·completion tokens in place of P·G·(T + tail + completion). It is
exact: one softmax over shared and own keys. `gradients.py` has the way back.

Legend: L prefix tokens, P positions, R rollouts of a micro-batch, d hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openrpt.engine.branches import Branch, CompletionIndex, pad
from openrpt.engine.model import Model
from openrpt.engine.placing import put
from openrpt.engine.tree.attention import DocumentKeys, OwnKeys, TreePass
from openrpt.engine.tree.level import Level, level_inputs, run_level
from openrpt.engine.tree.portions import micro_batches, portions

PADDING_POSITION = 1 << 40
"""The position of a padded key: beyond every query, so never attended to."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trunks:
    """The prefixes of one or several documents, and the branches that hang off them."""

    prefixes: Sequence[Level]
    branches: Sequence[Branch]
    """The branches of all documents, counted together: P."""
    document_of: Sequence[int]
    """The number of each branch's prefix."""

    @classmethod
    def of(cls, documents: Sequence[tuple[Level, Sequence[Branch]]]) -> "Trunks":
        """Returns each document's prefix with its branches."""
        return cls(
            prefixes=[prefix for prefix, _ in documents],
            branches=[branch for _, own in documents for branch in own],
            document_of=[number for number, (_, own) in enumerate(documents) for _ in own],
        )

    @property
    def has_tails(self) -> bool:
        """Whether there are tails to be run."""
        return any(branch.tail_ids for branch in self.branches)

    def part(self, first: int, count: int) -> "Trunks":
        """Returns the prefixes with `count` of the branches alone."""
        return Trunks(
            prefixes=self.prefixes,
            branches=self.branches[first : first + count],
            document_of=self.document_of[first : first + count],
        )

    @property
    def device(self) -> torch.device:
        """The device of the prefixes."""
        return self.prefixes[0].hidden.device

    @property
    def lengths(self) -> Tensor:
        """Tokens of the prefix that each branch sees: [P] on the host."""
        return torch.tensor([branch.prefix_length for branch in self.branches])

    @property
    def tail_lengths(self) -> Tensor:
        """Tokens of each branch's tail: [P] on the host."""
        return torch.tensor([len(branch.tail_ids) for branch in self.branches])

    def keys(self, index: Tensor) -> list[DocumentKeys]:
        """Returns the prefixes' keys for rows of the branches index [R], which lies on the host."""
        return document_keys(
            self.prefixes, self.lengths[index], torch.tensor(self.document_of)[index]
        )


def document_keys(
    prefixes: Sequence[Level], lengths: Tensor, document_of: Tensor
) -> list[DocumentKeys]:
    """Returns the prefixes that rows share, as far as these see them: row r the first lengths[r]
    tokens of prefix document_of[r], [R] each on the host."""
    found: list[DocumentKeys] = []
    for number in document_of.unique().tolist() if prefixes else ():
        prefix, rows, own = prefixes[number], None, lengths
        device = prefix.hidden.device
        if len(prefixes) > 1:
            of_document = (document_of == number).nonzero()[:, 0]
            rows, own = put(of_document, device), lengths[of_document]
        layers = _first_keys(prefix, int(own.max()))
        found.append(DocumentKeys(rows=rows, layers=layers, lengths=put(own, device)))
    return found


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
    found = policy.layer_states(layers, **level_inputs(ids, positions, tree_pass))
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


def run_prefixes(policy: Model, sequences: Sequence[Sequence[int]]) -> list[Level]:
    """Runs level 0 of several documents in one pass, each as `run_prefix` does."""
    if len(sequences) == 1:
        return [run_prefix(policy, sequences[0])]
    lengths = tuple(map(len, sequences))
    ids = torch.tensor([[token for ids in sequences for token in ids]], device=policy.device)
    counted = [torch.arange(length, device=policy.device) for length in lengths]
    positions = torch.cat(counted)[None]  # [1, N]
    tree_pass = TreePass(query_positions=positions, lengths=lengths)
    return run_level(policy, ids, positions, tree_pass).split(lengths)


def run_tails(policy: Model, trunks: Trunks) -> Level:
    """Runs level 1: the tails [P, n], right-padded, each seeing its own share of its prefix."""
    ids = pad([branch.tail_ids for branch in trunks.branches], policy.device)  # [P, n]
    positions = put(trunks.lengths[:, None] + torch.arange(ids.shape[1]), policy.device)
    every = torch.arange(len(trunks.branches))
    tree_pass = TreePass(query_positions=positions, documents=trunks.keys(every))
    return run_level(policy, ids, positions, tree_pass)


def run_completions(
    policy: Model, trunks: Trunks, tails: Level | None, rows: list[CompletionIndex]
) -> Tensor:
    """Runs level 2: returns hidden states [R, T, d]; the one at [r, t] predicts token t of the
    completion.

    The state that predicts the first token is the tail's last (the prefix's where the tail is
    empty), so a completion's last token is never run.
    """
    branches = trunks.branches
    index = torch.tensor([b for b, _ in rows])  # [R] on the host
    first = last_hidden(trunks, tails)[put(index, policy.device)][:, None]  # [R, 1, d]
    inputs = [branches[b].completions[c][:-1] for b, c in rows]
    if not are_run(branches, rows):
        return first
    ids = pad(inputs, policy.device)  # [R, T - 1]
    starts = (trunks.lengths + trunks.tail_lengths)[index]  # [R]
    positions = put(starts[:, None] + torch.arange(ids.shape[1]), policy.device)
    tree_pass = TreePass(
        query_positions=positions,
        own=None if tails is None else tail_keys(tails, branches, put(index, policy.device)),
        documents=trunks.keys(index),
    )
    level = run_level(policy, ids, positions, tree_pass)
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


def last_hidden(trunks: Trunks, tails: Level | None) -> Tensor:
    """Returns the states [P, d] from which each branch's completions start."""
    if tails is not None:
        every = torch.arange(len(trunks.branches), device=trunks.device)
        return tails.hidden[every, put(trunks.tail_lengths - 1, trunks.device)]
    sizes = torch.tensor([prefix.hidden.shape[1] for prefix in trunks.prefixes])
    starts = (sizes.cumsum(0) - sizes)[torch.tensor(trunks.document_of)]  # [P] in all prefixes
    states = torch.cat([prefix.hidden[0] for prefix in trunks.prefixes])  # [N, d]
    return states[put(starts + trunks.lengths - 1, trunks.device)]


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


def _first_keys(prefix: Level, length: int) -> list[tuple[Tensor, Tensor]]:
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
    trunks = Trunks.of([(run_prefix(policy, prefix_ids), branches)])
    found: dict[CompletionIndex, Tensor] = {}
    for first, part in portions(branches, microbatch_tokens):
        own = trunks.part(first, len(part))
        tails = run_tails(policy, own) if own.has_tails else None
        for rows in micro_batches(part, microbatch_tokens):
            hidden = run_completions(policy, own, tails, rows)
            for (b, c), states in zip(rows, hidden, strict=True):
                found[first + b, c] = states[: len(part[b].completions[c])]
    return [
        [found[b, c] for c in range(len(branch.completions))] for b, branch in enumerate(branches)
    ]
