"""vLLM's sampler against the tree, over a server of the same protocol; and what it refuses."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openrpt.config.engine import EngineConfig
from openrpt.config.model import ModelConfig
from openrpt.data.tokens import token_table
from openrpt.engine.course import Course, Rules
from openrpt.engine.decoded import Said
from openrpt.engine.drawn import Drawn
from openrpt.engine.engine import Engine, bind
from openrpt.engine.exported import checkpoint_weights
from openrpt.engine.loading import load_model
from openrpt.engine.replay import replay
from openrpt.engine.samplers import open_sampler
from openrpt.engine.vllm.sampler import Asked, VLLMSampler
from openrpt.engine.vllm.server import open_server
from openrpt.errors import UserError
from openrpt.rl.weight_sync import WeightSync
from tests.helpers.fake_vllm import FakeVLLM, fake_vllm
from tests.helpers.tiny import byte_level_tokenizer
from tests.helpers.tiny_model import tiny_model_folder
from tests.helpers.updates import config_of
from tests.helpers.vllm_cases import CASES, Case, assert_same, drawn_ids, require_covered

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft

Opened = tuple[Engine, FakeVLLM]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose greedy tokens differ from place to place."""
    return tiny_model_folder(tmp_path_factory.mktemp("vllm") / "m", initializer_range=0.4)


@pytest.fixture
def opened(folder: Path) -> Iterator[Opened]:
    """The tree's engine, and a server with the same model."""
    engine = bind("tree", load_model(ModelConfig(path=str(folder), threads=1, device="cpu")))
    with fake_vllm(folder) as server:
        yield engine, server


def sampler_of(opened: Opened, shared: Path, *, length: int = 100, **keys: Any) -> VLLMSampler:
    """A sampler of the server that has the engine's weights."""
    engine, server = opened
    server.root = server.root or str(shared / "model")
    options = {"server": server.address, "shared_folder": str(shared), "retries": 0} | keys
    settings = EngineConfig(sampler="vllm", **options)
    backend = open_server(engine.model, settings, length=length, dtype="float32")
    sampler = VLLMSampler(engine=engine, backend=backend)
    sampler.load(checkpoint_weights(engine.model))
    return sampler


@pytest.mark.parametrize("name", CASES)
def test_greedy_completions_are_the_trees(name: str, opened: Opened, tmp_path: Path) -> None:
    engine, _ = opened
    case = Case.of(name, engine)
    expected = case.generate(engine, engine)
    require_covered(name, expected)
    sampler = sampler_of(opened, tmp_path)
    assert_same(case.generate(sampler, engine), expected, tolerance=1e-4)
    assert not sampler.exact_draws
    assert [one.name for one in tmp_path.iterdir()] == ["model"]  # weights do not stay


def test_draws_depend_on_the_key_alone(opened: Opened, tmp_path: Path) -> None:
    engine, server = opened
    case = Case()
    case = replace(case, sampling=replace(case.sampling, temperature=0.7))
    sampler = sampler_of(opened, tmp_path)
    first = case.generate(sampler, engine)
    one = replace(
        case, request=replace(case.request, prefix_lengths=(4,), keys=case.request.keys[:1])
    )
    assert one.generate(sampler, engine)[0].completions == first[0].completions
    drawn = [drawn_ids(c) for outcome in first for c in outcome.completions]
    assert len({tuple(ids) for ids in drawn}) == len(drawn)
    seeds = [body["seed"] for path, body in server.asked if path == "/v1/completions"][:12]
    assert len(set(seeds)) == 12 and min(seeds) >= 0  # the second call has another
    logprobs = first[0].completions[0].sampler_logprobs
    assert all((p < 0) == free for p, free in zip(logprobs, case_mask(first), strict=True))


def case_mask(outcomes: Sequence[Any]) -> tuple[bool, ...]:
    return outcomes[0].completions[0].loss_mask


class Scripted:
    """A backend that says the next token by a rule."""

    def __init__(self, rule: Sequence[int]) -> None:
        self.rule = rule

    def next(self, ids: Sequence[int]) -> int:
        return self.rule[(3 * sum(ids) + len(ids)) % len(self.rule)]

    def complete(self, asked: Sequence[Asked], *, temperature: float) -> list[Drawn]:
        found = []
        for one in asked:
            ids: list[int] = []
            while len(ids) < one.tokens and (not ids or ids[-1] not in one.stop_ids):
                ids.append(self.next([*one.prompt_ids, *ids]))
            found.append(Drawn(token_ids=ids, logprobs=[-1.0] * len(ids)))
        return found

    def rest(self) -> None: ...


@given(
    rule=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    end=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    think=st.integers(0, 6),
    prediction=st.integers(1, 5),
    close=st.integers(0, 4),
    opening=st.integers(0, 2),
)
def test_two_calls_give_the_course_token_by_token(
    rule: list[int], end: list[int], think: int, prediction: int, close: int, opening: int
) -> None:
    """Stops, thoughts that end themselves in one token or several, both budgets; 4 is a stop."""
    rules = Rules(
        close=torch.tensor([9] * close, dtype=torch.long),
        end=torch.tensor(end),
        stops=torch.tensor([4]),
        think_budget=think,
        prediction_budget=prediction,
        box_tokens=min(opening, close),
    )
    backend = Scripted(rule)
    prompt = (7, 8)
    course = Course.begin(rules, keys=torch.zeros(1).long(), row_of=torch.zeros(1).long())
    ids, mask, stopped = [], [], False
    while len(course.alive):
        drawn = torch.tensor([backend.next([*prompt, *ids])])
        ids.append(int(course.next_ids(drawn)))
        mask.append(bool(course.free))
        after = course.after(torch.tensor(ids[-1:]))
        stopped = bool(after.stopped)
        course = after.going_on()
    sampler = VLLMSampler(engine=None, backend=backend)  # type: ignore[arg-type]
    found = sampler._draw([prompt], [-5], rules, temperature=1.0)
    said = Said(table=token_table(byte_level_tokenizer()), literal={}, until=(), texts=[b""])
    (decoded,) = replay(found, rules, said)
    assert (decoded.token_ids, decoded.loss_mask, decoded.stopped) == (ids, mask, stopped)


