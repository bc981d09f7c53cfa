"""A model under evaluation: how it is prompted and sampled at the positions of a work."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from openrpt.config import Config
from openrpt.data import Work
from openrpt.decoding import Sampling
from openrpt.engine import Engine
from openrpt.generation import Generated, Request, with_plain_standard
from openrpt.models import Policy
from openrpt.prompts import Layout
from openrpt.seeding import key_of
from openrpt.types import Position

Thought = tuple[int, ...]
"""Token ids of a thought, without what closes it."""

CHUNK_TOKENS = 8192
"""Forced tokens run at once: memory, never results."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    policy: Policy
    engine: Engine
    config: Config
    layout: Layout

    @property
    def samples(self) -> int:
        """Rollouts of a position; 1 where it is greedy."""
        return max(self.config.evaluate.samples, 1)

    @property
    def sampling(self) -> Sampling:
        prompt, evaluate = self.config.prompt, self.config.evaluate
        return Sampling(
            temperature=evaluate.temperature if evaluate.samples else 0.0,
            think_budget=prompt.think_budget,
            prediction_budget=prompt.prediction_budget,
            candidates=prompt.candidates,
        )

    def keys(self, position: Position, count: int, purpose: str = "evaluate") -> tuple[int, ...]:
        """Of the random draws at a position."""
        name = (self.config.seed, purpose, position.document_id, position.index)
        return tuple(key_of(*name, sample) for sample in range(count))

    def predict_each(self, works: Sequence[Work], samples: int) -> Iterator[list[Generated]]:
        """Of each work, `samples` rollouts at each position, as the policy thinks them."""
        requests = [
            self._request(work, self.layout, [self.keys(p, samples) for p in work.positions])
            for work in works
        ]
        return self.engine.generator.generate_each(requests, self.layout, self.sampling)

    def with_plain_standard(self, work: Work, generated: Sequence[Generated]) -> list[Generated]:
        """The outcomes with standard prediction as the text alone gives it."""
        request = self._request(work, self.layout, [() for _ in work.positions])
        return with_plain_standard(self.engine.generator, request, self.layout, generated)

    def draw_tokens(self, work: Work, draws: Sequence[int]) -> list[list[int]]:
        """Tokens sampled by standard prediction, `draws` [P] of them at the work's positions."""
        settings = self.config.evaluate
        sampling = Sampling(
            temperature=settings.temperature, think_budget=0, prediction_budget=1, candidates=0
        )
        pairs = zip(work.positions, draws, strict=True)
        keys = [self.keys(position, count, "ntp voting") for position, count in pairs]
        request = self._request(work, self.layout.plain, keys)
        generated = self.engine.generator.generate(request, self.layout.plain, sampling)
        return [[c.token_ids[0] for c in outcome.completions] for outcome in generated]

    def predict_after(
        self, work: Work, rows: Sequence[int], thoughts: Sequence[Thought]
    ) -> list[Generated]:
        """One rollout a row, its thought given: at position rows[i] after thoughts[i].

        A row draws as the rollout of that number at its position, so that two kinds of thought
        meet the same random numbers. Long thoughts run CHUNK_TOKENS at a time.
        """
        sampling = replace(self.sampling, think_budget=0, candidates=0)
        lengths = work.prefix_lengths(self.layout)
        drawn = [0] * len(work.positions)
        keys = []
        for row in rows:
            keys.append((self.keys(work.positions[row], self.samples)[drawn[row] % self.samples],))
            drawn[row] += 1
        found: list[Generated] = []
        for part in chunks([len(thought) for thought in thoughts]):
            request = Request(
                prefix_ids=work.prefix_ids(self.layout, whole=False),
                prefix_lengths=tuple(lengths[row] for row in rows[part]),
                keys=tuple(keys[part]),
                openings=tuple(thoughts[part]),
            )
            found += self.engine.generator.generate(request, self.layout, sampling)
        return found

    @staticmethod
    def _request(work: Work, layout: Layout, keys: Sequence[tuple[int, ...]]) -> Request:
        return Request(
            prefix_ids=work.prefix_ids(layout, whole=False),
            prefix_lengths=work.prefix_lengths(layout),
            keys=tuple(keys),
        )


def chunks(lengths: Sequence[int], tokens: int = CHUNK_TOKENS) -> list[slice]:
    """Rows of these lengths in order, as many at a time as stay within `tokens` when padded.

    >>> chunks([3, 3, 4, 9], tokens=8)
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
