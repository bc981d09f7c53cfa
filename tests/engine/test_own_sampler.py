"""A user's own sampler: gives what the engine behind it gives, and is held to the protocol."""

from pathlib import Path

import pytest

from openrpt.config.loading import load_config
from openrpt.config.sections import Config
from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine, Sampler, bind
from openrpt.engine.exported import checkpoint_weights
from openrpt.engine.generation import Generated
from openrpt.engine.loading import freeze
from openrpt.engine.samplers import open_sampler
from openrpt.errors import UserError
from openrpt.seeding import keys_of
from tests.helpers.byte_policy import policy_of
from tests.helpers.own_module import write_module
from tests.helpers.updates import config_of, layout_of, work_of

MODULE = """
import math, sys
from dataclasses import replace
from types import SimpleNamespace
from openrpt.errors import UserError

class Wrapped:
    exact_draws, version = True, 0
    def __init__(self, engine): self.engine = engine
    def load(self, weights): self.version += len(weights) > 0
    def generate_each(self, requests, layout, sampling):
        yield from self.engine.generate_each(requests, layout, sampling)

class Delegating:
    def __init__(self, engine, config, layout): self.engine = engine
    def __getattr__(self, name): return getattr(self.engine, name)

def itself(engine): return engine
def makes(engine, **others): assert set(others) == {"config", "layout"}; return Wrapped(engine)

class Part:
    exact_draws, version = True, 0
    def __init__(self, engine): pass
    def load(self, weights): pass

class Value(Part):
    generate_each = 3

class Raising(Part):
    @property
    def version(self): raise RuntimeError("not yet")

def lacking(*names):
    members = {"exact_draws": True, "version": 0, "load": print, "generate_each": print}
    return lambda engine: SimpleNamespace(**{k: v for k, v in members.items() if k not in names})
lacks_nothing, lacks_exact_draws, lacks_version = map(lacking, ("", "exact_draws", "version"))
lacks_load, lacks_generate_each = map(lacking, ("load", "generate_each"))

def nothing(engine): return None
def divides(engine): return 1 / 0
def asks(model): return model

class Spoilt(Wrapped):
    def generate_each(self, requests, layout, sampling):
        for outcomes in super().generate_each(requests, layout, sampling):
            yield self.spoilt(outcomes)
    def spoilt(self, outcomes): return outcomes

class Fewer(Spoilt):
    def generate_each(self, requests, layout, sampling):
        yield from super().generate_each(requests[:1], layout, sampling)
class More(Spoilt):
    def generate_each(self, requests, layout, sampling):
        yield from super().generate_each([*requests, requests[0]], layout, sampling)
class Late(Spoilt):
    def generate_each(self, requests, layout, sampling):
        yield from super().generate_each(requests[:1], layout, sampling)
        raise ValueError("no more")
class AtOnce(Spoilt):
    def generate_each(self, requests, layout, sampling): return 1 / 0
class Exits(Spoilt):
    def generate_each(self, requests, layout, sampling): sys.exit(2)
class Told(Spoilt):
    def generate_each(self, requests, layout, sampling): raise UserError("the server is gone")
class Unloaded(Wrapped):
    def load(self, weights): raise OSError("no room")
class NoPositions(Spoilt):
    def spoilt(self, outcomes): return outcomes[:2]
class NoOutcomes(Spoilt):
    def spoilt(self, outcomes): return [outcomes[0], "text", outcomes[2]]
class FewRollouts(Spoilt):
    def spoilt(self, outcomes):
        return [replace(one, completions=one.completions[:2]) for one in outcomes]

class OneSpoilt(Spoilt):
    # Rollout 1 of position 2 alone.
    def spoilt(self, outcomes):
        a, b, c = outcomes[2].completions
        return [*outcomes[:2], replace(outcomes[2], completions=(a, self.other(b), c))]
class NoCompletion(OneSpoilt):
    def other(self, one): return one.token_ids
class Lists(OneSpoilt):
    def other(self, one): return replace(one, token_ids=list(one.token_ids))
class Uneven(OneSpoilt):
    def other(self, one): return replace(one, loss_mask=one.loss_mask[1:])
class Unknown(OneSpoilt):
    def other(self, one): return replace(one, token_ids=(10**6, *one.token_ids[1:]))
class NoNumber(OneSpoilt):
    def other(self, one):
        return replace(one, sampler_logprobs=(math.nan, *one.sampler_logprobs[1:]))
class Long(OneSpoilt):
    def other(self, one):
        return replace(one, token_ids=one.token_ids * 9, loss_mask=one.loss_mask * 9,
                       sampler_logprobs=one.sampler_logprobs * 9)
class Flags(OneSpoilt):
    def other(self, one): return replace(one, loss_mask=(1,) * len(one.loss_mask))
class Finish(OneSpoilt):
    def other(self, one): return replace(one, finish_reason="eos")
class OtherSeed(OneSpoilt):
    def other(self, one):
        return replace(one, token_ids=(one.token_ids[0] + 1, *one.token_ids[1:]))
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path, monkeypatch, MODULE)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return bind("tree", freeze(policy_of("llama")))


def config_with(name: str) -> Config:
    return config_of(engine__sampler=f"mine:{name}")


def opened(name: str, engine: Engine) -> tuple[Sampler, Layout]:
    config = config_with(name)
    layout = layout_of(engine.model, config)
    return open_sampler(engine, config, layout), layout


def generated(name: str, engine: Engine) -> list[list[Generated]]:
    sampler, layout = opened(name, engine)
    return drawn(sampler, layout, config_with(name))


def drawn(sampler: Sampler, layout: Layout, config: Config) -> list[list[Generated]]:
    requests: list[Request] = []
    for seed in (0, 1):
        work = work_of(seed)
        requests.append(work.request(layout, [keys_of(3, seed, p.index) for p in work.positions]))
    sampling = Sampling.of(config.prompt, temperature=1.0)
    return list(sampler.generate_each(requests, layout, sampling))


def test_every_member_of_the_protocol_is_needed(engine: Engine) -> None:
    assert opened("lacks_nothing", engine)
    for name in vars(Sampler):
        if not name.startswith("_"):
            with pytest.raises(UserError, match=f"it has no (method|attribute) '{name}' "):
                opened(f"lacks_{name}", engine)


@pytest.mark.parametrize("name", ["Wrapped", "Delegating", "makes"])
def test_one_around_the_engine_gives_what_the_engine_gives(name: str, engine: Engine) -> None:
    sampler, layout = opened(name, engine)
    assert sampler is not engine and sampler.exact_draws
    config = config_with(name)
    assert drawn(sampler, layout, config) == drawn(engine, layout, config)


def test_it_is_given_weights(engine: Engine) -> None:
    sampler, _ = opened("Wrapped", engine)
    before = sampler.version
    sampler.load(checkpoint_weights(engine.model))
    assert sampler.version == before + 1


def test_the_engine_itself_may_be_given(engine: Engine) -> None:
    assert opened("itself", engine)[0] is engine


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Part", "gave <mine.Part .*>, which is no sampler: it has no method 'generate_each'"),
        ("Value", "which is no sampler: it has no method 'generate_each'"),
        ("Raising", "which is no sampler: it has no attribute 'version'"),
        ("nothing", "gave None, which is no sampler: it has no attribute 'exact_draws'"),
        ("divides", r"raised ZeroDivisionError \(division by zero\)"),
        ("asks", "asks for 'model', which is unknown: it may read engine, config, layout"),
        ("wrapped", "module 'mine' has no function 'wrapped'; nearest: 'Wrapped'"),
    ],
)
def test_what_is_no_sampler_is_refused(name: str, said: str, engine: Engine) -> None:
    with pytest.raises(UserError, match=f"'mine:{name}'.*{said}") as error:
        opened(name, engine)
    assert "engine.sampler" in str(error.value) and "\n" not in str(error.value)


PLACE = "in generate_each, request 0, position 2, rollout 1 "


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Fewer", "ended after 1 of 2 requests, in generate_each "),
        ("More", "goes on after all 2 requests, in generate_each "),
        ("Late", r"raised ValueError \(no more\) in generate_each "),
        ("AtOnce", r"raised ZeroDivisionError \(.*\) in generate_each "),
        ("Exits", r"raised SystemExit \(2\) in generate_each "),
        ("NoPositions", "not a list of 3 Generated, in generate_each, request 0 "),
        ("NoOutcomes", "gave 'text', not a Generated with 3 completions, .*request 0, position 1 "),
        ("FewRollouts", "not a Generated with 3 completions, .*request 0, position 0 "),
        ("NoCompletion", rf"gave a completion that is \(\d.*, {PLACE}"),
        ("Lists", f"whose token_ids, .* are no tuples, {PLACE}"),
        ("Uneven", rf"of (\d+) tokens, \1 log-probabilities, \d+ of loss_mask, {PLACE}"),
        ("Unknown", rf"with a token that is none of the model's \d+, {PLACE}"),
        ("NoNumber", f"with a log-probability that is no finite float, {PLACE}"),
        ("Long", rf"of \d+ tokens, where the prompt's budgets allow \d+, {PLACE}"),
        ("Flags", f"with a loss_mask that is not of bools, {PLACE}"),
        ("Finish", f"whose finish_reason is 'eos', not 'stop' or 'length', {PLACE}"),
        ("OtherSeed", "do not begin with the same forced tokens, .*request 0, position 2 "),
    ],
)
def test_what_does_not_fit_is_one_line_that_says_where(
    name: str, said: str, engine: Engine
) -> None:
    with pytest.raises(UserError, match=f"^'mine:{name}' .*{said}") as error:
        generated(name, engine)
    assert "(engine.sampler" in str(error.value) and "\n" not in str(error.value)


def test_what_openrpts_own_code_says_in_it_stays_as_it_is(engine: Engine) -> None:
    with pytest.raises(UserError, match=r"^the server is gone$"):
        generated("Told", engine)


def test_weights_that_are_not_taken(engine: Engine) -> None:
    sampler, _ = opened("Unloaded", engine)
    with pytest.raises(UserError, match=r"^'mine:Unloaded' raised OSError \(no room\) in load \("):
        sampler.load({})


def test_what_it_goes_with() -> None:
    config = load_config(overrides={"engine.sampler": "mine:Wrapped", "model.dtype": "float64"})
    assert config.importance_correction == "truncate"
    exact = {
        "engine.sampler": "mine:Wrapped",
        "train.answer_gradient": "exact",
        "train.algorithm": "dr_grpo",
        "reward.terms": {"expected": 1.0},
    }
    with pytest.raises(UserError, match=r"needs engine\.sampler = 'same'"):
        load_config(overrides=exact)
