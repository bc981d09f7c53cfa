"""From hidden states to tokens: the think budget, and the course of a completion."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from openrpt.config.sections import PromptConfig
from openrpt.data.prompts import Budget, Layout
from openrpt.data.tokens import literal_bytes
from openrpt.engine.model import Model
from openrpt.engine.sampling import Sampled, sample, uniforms
from openrpt.types import Completion


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """temperature 0 = greedy; budgets in tokens."""

    temperature: float
    think_budget: int
    prediction_budget: int
    candidates: int
    generation_rollouts: int = 256
    until: tuple[bytes, ...] = ()
    """What a completion also stops behind, once it has said it after its thought."""

    @classmethod
    def of(
        cls, prompt: PromptConfig, *, temperature: float, generation_rollouts: int = 256
    ) -> "Sampling":
        """With the prompt's budgets and candidates."""
        return cls(
            temperature=temperature,
            think_budget=prompt.think_budget,
            prediction_budget=prompt.prediction_budget,
            candidates=prompt.candidates,
            generation_rollouts=generation_rollouts,
        )

    @classmethod
    def plain(cls, tokens: int, *, temperature: float = 0.0) -> "Sampling":
        """`tokens` of text that goes on, without a thought."""
        return cls(temperature=temperature, think_budget=0, prediction_budget=tokens, candidates=0)

    @property
    def budget(self) -> Budget:
        return Budget(
            think=self.think_budget, prediction=self.prediction_budget, candidates=self.candidates
        )


