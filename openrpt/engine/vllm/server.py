"""A vLLM behind an address (`vllm serve`), for sampling on other machines than the trainer's.

Trainer and server share a folder. The model that the server is to serve is written there, and the
weights travel through it. vLLM's own transfer of weights (its RL endpoints) sends them from GPU to
GPU by NCCL and has nothing for other machines; what is used of those is the version under which the
server has its weights.
"""

import shutil
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from openrpt.config.engine import EngineConfig
from openrpt.engine.drawn import Drawn
from openrpt.engine.exported import checkpoint_weights, write_config, write_weights
from openrpt.engine.model import Model, Weights
from openrpt.engine.vllm.sampler import Asked
from openrpt.errors import UserError
from openrpt.files import replacing_folder, writing
from openrpt.http_json import ask

_AT_ONCE = 256
"""Most requests under way at the same time: vLLM batches them."""
_SAMPLE = "Let x_1 = 2;\n\tthen the sum, which we looked for, is 5.14 — naïve, isn't it?"
"""A text that two tokenizers hardly encode alike."""
_ELSEWHERE = "give another --engine.shared_folder"
_GOES_ON = "the same command goes on from the last checkpoint"


def open_server(model: Model, settings: EngineConfig, *, length: int, dtype: str) -> "Server":
    """Asks a server whether it can sample for a policy, whose model is written into the shared
    folder where it is not there yet.

    `length`: most tokens of a prompt and its completion; `dtype`: of the weights that are handed
    over. Raises UserError where the server does not answer, is not started as it says then, or
    serves something else.
    """
    address = settings.server.rstrip("/").removesuffix("/v1")
    if not address.startswith(("http://", "https://")):
        raise UserError(f"engine.server = '{settings.server}': no address; give http://HOST:PORT")
    if not settings.shared_folder:
        raise UserError(
            "engine.server needs engine.shared_folder: a folder that the server sees under the same"
            " path, through which it gets the weights"
        )
    folder = Path(settings.shared_folder).absolute()
    precision: torch.dtype = getattr(torch, dtype)
    served = folder / "model"
    if not served.is_dir():
        _write_model(model, served, precision)
    server = Server(
        address=address,
        folder=folder,
        dtype=precision,
        tries=settings.retries + 1,
        seconds=settings.timeout,
        start=f"VLLM_SERVER_DEV_MODE=1 vllm serve {served} --dtype {dtype} --max-model-len {length}"
        " --logprobs-mode processed_logprobs --generation-config vllm",
    )
    _require_same(server, model, served, length)
    return server


def _write_model(model: Model, folder: Path, dtype: torch.dtype) -> None:
    with replacing_folder(folder, advice=_ELSEWHERE) as partial:
        write_config(model, partial)
        write_weights(checkpoint_weights(model), partial, dtype)
        model.tokenizer.save_pretrained(partial)


def _require_same(server: "Server", model: Model, folder: Path, length: int) -> None:
    """Checks that a server serves this folder, with the policy's tokenizer, takes weights, and
    gives log-probabilities at the temperature. Raises UserError."""

    def wrong(what: str) -> UserError:
        return UserError(f"{server.address}: {what}; start it anew: {server.start}")

    about = server.read("/v1/models")["data"][0]
    server.served = str(about["id"])
    if about["root"] != str(folder):
        raise wrong(f"the server has another model, {about['root']}")
    if about["max_model_len"] < length:
        raise wrong(f"it takes {about['max_model_len']} tokens, and a rollout can have {length}")
    try:
        facts = server.read("/server_info?config_format=json")["vllm_config"]["model_config"]
    except UserError as error:
        if " 404 " not in str(error):
            raise
        raise wrong("the server takes no weights") from None
    if facts["logprobs_mode"] != "processed_logprobs":
        raise wrong(f"it gives {facts['logprobs_mode']}, not those at the temperature")
    body = {"model": server.served, "prompt": _SAMPLE, "add_special_tokens": False}
    theirs = server.post("/tokenize", body)["tokens"]
    if theirs != model.tokenizer.encode(_SAMPLE, add_special_tokens=False):
        raise UserError(
            f"{server.address}: the model in {folder} has another tokenizer than the policy"
            f" '{model.name}': {_ELSEWHERE}, and serve what is written there"
        )


