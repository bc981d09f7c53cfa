"""What a new user meets: a typo leaves nothing behind, and the corrected command works."""

from collections.abc import Callable
from pathlib import Path

import pytest

from openrpt.cli.main import main
from openrpt.config.loading import to_toml
from openrpt.files import write_text
from tests.helpers.tiny_model import tiny_config

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(str(stopped.value.code or 0)), captured.out, captured.err

    return call


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """The file of a tiny run that is not there yet."""
    config = tiny_config(
        tmp_path,
        corpus__heldout_fraction=0.3,
        train__steps=2,
        warmup__steps=1,
        evaluate__min_entropy=0.0,
        evaluate__positions=20,
        selection__min_entropy=0.0,
    )
    write_text(tmp_path / "tiny.toml", to_toml(config))
    return tmp_path / "tiny.toml"


def refused(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert (code, out) == (2, ""), err
    return err.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "typo", "said"),
    [
        ("score", ["--model.path", "{}/modell"], "no such model folder"),
        ("score", ["--model.path", "nosuchmodel"], "no such folder or file here"),
        ("score", ["--score.model", "{}/modell.gguf"], "no such GGUF file"),
        ("score", ["--corpus.path", "{}/corpos.jsonl"], "no such file or folder"),
        ("score", ["--corpus.heldout_path", "{}/corpos.jsonl"], "no such file or folder"),
        ("score", ["--corpus.template", "{{txt}}"], "field 'txt' is missing"),
        ("warmup", ["--warmup.traces", "{}/traces.jsonl"], "No such file"),
        ("train", ["--reward.terms", "prefx=1"], "prefix"),
        ("pretrain", ["--pretrain.match", "{}/nosuchrun"], "not a run folder"),
        ("finetune", ["--questions.path", "{}/questions.jsonl"], "no such file"),
        ("evaluate start", ["--scores", "{}/scores"], "no scores here"),
        ("coding start", ["--model.path", "{}/modell"], "no such model folder"),
        ("zeroshot start", ["--zeroshot.tasks", "nosuch"], "no task 'nosuch'"),
        ("zeroshot start", ["--model.path", "{}/modell", "--zeroshot.tasks", "math"], "no such"),
    ],
)
def test_a_typo_leaves_no_folder(
    run: Run, toml: Path, command: str, typo: list[str], said: str
) -> None:
    typos = [part.format(toml.parent) for part in typo]
    error = refused(run(*command.split(), "--config", toml, *typos))
    assert said in error
    assert not (toml.parent / "run").exists()


def test_a_typo_leaves_a_standing_run_as_it_was(run: Run, toml: Path) -> None:
    assert run("score", toml)[0] == 0
    stored = toml.parent / "run" / "config.toml"
    before = stored.read_text(encoding="utf-8")
    refused(run("warmup", toml, "--warmup.traces", toml.parent / "nosuch.jsonl"))
    assert stored.read_text(encoding="utf-8") == before


def test_a_key_that_left_nothing_to_score_can_be_mended(run: Run, toml: Path) -> None:
    error = refused(run("score", toml, "--corpus.min_tokens", 1000))
    assert "no document can be scored" in error and "corpus.min_tokens" in error
    assert run("score", toml, "--corpus.min_tokens", 20)[0] == 0


def test_a_configuration_that_is_missing_is_said_to_be(run: Run, toml: Path) -> None:
    assert "no such configuration file" in refused(run("warmup", toml.parent / "nosuch.toml"))
    assert "no such file" in refused(run("warmup", toml.parent / "tiny.tomll"))
    assert run("score", toml)[0] == 0
    folder = toml.parent / "run"
    assert f"say --run {folder}" in refused(run("warmup", folder))