def test_weights_are_handed_over_when_they_are_too_old(opened: Opened, tmp_path: Path) -> None:
    engine, server = opened
    sync = WeightSync(sampler=sampler_of(opened, tmp_path), policy=engine, max_staleness=1)
    with torch.no_grad():
        for parameter in engine.model.network.parameters():
            parameter.mul_(1.1)
    before = server.weight_version
    assert [sync.policy_version(step) for step in (4, 5, 6, 7, 8)] == [3, 3, 5, 5, 7]
    assert sync.sampler.version == 1 + 3 and server.weight_version != before
    case = Case()
    expected = case.generate(engine, engine)
    assert_same(case.generate(sync.sampler, engine), expected, tolerance=1e-4)


def test_a_busy_server_is_asked_again(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("openrpt.http_json.time.sleep", waits.append)
    engine, server = opened
    sampler = sampler_of(opened, tmp_path, retries=3)
    server.busy = 3
    case = Case()
    assert case.generate(sampler, engine)[0].completions
    assert waits and set(waits) <= {1, 2, 4}
    server.busy = 10_000
    with pytest.raises(UserError, match=r"503 loading: .*; the same command goes on") as error:
        case.generate(sampler, engine)
    assert "\n" not in str(error.value)


def test_adapters_are_handed_over_merged(folder: Path) -> None:
    pytest.importorskip("peft")
    settings = ModelConfig(path=str(folder), threads=1, device="cpu", lora_rank=2)
    model, plain = load_model(settings, trained=True), load_model(ModelConfig(path=str(folder)))
    with torch.no_grad():
        for name, parameter in model.trained().items():
            parameter.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    weights = checkpoint_weights(model)
    assert weights.keys() == checkpoint_weights(plain).keys()
    plain.network.load_state_dict(dict(weights))
    ids = torch.tensor([[5, 9, 80]])
    with torch.no_grad():
        merged, found = model.network(ids).logits, plain.network(ids).logits
    assert torch.allclose(merged, found, atol=1e-4)


def test_several_processes_are_refused(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, layout = opened[0], Case().layout
    config = config_of(engine__sampler="vllm")
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 4)
    with pytest.raises(UserError, match="one trainer's process, and there are 4; train with"):
        open_sampler(engine, config, layout)


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "not an address": ({}, {"server": "localhost:8000"}, "no address; give http://HOST:PORT"),
    "no folder": ({}, {"shared_folder": ""}, "engine.server needs engine.shared_folder"),
    "too short": (
        {"max_model_len": 60},
        {},
        "it takes 60 tokens, and a rollout can have 100; start",
    ),
    "no development mode": (
        {"dev_mode": False},
        {},
        "takes no weights; start it anew: VLLM_SERVER",
    ),
    "raw log-probabilities": (
        {"logprobs_mode": "raw_logprobs"},
        {},
        "gives raw_logprobs, not those at the temperature; start",
    ),
    "another model": ({"root": "/other"}, {}, "has another model, /other; start it anew: "),
    "a cache that stays": ({"holds": True}, {}, "still draws for someone else"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_server_that_does_not_serve_is_named(name: str, opened: Opened, tmp_path: Path) -> None:
    behaviour, keys, message = WRONG[name]
    for key, value in behaviour.items():
        setattr(opened[1], key, value)
    with pytest.raises(UserError, match=message) as error:
        sampler_of(opened, tmp_path, **keys)
    assert "\n" not in str(error.value)


def test_no_server(opened: Opened, tmp_path: Path) -> None:
    """What is to be served is there already, and the command that serves it is said."""
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/v1/models: .*[Rr]efused") as error:
        sampler_of(opened, tmp_path, server="http://127.0.0.1:9")
    command = f"VLLM_SERVER_DEV_MODE=1 vllm serve {tmp_path}/model --dtype float32"
    assert command in str(error.value) and (tmp_path / "model" / "config.json").is_file()


def test_another_tokenizer(opened: Opened, tmp_path: Path) -> None:
    opened[1].tokenizer = byte_level_tokenizer(vocab_size=300)
    with pytest.raises(UserError, match="has another tokenizer than the policy"):
        sampler_of(opened, tmp_path)


def test_another_model(opened: Opened, tmp_path: Path) -> None:
    """Its weights do not fit: the server fails, and the folder is left empty."""
    other = tiny_model_folder(tmp_path / "other", hidden_size=32, head_dim=8)
    shared = tmp_path / "shared"
    with fake_vllm(other) as server, pytest.raises(UserError) as error:
        sampler_of((opened[0], server), shared)
    assert "can't take the weights in" in str(error.value) and "\n" not in str(error.value)
    assert [one.name for one in shared.iterdir()] == ["model"]


def test_weights_of_another_run(opened: Opened, tmp_path: Path) -> None:
    sampler = sampler_of(opened, tmp_path)
    opened[1].weight_version = "theirs"
    with pytest.raises(UserError, match="has the weights 'theirs', not this run's 'weights-"):
        Case().generate(sampler, opened[0])


def test_a_completion_that_ends_at_no_stop(opened: Opened, tmp_path: Path) -> None:
    sampler = sampler_of(opened, tmp_path)
    opened[1].cut = True
    with pytest.raises(UserError, match="after 7 of 8 tokens, at none of the policy's stop tokens"):
        Case().generate(sampler, opened[0])