@dataclass(kw_only=True, eq=False)
class Server:
    """A vLLM behind an address (`openrpt.engine.vllm.sampler.Backend`)."""

    address: str
    folder: Path
    """What the server sees, too."""
    dtype: torch.dtype
    """Precision in which weights are handed over."""
    tries: int
    seconds: float
    start: str
    """The command by which it is started."""
    served: str = ""
    """The model's name on the server."""
    weights: str = ""
    """The name under which the server has this run's weights; empty = it has none yet."""

    def complete(self, asked: Sequence[Asked], *, temperature: float) -> list[Drawn]:
        """Returns what the server draws for each, a request a rollout: `Backend.complete`."""
        if not asked:
            return []
        with ThreadPoolExecutor(min(len(asked), _AT_ONCE)) as pool:
            drawn = list(pool.map(lambda one: self._one(one, temperature), asked))
        found = self.read("/weight_info")["weight_version"]
        if found != self.weights:
            raise UserError(
                f"{self.address}: the server has the weights '{found}', not this run's"
                f" '{self.weights}': it was started anew, or another run uses it; {_GOES_ON}, with"
                " a server of its own"
            )
        return drawn

    def load(self, weights: Weights) -> None:
        """Writes the weights into the folder, and lets the server read them: `Backend.load`."""
        name = f"weights-{uuid.uuid4().hex[:12]}"
        path = self.folder / name
        with writing(self.folder, _ELSEWHERE):
            path.mkdir(parents=True)
            write_weights(weights, path, self.dtype)
        try:
            kwargs = {"weights_path": str(path)}
            self.post("/collective_rpc", {"method": "reload_weights", "kwargs": kwargs}, tries=1)
        except UserError as error:
            raise UserError(
                f"the server can't take the weights in {path}: does it see that folder under the"
                f" same path, and is its model the policy's? Start it anew in any case ({error})"
            ) from None
        finally:
            shutil.rmtree(path, ignore_errors=True)
        if not self.post("/reset_prefix_cache", {})["success"]:
            raise UserError(
                f"{self.address}: the server still draws for someone else, so it keeps what it"
                " cached with older weights; give this run a server of its own"
            )
        self.post("/update_weight_version", {"new_version": name})
        self.weights = name

    def rest(self) -> None:
        """Does nothing: the server's memory is its own."""

    def read(self, path: str) -> Any:
        """Returns what the server says there. Raises UserError."""
        url, advice = self.address + path, f"{_GOES_ON}; the server's own: {self.start}"
        return ask(url, tries=self.tries, seconds=self.seconds, advice=advice)

    def post(self, path: str, body: dict[str, Any], *, tries: int | None = None) -> Any:
        """Returns what the server answers to a body. Raises UserError."""
        url, advice = self.address + path, f"{_GOES_ON}; the server's own: {self.start}"
        return ask(url, body, tries=tries or self.tries, seconds=self.seconds, advice=advice)

    def _one(self, asked: Asked, temperature: float) -> Drawn:
        body = {
            "model": self.served,
            "prompt": list(asked.prompt_ids),
            "max_tokens": asked.tokens,
            "temperature": temperature,
            "stop_token_ids": list(asked.stop_ids),
            "ignore_eos": True,  # the stops are all named
            "seed": asked.seed,
            "logprobs": 0,  # the drawn token's alone
            "return_token_ids": True,
            # Whatever the model's own generation_config asks for:
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }
        reply = self.post("/v1/completions", body)
        try:
            (choice,) = reply["choices"]
            ids, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{self.address}/v1/completions: no token ids and log-probabilities in the reply:"
                " is it vLLM 0.32 or later?"
            ) from None
        whole = len(ids) == asked.tokens or (ids and ids[-1] in asked.stop_ids)
        if not whole or len(logprobs) != len(ids):
            raise UserError(
                f"{self.address}: the server ended a completion after {len(ids)} of {asked.tokens}"
                f" tokens, at none of the policy's stop tokens; start it anew: {self.start}"
            )
        return Drawn(token_ids=ids, logprobs=logprobs)
