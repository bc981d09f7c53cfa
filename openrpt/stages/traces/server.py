"""A model behind an OpenAI-compatible server (`/v1/completions`) that thinks where traces are
wanted.

It is given text, not tokens: the examples, the template and the text before the position, without
a chat template. Its thoughts are not seeded with candidates, and end by themselves or are lost.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from openrpt.config.prompt import PromptConfig
from openrpt.config.sections import Config
from openrpt.data.prompt_texts import EXAMPLE_END, prompt_text
from openrpt.data.work import Work
from openrpt.errors import UserError
from openrpt.http_json import ask
from openrpt.seeding import key_of
from openrpt.stages.traces.thinkers import Said

_FORM_TOKENS = 16
"""Tokens on top of the budgets, for the thought's end and the box in whatever tokenizer."""
_AT_ONCE = 8
"""Requests under way at the same time: servers batch them."""
_TRIES = 4
_SECONDS = 600.0
"""The most time that the server may be silent in one request."""


def is_server(name: str) -> bool:
    """Returns whether a model's name is a server's address.

    >>> is_server("http://localhost:8000/v1"), is_server("models/large")
    (True, False)
    """
    return name.startswith(("http://", "https://"))


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerThinker:
    """A model of a server."""

    address: str
    """The address, with its `/v1`."""
    model: str
    """The model's name on the server."""
    config: Config
    temperature: float

    @classmethod
    def open(cls, address: str, model: str, config: Config, temperature: float) -> "ServerThinker":
        """Asks the server for its models; `model` may be left out where there is one.

        Raises UserError where the server does not answer, and where the model is not there.
        """
        address = address.rstrip("/")
        reply = _ask(f"{address}/models")
        try:
            known = [str(one["id"]) for one in reply["data"]]
        except (KeyError, TypeError):
            raise UserError(f"{address}/models: no list of models in the reply") from None
        if not model and len(known) == 1:
            model = known[0]
        if model not in known:
            given = f"no model '{model}' there" if model else "which of its models?"
            raise UserError(f"{address}: {given}; give --served, one of {', '.join(known[:20])}")
        return cls(address=address, model=model, config=config, temperature=temperature)

    @property
    def name(self) -> str:
        """The model's name on the server."""
        return self.model

    @property
    def mark(self) -> str:
        """The address, the model's name and the temperature: what is behind them is not known."""
        return f"{self.address} {self.model} {self.temperature:g}"

    def think(self, works: Sequence[Work], samples: int) -> Iterator[Said]:
        """Yields what the server says at each position.

        Raises UserError where it refuses a request, or does not answer after several tries.
        """
        for work in works:
            offsets = [int(work.document.byte_offsets[p.index]) for p in work.positions]
            start = int(work.document.byte_offsets[work.window.start])
            text = work.document.text.encode()
            texts = [text[start:offset] for offset in offsets]
            places = [(work.document.document_id, offset) for offset in offsets]
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                said = pool.map(self._at, texts, places, repeat(samples))
                yield dict(zip(offsets, said, strict=True))

    def _at(self, before: bytes, place: tuple[str, int], samples: int) -> list[bytes]:
        """Returns the completions behind a text, at a document's byte; a server may give fewer at
        once than it is asked for."""
        prompt = self.config.prompt
        found: list[bytes] = []
        while len(found) < samples:
            key = key_of(self.config.seed, "traces", *place, len(found))
            reply = _ask(
                f"{self.address}/completions",
                {
                    "model": self.model,
                    "prompt": prompt_text(prompt, before.decode(errors="ignore")),
                    "max_tokens": prompt.think_budget + prompt.prediction_budget + _FORM_TOKENS,
                    "temperature": self.temperature,
                    "n": samples - len(found),
                    "seed": key % 2**31,
                    "stop": [prompt.thought_start],
                },
            )
            try:
                texts = [str(choice["text"]) for choice in reply["choices"]]
            except (KeyError, TypeError):
                raise UserError(f"{self.address}/completions: no choices in the reply") from None
            if not texts:
                raise UserError(f"{self.address}/completions: the reply has no choice")
            found += [_one(text, prompt).encode(errors="replace") for text in texts]
        return found[:samples]


def _one(completion: str, prompt: PromptConfig) -> str:
    """Returns a completion without what follows its box: a further example, as the model was shown
    them."""
    thought, end, rest = completion.partition(prompt.thought_end)
    box, found, _ = rest.partition(prompt.answer_end + EXAMPLE_END)
    return thought + end + box + (prompt.answer_end if found else "")


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """Returns the JSON that the server answers: `openrpt.http_json.ask`."""
    again = "the same command goes on from here"
    return ask(url, body, tries=_TRIES, seconds=_SECONDS, advice=again)