class Sequences(Protocol):
    """Rows that are being decoded, no two alike: `hidden` [U, d] predicts each one's next token."""

    hidden: Tensor

    def advance(self, ids: Tensor) -> None:
        """Appends ids [U, n] to every row."""

    def keep(self, index: Tensor) -> None:
        """Goes on with these rows only; a row that is named twice is split in two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """One row's new tokens, after the opening."""

    token_ids: list[int]
    logprobs: list[float]
    loss_mask: list[bool]
    stopped: bool
    near_boundary: int

    def completion(self, opening: tuple[int, ...]) -> Completion:
        forced = len(opening)
        return Completion(
            token_ids=opening + tuple(self.token_ids),
            sampler_logprobs=(0.0,) * forced + tuple(self.logprobs),
            loss_mask=(False,) * forced + tuple(self.loss_mask),
            finish_reason="stop" if self.stopped else "length",
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoder:
    """The course of a completion: free thought, forced close, prediction.

    The thought ends when the policy writes its end (then the policy writes the box, too) or when
    the think budget is spent (then the close is forced). The prediction ends at a stop token or
    at its budget, never at a brace, and behind what the sampling names in `until`.

    Rollouts of a position that have drawn the same tokens so far are one row of the model, each
    with its own uniforms: nothing is computed twice.

    Legend: B rollouts still decoded, U distinct rows among them.
    """

    policy: Model
    layout: Layout
    sampling: Sampling

    def run(self, sequences: Sequences, row_of: Tensor, keys: Tensor) -> list[Decoded]:
        """row_of [B] (each rollout's row of `sequences`), keys [B] → one outcome a rollout."""
        device, rows = keys.device, len(keys)
        layout, budget = self.layout, self.sampling.think_budget
        close = torch.tensor(layout.close_ids, dtype=torch.long, device=device)
        forced_ids = torch.nn.functional.pad(close, (0, 1))  # so that an empty close has an index
        end = torch.tensor(layout.thought_end_ids, device=device)
        stops = torch.tensor(sorted(self.policy.stop_ids), device=device)
        alive = torch.arange(rows, device=device)  # rollouts still decoded
        forced_at = torch.full((rows,), -1, device=device)  # ≥ 0: inside the forced close
        thinking = torch.full((rows,), budget > 0, device=device)
        left = torch.full((rows,), self.sampling.prediction_budget, device=device)
        recent = torch.full((rows, len(end)), -1, device=device)
        said: list[bytes] = [b""] * rows  # read for `until` only
        steps: list[_Step] = []
        token = 0
        while True:
            free = forced_at < 0
            sampled = self._sample(sequences.hidden, row_of, keys, token, free)
            ids = torch.where(free, sampled.ids, forced_ids[forced_at.clamp_min(0)])
            is_stop = torch.isin(ids, stops) & free
            if self.sampling.until:
                is_stop = is_stop | self._reached(said, alive, ids, free & ~thinking)
            steps.append(
                _Step(
                    rows=alive,
                    ids=ids,
                    logprobs=sampled.logprobs,
                    free=free,
                    near=sampled.near,
                    stopped=is_stop,
                )
            )
            recent = torch.cat([recent[:, 1:], ids[:, None]], dim=1)
            # Free thought → its own end, or the forced close once the budget is spent.
            ended = thinking & (recent == end).all(1)
            spent = thinking & ~ended & (token + 1 >= budget)
            predicting = ~thinking & free
            thinking = thinking & ~ended & ~spent
            left = left - predicting.long() + ended * len(layout.answer_start_ids)
            forced_at = torch.where(free, -1, forced_at + 1)
            forced_at = torch.where(forced_at >= len(close), -1, forced_at)
            forced_at = torch.where(spent & ~is_stop, 0, forced_at)
            keep = (~is_stop & (left > 0)).nonzero()[:, 0]
            if len(keep) == 0:
                break
            if len(keep) < len(alive):
                alive, forced_at, thinking = alive[keep], forced_at[keep], thinking[keep]
                left, recent, keys, ids = left[keep], recent[keep], keys[keep], ids[keep]
                row_of = row_of[keep]
            parents, new_ids, row_of = split_rows(row_of, ids)
            sequences.keep(parents)
            new = new_ids[:, None]
            if bool((forced_at == 0).all()):  # the whole close at once, where all rows are in step
                new = torch.cat([new, close.expand(len(new), -1)], dim=1)
                steps += [_Step.forced(alive, i.expand(len(alive))) for i in close]
                forced_at = torch.full_like(forced_at, -1)
            sequences.advance(new)
            token += new.shape[1]
        return _collect(steps, rows)

    def _reached(self, said: list[bytes], alive: Tensor, ids: Tensor, speaking: Tensor) -> Tensor:
        """[B] True where the new token ends, or holds, what a completion stops behind."""
        reached = torch.zeros_like(speaking)
        for row in speaking.nonzero()[:, 0].tolist():
            rollout, before = int(alive[row]), len(said[int(alive[row])])
            new = literal_bytes(self.policy.table, [int(ids[row])], self.layout.literal)
            said[rollout] += new
            reached[row] = any(
                said[rollout].find(stop, max(before - len(stop) + 1, 0)) >= 0
                for stop in self.sampling.until
            )
        return reached

    def _sample(
        self, hidden: Tensor, row_of: Tensor, keys: Tensor, token: int, free: Tensor
    ) -> "Sampled":
        rollouts = free.nonzero()[:, 0]
        sampled = Sampled(
            ids=torch.zeros(len(keys), dtype=torch.long, device=keys.device),
            logprobs=torch.zeros(len(keys), device=keys.device, dtype=torch.float64),
            near=torch.zeros(len(keys), dtype=torch.bool, device=keys.device),
        )
        head = self.policy.head
        rows, inverse = row_of[rollouts].unique(return_inverse=True)
        for start in range(0, len(rows), head.chunk_rows):
            chosen = rows[start : start + head.chunk_rows]
            inside = (inverse >= start) & (inverse < start + head.chunk_rows)
            part, row = rollouts[inside], inverse[inside] - start
            draws = uniforms(keys[part], token)
            found = sample(head.logits(hidden[chosen]), draws, self.sampling.temperature, row)
            sampled.ids[part] = found.ids
            sampled.logprobs[part] = found.logprobs.double()
            sampled.near[part] = found.near
        return sampled


def split_rows(row_of: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows go on when the rollouts draw `ids`.

    row_of, ids [B] → the new rows' parents [U] and ids [U], and each rollout's new row [B].
    Each parent's first child comes in the parents' order and the other children after all of
    those: where every row goes on, the rows that were there stay where they are.
    """
    pairs = torch.stack([row_of, ids], dim=1).unique(dim=0)  # [U, 2], by row, then by id
    parents = pairs[:, 0]
    first = torch.ones_like(parents, dtype=torch.bool)
    first[1:] = parents[1:] != parents[:-1]
    order = torch.cat([first.nonzero()[:, 0], (~first).nonzero()[:, 0]])
    pairs = pairs[order]
    same = (row_of[:, None] == pairs[:, 0]) & (ids[:, None] == pairs[:, 1])  # [B, U]
    return pairs[:, 0], pairs[:, 1], same.int().argmax(1)


@dataclass(kw_only=True, eq=False)
class _Step:
    """One token of every rollout that was still decoded."""

    rows: Tensor
    ids: Tensor
    logprobs: Tensor
    free: Tensor
    near: Tensor
    stopped: Tensor

    @classmethod
    def forced(cls, rows: Tensor, ids: Tensor) -> "_Step":
        no = torch.zeros_like(ids, dtype=torch.bool)
        zero = torch.zeros_like(ids, dtype=torch.float64)
        return cls(rows=rows, ids=ids, logprobs=zero, free=no, near=no, stopped=no)


def _collect(steps: list[_Step], rows: int) -> list[Decoded]:
    ids: list[list[int]] = [[] for _ in range(rows)]
    logprobs: list[list[float]] = [[] for _ in range(rows)]
    mask: list[list[bool]] = [[] for _ in range(rows)]
    near = [0] * rows
    stopped = [False] * rows
    for step in steps:
        columns = (step.rows, step.ids, step.logprobs, step.free, step.near, step.stopped)
        for row, token, logprob, free, close, stop in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            ids[row].append(token)
            logprobs[row].append(logprob)
            mask[row].append(free)
            near[row] += close
            stopped[row] = stop
    return [
        Decoded(
            token_ids=ids[row],
            logprobs=logprobs[row],
            loss_mask=mask[row],
            stopped=stopped[row],
            near_boundary=near[row],
        )
        for row in range(rows)
    ]
