"""The positions of a scored run as tasks: the text before each as a message, what follows as the
truth.

A task is a pure function of its number: which document and which of its positions, in the order of
`openrpt train`. It is made when it is read, so that skipping to any number costs next to nothing.
"""

import base64
import math
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from itertools import count
from pathlib import Path
from typing import Any, Literal, Self

import verifiers.v1 as vf

from openrpt.config.prompt import PromptConfig
from openrpt.config.sections import Config
from openrpt.data.prompt_texts import message_text
from openrpt.data.scored import ScoredCorpus, load_scored
from openrpt.data.training_work import take_work
from openrpt.data.work import Work
from openrpt.errors import UserError
from openrpt.rl.completions import extract_prediction
from openrpt.rl.grading import CONTINUATION_TOKENS
from openrpt.rl.rewards.matching import prefix_match
from openrpt.runs.run import existing_run


class PositionData(vf.TaskData):
    """A position: what is asked, and the bytes that truly follow."""

    document_id: str
    position: int
    """Index of the true token in the document."""
    continuation: tuple[str, ...]
    """The bytes of the true tokens from the position on, each in base64."""
    entropy: float | None
    """The scorer's, in nats: the difficulty; None without a score."""


class PositionConfig(vf.TaskConfig):
    """How an answer is read (`--env.taskset.task.*`)."""

    thought_end: str = "</think>"
    """What ends a thought in a model's text; a server's `reasoning_content` ends by itself."""
    thought: Literal["required", "optional"] = "required"
    """optional: an answer without a thought counts, too."""


class PositionTask(vf.Task[PositionData, vf.State, PositionConfig]):
    """A position to predict at."""

    def __init__(
        self,
        data: PositionData | Callable[[], PositionData],
        config: PositionConfig | None = None,
    ) -> None:
        self._given = data
        self._update: dict[str, Any] = {}
        self.config = config if config is not None else PositionConfig()

    @cached_property
    def data(self) -> PositionData:  # type: ignore[override]
        """The position, which is looked up at the first reading."""
        found = self._given() if callable(self._given) else self._given
        return found.model_copy(update=self._update)

    def with_data(self, **update: Any) -> Self:
        """Returns the task with parts of its data replaced, once they are read."""
        changed = type(self)(self._given, self.config)
        changed._update = self._update | update
        return changed

    @property
    def key(self) -> str:
        """The document and the position; a number that comes back in a later epoch is another
        task."""
        return f"{self.data.document_id}:{self.data.position}:{self.data.idx}"

    @vf.reward(weight=1.0)
    async def prefix_match(self, trace: vf.Trace) -> float:
        """1 where the prediction's bytes end on a token boundary of what follows, else 0."""
        continuation = [base64.b64decode(piece) for piece in self.data.continuation]
        return prefix_match(self._prediction(trace), continuation)

    @vf.metric
    async def predicted(self, trace: vf.Trace) -> float:
        """Returns 1 where the answer has a prediction in a box."""
        return float(self._prediction(trace) is not None)

    def _prediction(self, trace: vf.Trace) -> bytes | None:
        """Reads the answer as the model wrote it: a reply that is stripped would lose the space
        before a word."""
        if not trace.assistant_messages:
            return None
        message, end = trace.assistant_messages[-1], self.config.thought_end.encode()
        said = (message.content or "").encode()
        if message.reasoning_content is not None or self.config.thought == "optional":
            said = end + said
        return extract_prediction(said, thought_end=end)


class OpenRPTConfig(vf.TasksetConfig):
    """Which positions are asked, and in which words (`--env.taskset.*`)."""

    run: Path = Path("runs/default")
    """A run folder with scores: `openrpt score CORPUS --run …`."""
    template: Literal["chat", "v0", "v6"] = "chat"
    """The words around the text (docs/configuration.md, prompt.template)."""
    task: PositionConfig = PositionConfig()


class OpenRPTTaskset(vf.Taskset[PositionTask, OpenRPTConfig]):
    """The training positions of a run, without end: epoch after epoch, each with an order and
    positions of its own."""

    INFINITE = True

    def load(self) -> Iterator[PositionTask]:
        """Yields the tasks from number 0 on. Raises UserError where no scored run is."""
        positions = _Positions(self.config.run, self.config.template)
        for number in count():
            yield PositionTask(lambda number=number: positions.at(number), self.config.task)


class _Positions:
    """The positions of a run by number."""

    def __init__(self, run: Path, template: str) -> None:
        found = existing_run(run)
        self.corpus: ScoredCorpus = load_scored(found.scored)
        self.config: Config = found.config
        if not self.corpus.ids("train"):
            raise UserError(f"{found.scored}: no training documents were scored")
        self.prompt = PromptConfig(template=template, chat_template="off")
        self._work = lru_cache(maxsize=64)(self._take)

    def at(self, number: int) -> PositionData:
        """Returns the position of that number: `positions_per_document` of one document after the
        other."""
        cursor, place = divmod(number, self.config.train.positions_per_document)
        work, whole = self._work(cursor)
        position = work.positions[whole[place % len(whole)]]
        document, index = work.document, position.index
        text = document.text.encode()
        ends = [*document.byte_offsets.tolist(), len(text)]
        # A window may begin inside a character, of which the rest is left out.
        before = text[ends[work.window.start] : ends[index]].decode(errors="ignore")
        pieces = [
            text[start:end] for start, end in zip(ends[index:], ends[index + 1 :], strict=False)
        ]
        return PositionData(
            prompt=message_text(self.prompt, before),
            document_id=document.document_id,
            position=index,
            continuation=tuple(
                base64.b64encode(piece).decode() for piece in pieces[:CONTINUATION_TOKENS]
            ),
            entropy=None if math.isnan(position.entropy) else position.entropy,
        )

    def _take(self, cursor: int) -> tuple[Work, list[int]]:
        """Returns the first work from a cursor on with a position that is no part of a character,
        and which of its positions are none: a message is text."""
        taken = take_work(
            self.corpus,
            self.config,
            cursor=cursor,
            count=self.config.train.positions_per_document,
            purpose="positions",
        )
        for _, (_, work) in zip(range(len(self.corpus.ids("train")) + 1), taken, strict=False):
            text, starts = work.document.text.encode(), work.document.byte_offsets
            whole = [
                number
                for number, position in enumerate(work.positions)
                if text[int(starts[position.index])] & 0xC0 != 0x80
            ]
            if whole:
                return work, whole
        raise UserError(f"{self.corpus.folder}: no position lies between two characters")
