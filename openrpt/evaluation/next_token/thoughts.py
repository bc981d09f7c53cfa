"""A model under evaluation: how it is asked at the positions of a work, with its own thought or
with a changed one, and how likely the truth is after it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch

from openrpt.config.sections import Config
from openrpt.costs.flops import Count, Shape
from openrpt.data.prompts import Layout
from openrpt.data.work import Work, document_bytes
from openrpt.engine.branches import Branch
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine
from openrpt.engine.generation import Generated
from openrpt.engine.head import selected_logprobs
from openrpt.engine.model import Model
from openrpt.errors import UserError
from openrpt.rl.batch import opening_length
from openrpt.rl.grading import CONTINUATION_TOKENS, grade
from openrpt.rl.rewards.matching import prefix_match
from openrpt.seeding import keys_of
from openrpt.types import Completion, Group, Position, Rollout

_Thought = tuple[int, ...]
"""Token ids of a thought, without what closes it."""

_CHUNK_TOKENS = 8192
"""The number of forced tokens run at once, which changes memory, never results."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A policy whose thoughts are changed, with its configuration and its prompt's layout."""

    engine: Engine
    config: Config
    layout: Layout

    @property
    def policy(self) -> Model:
        """The model that thinks."""
        return self.engine.model

    @property
    def samples(self) -> int:
        """Rollouts of a position; 1 where it is greedy."""
        return max(self.config.evaluate.samples, 1)

    @property
    def sampling(self) -> Sampling:
        """The sampling of the evaluation: greedy without samples."""
        evaluate = self.config.evaluate
        temperature = evaluate.temperature if evaluate.samples else 0.0
        return Sampling.of(self.config.prompt, temperature=temperature)

    def keys(self, position: Position, count: int, purpose: str = "evaluate") -> tuple[int, ...]:
        """Returns the keys of the random draws at a position."""
        return keys_of(count, self.config.seed, purpose, position.document_id, position.index)

    def predict_each(self, works: Sequence[Work], samples: int) -> Iterator[list[Generated]]:
        """Generates, for each work, `samples` rollouts at each position, as the policy thinks
        them; standard prediction goes on to its span's end, where no instructions stand before the
        text."""
        whole = not self.layout.has_instructions
        requests = [
            work.request(
                self.layout,
                [self.keys(p, samples) for p in work.positions],
                spans=work.true_spans() if whole else (),
            )
            for work in works
        ]
        return self.engine.generate_each(requests, self.layout, self.sampling)

    def with_plain_standard(self, work: Work, generated: Sequence[Generated]) -> list[Generated]:
        """Returns the outcomes with standard prediction, to its span's end, as the text alone gives
        it: behind instructions that takes a pass of its own."""
        if not self.layout.has_instructions:
            return list(generated)
        plain = self.layout.plain
        request = work.request(plain, spans=work.true_spans())
        (found,) = self.engine.generate_each([request], plain, Sampling.plain(1))
        return [
            replace(
                outcome,
                standard_id=own.standard_id,
                standard_ids=own.standard_ids,
                standard_top=own.standard_top,
            )
            for outcome, own in zip(generated, found, strict=True)
        ]

    def draw_tokens(self, work: Work, draws: Sequence[int]) -> list[list[int]]:
        """Returns tokens sampled by standard prediction, `draws` [P] of them at the work's
        positions."""
        sampling = Sampling.plain(1, temperature=self.config.evaluate.temperature)
        pairs = zip(work.positions, draws, strict=True)
        keys = [self.keys(position, count, "ntp voting") for position, count in pairs]
        request = work.request(self.layout.plain, keys)
        (generated,) = self.engine.generate_each([request], self.layout.plain, sampling)
        return [[c.token_ids[0] for c in outcome.completions] for outcome in generated]

    def predict_after(
        self, work: Work, rows: Sequence[int], thoughts: Sequence[_Thought]
    ) -> list[Generated]:
        """Generates one rollout a row, its thought given: at position rows[i] after thoughts[i].

        A row draws as the rollout of that number at its position, so that two kinds of thought
        meet the same random numbers. Long thoughts run _CHUNK_TOKENS at a time.
        """
        sampling = replace(self.sampling, think_budget=0, candidates=0)
        drawn = [0] * len(work.positions)
        keys = []
        for row in rows:
            keys.append((self.keys(work.positions[row], self.samples)[drawn[row] % self.samples],))
            drawn[row] += 1
        found: list[Generated] = []
        for part in _chunks([len(thought) for thought in thoughts]):
            request = work.request(
                self.layout, keys[part], rows=rows[part], openings=thoughts[part]
            )
            (generated,) = self.engine.generate_each([request], self.layout, sampling)
            found += generated
        return found


