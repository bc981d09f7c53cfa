"""The way a model is asked: what it may answer, and a context as it is put to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.engine.decoding import Sampling


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The way a context is answered; whatever changes the answer stands here."""

    max_tokens: int
    """The answer's most tokens, the end of turn included."""
    think_budget: int | None = None
    """Free tokens of thought before it is closed; 0 = opened and closed at once, None = no thought
    at all."""
    answer_start: str = ""
    """Text that is forced behind a thought that had to be closed, such as the box's opening."""
    until: tuple[str, ...] = ()
    """The texts before the first of which the answer ends."""
    samples: int = 0
    """The number of sampled answers; 0 = the greedy one."""
    temperature: float = 1.0
    chat: bool = False
    """The context is a chat as its template writes it, its beginning included."""

    @property
    def sampling(self) -> Sampling:
        """The sampling with which an answer is drawn."""
        temperature = self.temperature if self.samples else 0.0
        return replace(
            Sampling.plain(self.max_tokens, temperature=temperature),
            think_budget=self.think_budget or 0,
            until=tuple(stop.encode() for stop in self.until),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A context as it is put to the model."""

    context: str
    asked: Asked
    layout: Layout
    request: Request
    cut: int
    """The number of the context's tokens that did not fit."""

    @property
    def sampling(self) -> Sampling:
        """The sampling with which its answers are drawn."""
        return self.asked.sampling


def until_first(text: str, stops: Sequence[str]) -> str:
    """Returns the text before the first of the stops.

    >>> until_first("x = 1\\ndef f(): ...", ["\\nclass", "\\ndef"])
    'x = 1'
    """
    for stop in stops:
        text = text.partition(stop)[0] if stop else text
    return text
