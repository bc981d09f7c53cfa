"""Whoever thinks where traces are wanted: a model that runs here. `server.py` has one elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from openrpt.config.sections import Config
from openrpt.data.prompts import Layout
from openrpt.data.scored import ScoredCorpus
from openrpt.data.tokens import literal_bytes, tokenizer_fingerprint
from openrpt.data.work import Work, retokenized
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine, OpenModel, open_engine, open_seeding_start
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.errors import UserError
from openrpt.seeding import keys_of
from openrpt.stages.own_parts import require_own_parts

Said = Mapping[int, Sequence[bytes]]
"""What was said at places of a document: byte offset → completions, from behind the thought's
opening (and the candidates that seed it) on."""


class Thinker(Protocol):
    """A protocol: what thinks at positions of documents."""

    @property
    def name(self) -> str:
        """The name that its traces are labelled with."""

    @property
    def mark(self) -> str:
        """A text that changes with what it would say."""

    def think(self, works: Sequence[Work], samples: int) -> Iterator[Said]:
        """Yields what it says in each of the works, `samples` times at each position; nothing at a
        position that it can't be asked at."""


def open_thinking(config: Config, path: str) -> Engine:
    """Opens a model, with the start model where that one's candidates seed the thought."""
    return open_engine(config, path=path, start=open_seeding_start(config))


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelThinker:
    """A model of this machine, by an engine: its rollouts, as in training."""

    name: str
    mark: str
    engine: Engine
    config: Config
    temperature: float
    tokenizer: str
    """The fingerprint of the tokenizer that the works are in."""

    @classmethod
    def open(
        cls,
        name: str,
        path: str,
        config: Config,
        corpus: ScoredCorpus,
        temperature: float,
        *,
        open_model: OpenModel = open_thinking,
    ) -> "ModelThinker":
        """Loads a model, by `open_model`. Raises UserError as `open_engine`, and for a part of the
        user's own that can't be had."""
        require_own_parts(config, "warmup")  # thoughts are asked for where, and as, it imitates
        return cls(
            name=name,
            mark=f"{model_fingerprint(path)} {temperature:g}",
            engine=open_model(config, path),
            config=config,
            temperature=temperature,
            tokenizer=corpus.metadata["tokenizer"],
        )

    def think(self, works: Sequence[Work], samples: int) -> Iterator[Said]:
        """Yields the model's rollouts. Raises UserError where the prompt does not fit into it."""
        config, model = self.config, self.engine.model
        own = list(works)
        if tokenizer_fingerprint(model.tokenizer) != self.tokenizer:
            own = [retokenized(work, model.tokenizer) for work in works]
        asked = [work for work in own if work.positions]
        if works and not asked:
            raise UserError(
                f"{self.name}: its tokenizer has no token boundary in common with the scores'"
            )
        longest = max(work.positions[-1].index - work.window.start for work in asked)
        layout = model.layout(config.prompt, window=longest)
        sampling = Sampling.of(
            config.prompt,
            temperature=self.temperature,
            generation_rollouts=config.memory.generation_rollouts,
        )
        requests = [
            work.request(
                layout,
                [
                    keys_of(samples, config.seed, "traces", p.document_id, p.index)
                    for p in work.positions
                ],
            )
            for work in asked
        ]
        outcomes = self.engine.generate_each(requests, layout, sampling)
        for work in own:
            if not work.positions:
                yield {}
                continue
            starts = work.document.byte_offsets
            yield {
                int(starts[position.index]): [
                    self._text(completion.token_ids, layout, outcome.candidate_ids)
                    for completion in outcome.completions
                ]
                for position, outcome in zip(work.positions, next(outcomes), strict=True)
            }

    def _text(self, ids: Sequence[int], layout: Layout, candidates: Sequence[int]) -> bytes:
        free = ids[len(layout.seed(candidates)) :]
        return literal_bytes(self.engine.model.table, free, layout.literal)
