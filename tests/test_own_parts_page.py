"""The examples of docs/own_parts.md run as they stand there."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from openrpt.cli.main import main
from openrpt.runs.run import Run
from tests.helpers.own_module import write_module
from tests.helpers.tiny_model import copied_run, tiny_model_folder, tiny_run

PAGE = (Path(__file__).parents[1] / "docs" / "own_parts.md").read_text(encoding="utf-8")


class Example(NamedTuple):
    module: str
    code: str
    command: list[str]


def examples() -> dict[str, Example]:
    """Each section's module and the command that names it."""
    found = {}
    for section in PAGE.split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        for code, command in re.findall(r"```python\n(.+?)```\n+```\n(.+?)\n```", text, re.DOTALL):
            module = re.match(r"# (\w+)\.py\n", code)
            assert module, title
            found[title] = Example(module[1], code, shlex.split(command))
    return found


EXAMPLES = examples()
ROWS = re.findall(r"^\| \[`([\w.]+)`\]\(#([\w-]+)\) \|[^|]+\| ([^|]+) \|", PAGE, re.MULTILINE)
READABLE = {key: names for key, _, names in ROWS if names != "nothing"}
SETTINGS = {"train__steps": 1, "train__documents_per_step": 1, "warmup__steps": 1}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("page")
    tiny_model_folder(folder / "model", max_position_embeddings=256)
    return tiny_run(folder, **SETTINGS)


def test_every_part_has_its_example() -> None:
    anchors = [anchor for _, anchor, _ in ROWS]
    assert anchors == [title.lower().replace(" ", "-") for title in EXAMPLES]
    assert len(anchors) == 6 and len(READABLE) == 5


@pytest.mark.parametrize("key", READABLE)
def test_what_a_part_may_read_is_what_the_page_says(
    scored: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
) -> None:
    write_module(tmp_path, monkeypatch, "def asks(nothing_such): ...\n")
    more = ["--reward.terms", "segment=1"] if key == "reward.segment_judge" else []
    value = "mine:asks=1" if key == "reward.terms" else "mine:asks"
    with pytest.raises(SystemExit) as stop:
        main(["train", "--run", str(scored.path), *more, f"--{key}", value])
    assert stop.value.code == 2
    names = ", ".join(re.findall(r"`(\w+)`", READABLE[key]))
    assert f"{key}: 'mine:asks'" in (said := capsys.readouterr().err)
    assert f"it may read {names}, by keyword" in said


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_runs(
    scored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, title: str
) -> None:
    example = EXAMPLES[title]
    write_module(tmp_path, monkeypatch, example.code, name=example.module)
    openrpt, stage, run_option, _, *options = example.command
    assert (openrpt, run_option) == ("openrpt", "--run")
    assert any(f"{example.module}:" in option for option in options)
    run = copied_run(scored, title.replace(" ", "-"), **SETTINGS)
    with pytest.raises(SystemExit) as stop:
        main([stage, "--run", str(run.path), *options, "--train.steps", "1"])
    assert stop.value.code == 0
