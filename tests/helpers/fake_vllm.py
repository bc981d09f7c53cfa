"""A server with vLLM's HTTP protocol, as far as the sampler speaks it, over a model of
transformers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.helpers.json_server import JsonHandler, json_server


@dataclass(kw_only=True)
class FakeVLLM:
    """The server's address, what it was asked, and how it behaves."""

    model: Any
    tokenizer: Any
    address: str = ""
    weight_version: str = "default"
    logprobs_mode: str = "processed_logprobs"
    max_model_len: int = 128
    root: str = ""
    """The folder that it says it serves."""
    dev_mode: bool = True
    busy: int = 0
    """Requests that are answered with 503 before any other."""
    cut: bool = False
    """Whether a completion ends a token early, at no stop."""
    holds: bool = False
    """Whether its prefix cache can't be emptied."""
    asked: list[tuple[str, Any]] = field(default_factory=list)
    """(path, body) of each request."""
    lock: Any = field(default_factory=threading.Lock)

    def draw(self, body: dict[str, Any]) -> dict[str, Any]:
        """Completes as vLLM does: its seed alone decides, the stop token is drawn, too."""
        ids, logprobs = list(body["prompt"]), []
        generator = torch.Generator().manual_seed(body["seed"])
        while len(logprobs) < body["max_tokens"] - self.cut:
            with torch.no_grad():
                logits = self.model(torch.tensor([ids])).logits[0, -1]
            logp = (logits / (body["temperature"] or 1.0)).log_softmax(-1)
            token = logp.argmax() if body["temperature"] == 0 else None
            if token is None:
                token = torch.multinomial(logp.exp(), 1, generator=generator)[0]
            ids.append(int(token))
            logprobs.append(float(logp[token]))
            if ids[-1] in body["stop_token_ids"]:
                break
        drawn = ids[len(body["prompt"]) :]
        return {"token_ids": drawn, "logprobs": {"token_logprobs": logprobs}, "text": ""}

    def get(self, path: str) -> Any:
        """What it answers to a GET; None: nothing is there."""
        if path == "/v1/models":
            return {
                "data": [{"id": "served", "root": self.root, "max_model_len": self.max_model_len}]
            }
        if not self.dev_mode:
            return None
        if path == "/weight_info":
            return {"weight_version": self.weight_version}
        if path == "/server_info?config_format=json":
            return {"vllm_config": {"model_config": {"logprobs_mode": self.logprobs_mode}}}
        return None

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """What it answers to a POST; None: nothing is there."""
        if path == "/v1/completions":
            return {"choices": [self.draw(body)]}
        if path == "/tokenize":
            special = body["add_special_tokens"]
            ids = self.tokenizer.encode(body["prompt"], add_special_tokens=special)
            return {"tokens": ids}
        if path == "/reset_prefix_cache":
            return {"success": not self.holds}
        if path == "/update_weight_version":
            self.weight_version = body["new_version"]
            return {"success": True}
        if path == "/collective_rpc" and body["method"] == "reload_weights":
            (file,) = Path(body["kwargs"]["weights_path"]).glob("*.safetensors")
            missing, unknown = self.model.load_state_dict(load_file(file), strict=False)
            if unknown or set(missing) - {"lm_head.weight"}:
                raise ValueError(f"missing {missing}, unknown {unknown}")
            return {"results": [None]}
        return None


@contextmanager
def fake_vllm(folder: Path, **behaviour: Any) -> Iterator[FakeVLLM]:
    """Serves a model's folder while the block runs; `behaviour`: fields of `FakeVLLM`."""
    about = FakeVLLM(
        model=AutoModelForCausalLM.from_pretrained(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        **behaviour,
    )

    class Handler(JsonHandler):
        def answer(self, found: Any) -> None:
            if found is None:
                self.reply(404, {"error": "no such place"})
            else:
                self.reply(200, found)

        def is_busy(self) -> bool:
            with about.lock:
                busy, about.busy = about.busy > 0, max(about.busy - 1, 0)
            if busy:
                self.send_error(503, "loading")
            return busy

        def do_GET(self) -> None:
            about.asked.append((self.path, None))
            if not self.is_busy():
                self.answer(about.get(self.path))

        def do_POST(self) -> None:
            body = self.body()
            about.asked.append((self.path, body))
            if self.is_busy():
                return
            try:
                with about.lock:
                    found = about.post(self.path, body)
            except (ValueError, RuntimeError) as error:  # no weights there, or others
                self.send_error(500, type(error).__name__)
                return
            self.answer(found)

    with json_server(Handler) as about.address:
        yield about
