"""An OpenAI-compatible server on this machine that completes sums, some of them wrongly."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.json_server import JsonHandler, json_server

SUM = re.compile(r"(\d)\+(\d) =( ?)<think>\Z")


@dataclass(kw_only=True)
class Completions:
    """A server's address, what it was asked, and how it behaves."""

    address: str = ""
    models: tuple[str, ...] = ("adder",)
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    most_choices: int = 100
    busy: int = 0
    """Requests that are answered with 503 before any other."""
    lock: Any = field(default_factory=threading.Lock)


def answers(prompt: str) -> list[str]:
    """What it says behind a sum, in turn: right, wrong, without an end, and going on."""
    found = SUM.search(prompt)
    if found is None:
        return ["hm</think>\n\\boxed{?}"]
    a, b, space = int(found[1]), int(found[2]), found[3]
    form = "" if space else " "
    return [
        f"\n{a}+{b} = {a + b}</think>\n\\boxed{{{form}{a + b}}}",
        f"\n{a}+{b} = {a + b + 1}</think>\n\\boxed{{{form}{a + b + 1}}}",
        f"\n{a}+{b} = {a + b}",
        f"\n{b}+{a} = {a + b}</think>\n\\boxed{{{form}{a + b}}}\n\n9+9 = 18 {{x}}",
        f"</think>\n\\boxed{{{form}{a + b}}}",
    ]


@contextmanager
def completions_server(**behaviour: Any) -> Iterator[Completions]:
    """Serves while the block runs; `behaviour`: fields of `Completions`."""
    about = Completions(**behaviour)

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            about.keys.append(self.headers.get("Authorization"))
            assert self.path == "/v1/models"
            self.reply(200, {"object": "list", "data": [{"id": name} for name in about.models]})

        def do_POST(self) -> None:
            body = self.body()
            if self.path != "/v1/completions" or body["model"] not in about.models:
                self.reply(404, {"error": {"message": f"no model {body['model']}"}})
                return
            with about.lock:
                if about.busy:
                    about.busy -= 1
                    self.reply(503, {"error": {"message": "loading"}})
                    return
                before = sum(
                    min(one["n"], about.most_choices)
                    for one in about.asked
                    if one["prompt"] == body["prompt"]
                )
                about.asked.append(body)
            said = answers(body["prompt"])
            count = min(body["n"], about.most_choices)
            texts = [said[(before + i) % len(said)] for i in range(count)]
            choices = [
                {"index": i, "text": text, "finish_reason": "stop"} for i, text in enumerate(texts)
            ]
            self.reply(200, {"object": "text_completion", "choices": choices})

    with json_server(Handler) as address:
        about.address = f"{address}/v1"
        yield about
