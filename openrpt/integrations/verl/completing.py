"""The course of a completion at a server that is asked for tokens: thought, close, prediction.

What comes behind a thought, `openrpt.engine.drawn` says; nothing here needs torch. A server can't
force tokens midway, so it is asked twice: for the thought, and behind its end (the policy's own or
the forced one) for the prediction. What a prefix cache holds of the first makes the second cheap.
"""

from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from openrpt.config.prompt import PromptConfig
from openrpt.data.prompts import Budget, Layout
from openrpt.engine.drawn import Drawn, Rest, end_of, rest_of
from openrpt.types import Completion


class Ask(Protocol):
    """A server's way to draw: at most so many tokens behind these, up to one of the stops."""

    def __call__(
        self, token_ids: Sequence[int], *, most: int, stop_ids: Sequence[int]
    ) -> Awaitable[Drawn]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """How a run's prompt opens, forces and ends a completion, in the ids of its tokenizer."""

    think_budget: int
    """Most free tokens of the thought; at 0 it is closed at once."""
    prediction_budget: int
    """Most tokens of the prediction, the box's end included."""
    close_ids: tuple[int, ...]
    """The forced close: the thought's end and the box's opening."""
    answer_start_ids: tuple[int, ...]
    """The ids that open the box, which a thought that ends by itself leaves to the policy."""
    thought_end_ids: tuple[int, ...]
    """The ids with which the policy ends its thought itself."""
    stop_ids: tuple[int, ...]
    """End-of-turn and end-of-text tokens."""
    thought_end: str
    literal: Mapping[int, str]
    """Delimiters that are one special token and render literally in a completion."""
    tokenizer: str
    """The tokenizer's fingerprint."""

    @classmethod
    def of(
        cls, prompt: PromptConfig, layout: Layout, *, stop_ids: Collection[int], tokenizer: str
    ) -> "Form":
        """Returns the form under a layout. `tokenizer`: its fingerprint."""
        return cls(
            think_budget=prompt.think_budget,
            prediction_budget=prompt.prediction_budget,
            close_ids=layout.close_ids,
            answer_start_ids=layout.answer_start_ids,
            thought_end_ids=layout.thought_end_ids,
            stop_ids=tuple(sorted(stop_ids)),
            thought_end=prompt.thought_end,
            literal={i: text.decode() for i, text in layout.literal.items()},
            tokenizer=tokenizer,
        )

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Form":
        """Returns the form that `values` gave, lists in place of tuples and other mappings."""
        ids = {name: tuple(values[name]) for name in values if name.endswith("_ids")}
        literal = {int(i): str(text) for i, text in values["literal"].items()}
        return cls(**{**values, **ids, "literal": literal})

    def values(self) -> dict[str, Any]:
        """Returns the form as plain values."""
        return asdict(self)

    @property
    def layout(self) -> Layout:
        """The layout as far as a completion is read by it: nothing stands before or behind."""
        return Layout(
            head_ids=(),
            tail_ids=(),
            plain_head_ids=(),
            separator_ids=(),
            close_ids=self.close_ids,
            answer_start_ids=self.answer_start_ids,
            answer_end_ids=(),
            thought_end_ids=self.thought_end_ids,
            thought_end=self.thought_end.encode(),
            literal={i: text.encode() for i, text in self.literal.items()},
        )

    @property
    def longest_trained(self) -> int:
        """The most tokens of a completion that are trained."""
        budget = Budget(think=self.think_budget, prediction=self.prediction_budget)
        return budget.trained(self.layout)

    @property
    def _thought_stops(self) -> tuple[int, ...]:
        """The tokens that end what is asked for as a thought: its own end, too, where that is one
        token. What is drawn behind a longer one is left out, and drawn anew."""
        end = self.thought_end_ids
        return (*self.stop_ids, *end) if len(end) == 1 else self.stop_ids

    async def complete(self, ask: Ask, prompt_ids: Sequence[int]) -> Completion:
        """Returns a completion behind a prompt."""
        said, rest = _Said(), Rest(forced=self.close_ids, budget=self.prediction_budget)
        if self.think_budget:
            drawn = await ask(prompt_ids, most=self.think_budget, stop_ids=self._thought_stops)
            end = end_of(drawn.token_ids, self.thought_end_ids)
            said.take(drawn, end or self.think_budget)
            if end is None and len(said.token_ids) < self.think_budget:  # the server's own limit
                return said.completion(self.stop_ids)
            rest = rest_of(
                said.token_ids,
                end=self.thought_end_ids,
                stops=self.stop_ids,
                close=self.close_ids,
                prediction_budget=self.prediction_budget,
                box_tokens=len(self.answer_start_ids),
            )
        said.force(rest.forced)
        if rest.budget:
            before = [*prompt_ids, *said.token_ids]
            most = rest.budget
            said.take(await ask(before, most=most, stop_ids=self.stop_ids), most)
        return said.completion(self.stop_ids)


class _Said:
    """A completion as far as it has come."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self._logprobs: list[float] = []
        self._mask: list[bool] = []

    def take(self, drawn: Drawn, most: int) -> None:
        """Adds the first tokens of what was drawn."""
        self.token_ids += drawn.token_ids[:most]
        self._logprobs += drawn.logprobs[:most]
        self._mask += [True] * len(drawn.token_ids[:most])

    def force(self, token_ids: Sequence[int]) -> None:
        """Adds forced tokens."""
        self.token_ids += token_ids
        self._logprobs += [0.0] * len(token_ids)
        self._mask += [False] * len(token_ids)

    def stopped(self, stop_ids: Sequence[int]) -> bool:
        """Returns whether the last token is a stop that was drawn."""
        return bool(self._mask) and self._mask[-1] and self.token_ids[-1] in stop_ids

    def completion(self, stop_ids: Sequence[int]) -> Completion:
        """Returns all that was said."""
        return Completion(
            token_ids=tuple(self.token_ids),
            sampler_logprobs=tuple(self._logprobs),
            loss_mask=tuple(self._mask),
            finish_reason="stop" if self.stopped(stop_ids) else "length",
        )
