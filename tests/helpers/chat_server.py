"""An OpenAI-compatible server of chats on this machine, which says what it is told to say."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.helpers.json_server import JsonHandler, json_server

Answer = Callable[[str, int], dict[str, str]]
"""A prompt, and how often it came before → the parts of the assistant's message."""


@contextmanager
def chat_server(answer: Answer) -> Iterator[str]:
    """Serves while the block runs; yields the address."""
    seen: dict[str, int] = {}
    lock = threading.Lock()

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            self.reply(200, {"object": "list", "data": [{"id": "tiny", "object": "model"}]})

        def do_POST(self) -> None:
            body = self.body()
            if not self.path.endswith("/chat/completions") or body["model"] != "tiny":
                self.reply(404, {"error": {"message": f"no model {body['model']}"}})
                return
            prompt = body["messages"][-1]["content"]
            with lock:
                before = seen.get(prompt, 0)
                seen[prompt] = before + 1
            message = {"role": "assistant", **answer(prompt, before)}
            usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.reply(
                200,
                {
                    "id": "chat-1",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "tiny",
                    "choices": [choice],
                    "usage": usage,
                },
            )

    with json_server(Handler) as address:
        yield f"{address}/v1"