def _chunks(lengths: Sequence[int], tokens: int = _CHUNK_TOKENS) -> list[slice]:
    """Returns the rows of these lengths in order, as many at a time as stay within `tokens` when
    padded.

    >>> _chunks([3, 3, 4, 9], tokens=8)
    [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    parts: list[slice] = []
    longest = 0
    for row, length in enumerate(lengths):
        longest = max(longest, length, 1)
        if parts and longest * (row - parts[-1].start + 1) <= tokens:
            parts[-1] = slice(parts[-1].start, row + 1)
        else:
            parts.append(slice(row, row + 1))
            longest = max(length, 1)
    return parts


Thoughts = list[tuple[_Thought, ...]]
"""A position, a rollout: its thought."""


def thought_of(completion: Completion, layout: Layout) -> _Thought:
    """Returns the ids before the last end of a thought; without one, all but the token that
    stopped it.

    Where the policy broke the thought off with a stop token, that token is no part of it.
    """
    ids, end = completion.token_ids, layout.thought_end_ids
    for start in range(len(ids) - len(end), -1, -1):
        if ids[start : start + len(end)] == end:
            return ids[:start]
    return ids[:-1] if completion.finish_reason == "stop" else ids


def changed_thoughts(control: str, thoughts: Thoughts, documents: Sequence[str]) -> Thoughts:
    """Returns the thoughts of all positions [n] as the control makes them; their documents [n] in
    order.

    emptied: nothing; cut: the first half of the tokens, rounded up; swapped: another position's,
    of another document unless one holds more than half of all positions. Raises UserError where
    there is no other position.
    """
    if control == "swapped":
        return swapped(thoughts, documents)
    if control == "cut":
        return [tuple(ids[: (len(ids) + 1) // 2] for ids in own) for own in thoughts]
    return [tuple(() for _ in own) for own in thoughts]


_Each = TypeVar("_Each")


def swapped(each: list[_Each], documents: Sequence[str]) -> list[_Each]:
    """Returns what belongs to each position [n], given to another: rotated by the size of the
    greatest document, whose positions stand together."""
    if len(each) < 2:
        raise UserError(
            "evaluate.controls = swapped needs two positions at least; raise evaluate.positions"
        )
    greatest = max(Counter(documents).values())
    shift = min(greatest, len(each) // 2)
    return each[shift:] + each[:shift]


def rollouts_after(
    subject: Subject, work: Work, thoughts: Mapping[str, Thoughts]
) -> dict[str, list[list[Rollout]]]:
    """Returns, by control, the rollouts [P][samples] at each of the work's positions, graded."""
    rows: list[int] = []
    given: list[_Thought] = []
    for kind in thoughts.values():
        for row, own in enumerate(kind):
            rows += [row] * len(own)
            given += own
    tokens = document_bytes(subject.policy.tokenizer, work.document)
    graded: list[Rollout] = []
    for row, outcome in zip(rows, subject.predict_after(work, rows, given), strict=True):
        index = work.positions[row].index
        continuation = tokens[index : index + CONTINUATION_TOKENS]
        (completion,) = outcome.completions
        graded.append(grade(completion, continuation, subject.layout, subject.policy.table))
    each = iter(graded)
    return {name: [[next(each) for _ in own] for own in kind] for name, kind in thoughts.items()}


def accuracies(rollouts: Mapping[str, list[list[Rollout]]]) -> dict[str, np.ndarray]:
    """Returns, by control, the accuracy [P] at each position (mean over its rollouts)."""
    return {
        name: np.array([np.mean([one.exact for one in own]) for own in kind])
        for name, kind in rollouts.items()
    }


def carried(
    rollouts: Sequence[Sequence[Rollout]], donors: Sequence[Sequence[bytes | None]]
) -> np.ndarray:
    """Returns [P] the share of the predictions after swapped thoughts that are those which the
    thoughts' own position made; NaN where that made none. `donors`: these predictions,
    [P][samples]."""
    shares = []
    for own, before in zip(rollouts, donors, strict=True):
        pairs = zip(own, before, strict=True)
        same = [one.prediction == said for one, said in pairs if said is not None]
        shares.append(np.mean(same) if same else np.nan)
    return np.array(shares)


def voting_draws(shape: Shape, group: Group, layout: Layout) -> int:
    """Returns how many tokens standard prediction may draw for the FLOPs of a position's rollouts.

    Both share the prefix and don't pay for it. The rollouts pay for the tail, every completion
    token and every logit read; a draw pays for one token's pass at the position and its logits.
    At least 1.
    """
    length = len(group.prompt.head_ids) + len(group.prompt.prefix_ids)
    opening = opening_length(group)
    tail = len(layout.tail_ids) + opening
    rollouts, draw = Count(), Count()
    rollouts.run(tail, length)
    for rollout in group.rollouts:
        completion = rollout.completion
        own = len(completion.token_ids) - opening - 1
        rollouts.run(own, length + tail, completion.num_trained_tokens)
    draw.run(1, length - 1, 1)
    cost = [shape.forward(count.tokens, count.pairs, count.logits) for count in (rollouts, draw)]
    return max(1, round(cost[0] / cost[1]))


def vote(subject: Subject, work: Work, draws: Sequence[int]) -> np.ndarray:
    """Returns [P] whether the commonest of `draws` [P] sampled tokens is right."""
    tokens = document_bytes(subject.policy.tokenizer, work.document)
    drawn = subject.draw_tokens(work, draws)
    return np.array(
        [
            prefix_match(commonest(ids, subject.policy.table.bytes), tokens[p.index : p.index + 1])
            for p, ids in zip(work.positions, drawn, strict=True)
        ]
    )


def commonest(ids: Sequence[int], table: Sequence[bytes]) -> bytes | None:
    """Returns the commonest token, the earliest of equals; special tokens and unused ids have no
    vote.

    >>> commonest([0, 2, 1, 0, 0, 2], [b"", b"a", b"b"])
    b'b'
    """
    known = (table[i] if i < len(table) else b"" for i in ids)
    votes = Counter(piece for piece in known if piece)
    return max(votes, key=lambda piece: votes[piece]) if votes else None


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
    for part in _chunks([len(ids) + 1 for _, ids in rows]):
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
