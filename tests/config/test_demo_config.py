"""`recipe:demo` is the demo's recipe, word for word, and what it shows as defaults are."""

import re
import tomllib
from pathlib import Path

import pytest

from openrpt.config.loading import flatten, load_config, with_overrides
from openrpt.config.recipes import config_path
from openrpt.config.sections import Config
from openrpt.errors import UserError
from openrpt.experiments.demo import CLOCK, Clock, config_in, demo_config
from openrpt.runs.run import Run, open_run

PATH = config_path("recipe:demo")


def test_the_file_is_the_demos_recipe() -> None:
    found, wanted = load_config(PATH), demo_config(15.0)
    assert found.run != wanted.run, "stages run by hand do not write into the demo's folder"
    own = {"run": wanted.run, "warmup.traces": wanted.warmup.traces}
    assert load_config(PATH, overrides=own) == wanted
    assert Path(wanted.warmup.traces).parent == Path(wanted.run)


def test_commented_keys_show_their_defaults() -> None:
    text = PATH.read_text(encoding="utf-8")
    # "# dtype = …" is a key that is commented out; prose has no such shape.
    shown = tomllib.loads(re.sub(r"(?m)^# (\w+ = )", r"\1", text))
    defaults = flatten(Config().model_dump(mode="json"))
    given = flatten(tomllib.loads(text))
    extra = {key: value for key, value in flatten(shown).items() if key not in given}
    assert len(extra) >= 4
    assert extra == {key: defaults[key] for key in extra}


def test_another_budget_goes_on_with_the_same_demo(tmp_path: Path) -> None:
    """What was scored and where it is evaluated stays; elsewhere the budget decides."""
    folder = tmp_path / "demo"
    first = open_run(config_in(folder, 15.0), min_free_bytes=0)
    assert config_in(folder, 60.0) != first.config  # nothing of a demo stands there yet
    Clock.open(first, 15.0).save()
    assert config_in(folder, 60.0) == first.config
    assert open_run(config_in(folder, 60.0), min_free_bytes=0).config == first.config
    assert Clock.open(first, 60.0).budget == 3600
    assert config_in(tmp_path / "other", 60.0).evaluate.positions > first.config.evaluate.positions


@pytest.mark.parametrize("has_clock", [True, False])
def test_a_run_that_is_no_demo_is_refused_at_once(tmp_path: Path, has_clock: bool) -> None:
    """One's own; the demo of an earlier version has a clock, too."""
    config = with_overrides(demo_config(15.0, tmp_path), {"corpus.path": "reasoning-gym:gcd"})
    run = open_run(config, min_free_bytes=0)
    if has_clock:
        Clock.open(run, 15.0).save()
    with pytest.raises(
        UserError, match=r"not this version's demo .* another folder \(--run\)"
    ) as e:
        config_in(tmp_path, 15.0)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"seconds": "x"}', '{"seconds": -1}', '{"stages": 3}', "[" * 100_000, "\xff"],
    ids=lambda text: text[:20],
)
def test_a_damaged_clock_is_one_line(tmp_path: Path, text: str) -> None:
    run = Run(path=tmp_path, config=demo_config(1.0, tmp_path))
    (tmp_path / CLOCK).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"demo\.json.*: damaged.*; delete it, and the budget") as e:
        Clock.open(run, 1.0)
    assert "\n" not in str(e.value)
    (tmp_path / CLOCK).unlink()  # as the message says
    clock = Clock.open(run, 1.0)
    clock.stages["score"] = 2.0
    clock.save()
    assert Clock.open(run, 1.0).stages == {"score": 2.0}
