"""A model under evaluation: how it is asked at the positions of a work, with its own thought or
with a given one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from openrpt.config.sections import Config
from openrpt.data.prompts import Layout
from openrpt.data.work import Work
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine
from openrpt.engine.generation import Generated
from openrpt.engine.model import Model
from openrpt.seeding import keys_of
from openrpt.types import Position

ThoughtIds = tuple[int, ...]
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
        self, work: Work, rows: Sequence[int], thoughts: Sequence[ThoughtIds]
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
        for part in chunks([len(thought) for thought in thoughts]):
            request = work.request(
                self.layout, keys[part], rows=rows[part], openings=thoughts[part]
            )
            (generated,) = self.engine.generate_each([request], self.layout, sampling)
            found += generated
        return found


def chunks(lengths: Sequence[int], tokens: int = _CHUNK_TOKENS) -> list[slice]:
    """Returns the rows of these lengths in order, as many at a time as stay within `tokens` when
    padded.

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
