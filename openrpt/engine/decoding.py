"""From hidden states to completions: drawing each rollout's tokens to its end."""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from openrpt.config.prompt import PromptConfig
from openrpt.data.prompts import Budget, Layout
from openrpt.engine.course import Course, Rules
from openrpt.engine.decoded import Decoded, Said, Step, collect
from openrpt.engine.model import Model
from openrpt.engine.placing import put
from openrpt.engine.sampling import Sampled, sample, uniforms


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """The settings by which completions are drawn."""

    temperature: float
    """Temperature of the softmax; 0 = greedy."""
    think_budget: int
    """Most free tokens of a thought."""
    prediction_budget: int
    """Most tokens of a prediction."""
    candidates: int
    """Candidates that a thought is seeded with."""
    generation_rollouts: int = 256
    """Most rollouts that are decoded at once."""
    until: tuple[bytes, ...] = ()
    """Texts behind which a completion stops, too, once it has said one after its thought."""

    @classmethod
    def of(
        cls, prompt: PromptConfig, *, temperature: float, generation_rollouts: int = 256
    ) -> "Sampling":
        """Returns the settings with the prompt's budgets and candidates."""
        return cls(
            temperature=temperature,
            think_budget=prompt.think_budget,
            prediction_budget=prompt.prediction_budget,
            candidates=prompt.candidates,
            generation_rollouts=generation_rollouts,
        )

    @classmethod
    def plain(cls, tokens: int, *, temperature: float = 0.0) -> "Sampling":
        """Returns the settings for `tokens` of text that goes on, without a thought."""
        return cls(temperature=temperature, think_budget=0, prediction_budget=tokens, candidates=0)

    @property
    def budget(self) -> Budget:
        """The longest completion."""
        return Budget(
            think=self.think_budget, prediction=self.prediction_budget, candidates=self.candidates
        )


class Sequences(Protocol):
    """A protocol: rows that are being decoded, no two alike; `hidden` [U, d] predicts each one's
    next token. Ids and indices lie on the host."""

    hidden: Tensor

    def advance(self, ids: Tensor) -> None:
        """Appends ids [U, n] to every row."""

    def keep(self, index: Tensor) -> None:
        """Goes on with these rows only; a row that is named twice is split in two."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoder:
    """Draws completions: their course is `Course`'s, their tokens are the policy's.

    Beside stop tokens and budgets, a completion ends behind what the sampling names in `until`;
    it never ends at a brace. Rollouts of a position that have drawn the same tokens so far are one
    row of the model, each with its own uniforms: nothing is computed twice. The host waits for a
    GPU once a token, for what was drawn.

    Legend: B rollouts still decoded, U distinct rows among them, C tokens of the forced close.
    """

    policy: Model
    layout: Layout
    sampling: Sampling

    def run(self, sequences: Sequences, row_of: Tensor, keys: Tensor) -> list[Decoded]:
        """Decodes all rollouts to their end: one outcome each, in order.

        row_of [B], each rollout's row of `sequences`; keys [B], of its random draws; both on the
        host.
        """
        rules = Rules.of(
            self.layout,
            self.policy.stop_ids,
            think_budget=self.sampling.think_budget,
            prediction_budget=self.sampling.prediction_budget,
        )
        course = Course.begin(rules, keys=keys, row_of=row_of)
        said = Said.of(self.policy.table, self.layout, self.sampling.until, rollouts=len(keys))
        steps: list[Step] = []
        while True:
            sampled = self._sample(sequences.hidden, course)
            ids = course.next_ids(sampled.ids)  # [B]
            reached = said.reached(course, ids)
            after = course.after(ids, reached=reached)
            steps.append(
                Step(
                    rows=course.alive,
                    ids=ids,
                    logprobs=sampled.logprobs,
                    free=course.free,
                    near=sampled.near,
                    stopped=after.stopped,
                )
            )
            course = after.going_on()  # B falls
            if len(course.alive) == 0:
                return collect(steps, len(keys))
            parents, new_ids, row_of = split_rows(course.row_of, course.last)  # U grows
            sequences.keep(parents)
            course = replace(course, row_of=row_of)
            new = new_ids[:, None]  # [U, 1]
            if course.at_close:  # where all are in step, the close is run at once
                new = torch.cat([new, rules.close.expand(len(new), -1)], dim=1)  # [U, 1 + C]
                steps += [Step.forced(course.alive, token) for token in rules.close]
                course = course.past_close()
            sequences.advance(new)

    def _sample(self, hidden: Tensor, course: Course) -> Sampled:
        """Draws for each rollout from its row of hidden [U, d]; 0 where the next token is
        forced. The outcome lies on the host."""
        keys, rollouts = course.keys, course.free.nonzero()[:, 0]
        sampled = Sampled(
            ids=torch.zeros(len(keys), dtype=torch.long),
            logprobs=torch.zeros(len(keys), dtype=torch.float64),
            near=torch.zeros(len(keys), dtype=torch.bool),
        )
        head, device = self.policy.head, hidden.device
        drawn, found = [], []
        rows, inverse = course.row_of[rollouts].unique(return_inverse=True)  # [free rows], [free]
        for start in range(0, len(rows), head.chunk_rows):
            chosen = rows[start : start + head.chunk_rows]
            inside = (inverse >= start) & (inverse < start + head.chunk_rows)
            part, row = rollouts[inside], inverse[inside] - start
            logits = head.logits(hidden[put(chosen, device)])
            draws = put(uniforms(keys[part], course.token), device)
            own = sample(logits, draws, self.sampling.temperature, put(row, device))
            drawn.append(part)
            found.append(torch.stack([own.ids.double(), own.logprobs.double(), own.near.double()]))
        if drawn:  # [3, free] in one copy; an id is exact in float64
            part, (ids, logprobs, near) = torch.cat(drawn), torch.cat(found, dim=1).cpu()
            sampled.ids[part], sampled.logprobs[part] = ids.long(), logprobs
            sampled.near[part] = near > 0
        return sampled


def split_rows(row_of: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the rows that go on when the rollouts draw `ids`.

    row_of, ids [B] → the new rows' parents [U] and ids [U], and each rollout's new row [B]. A row
    that goes on stays where it is, but for those beyond the U: these, and a parent's other
    children, take the places of rows that have ended. So few rows move.
    """
    pairs = torch.stack([row_of, ids], dim=1).unique(dim=0)  # [U, 2], by row, then by id
    parents, count = pairs[:, 0], len(pairs)
    stays = parents < count
    stays[1:] &= parents[1:] != parents[:-1]
    free = torch.ones_like(stays)
    free[parents[stays]] = False
    places = torch.where(stays, parents, 0)  # [U]
    places[~stays] = free.nonzero()[:, 0]
    pairs = pairs[places.argsort()]
    same = (row_of[:, None] == pairs[:, 0]) & (ids[:, None] == pairs[:, 1])  # [B, U]
    return pairs[:, 0], pairs[:, 1], same.int().argmax(1)
