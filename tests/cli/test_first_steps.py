"""What a new user meets: a typo leaves nothing behind, and the corrected command works."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from openrpt.cli.main import main
from openrpt.config.loading import to_toml
from openrpt.engine import cpu
from openrpt.files import write_text
from openrpt.runs import taken_over
from openrpt.runs.metrics import read_metrics
from openrpt.runs.rollouts import read_rollouts
from openrpt.runs.run import existing_run
from tests.cli.conftest import Run
from tests.helpers.tiny_model import tiny_config


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


# ---- keys ---------------------------------------------------------------------------------------


def test_a_file_may_name_the_keys_of_a_later_stage_alone(run: Run, toml: Path) -> None:
    assert run("score", toml)[0] == 0
    later = toml.parent / "later.toml"
    write_text(later, "[warmup]\nsteps = 2\n\n[prompt]\ncandidates = 2\n\n[train]\nsteps = 1\n")
    folder = toml.parent / "run"
    assert run("warmup", later, "--run", folder, "--warmup.learning_rate", "1e-3")[0] == 0
    stored = existing_run(folder).config
    assert (stored.warmup.steps, stored.prompt.candidates) == (2, 2)
    assert stored.warmup.learning_rate == 1e-3, "options go before the file"
    assert stored.corpus.path == str(toml.parent / "corpus.jsonl")


@pytest.fixture
def trained(run: Run, toml: Path) -> Path:
    for command in ("score", "warmup", "train"):
        assert run(command, toml)[0] == 0
    return toml.parent / "run"


def test_a_changed_key_that_helps_is_taken_and_recorded(run: Run, trained: Path) -> None:
    changes = ["--train.group_size", 3, "--selection.min_entropy", 0.25, "--train.steps", 3]
    code, _, said = run("train", "--run", trained, *changes)
    assert code == 0
    rows = [row for row in read_metrics(trained / "metrics.jsonl") if row["stage"] == "train"]
    assert rows[2]["changed"] == {
        "selection.min_entropy": {"before": 0.0, "now": 0.25},
        "train.group_size": {"before": 4, "now": 3},
    }
    assert "train: train.group_size = 3 from step 3 on (before: 4)" in said
    stored = read_rollouts(trained, 3, development=False).to_pylist()
    assert {row["rollout"] for row in stored} == {0, 1, 2}
    assert "train.group_size = 3 from step 3 on (before: 4)" in run("status", trained)[1]


def test_a_key_that_binds_comes_with_the_command_that_begins_anew(run: Run, trained: Path) -> None:
    error = refused(run("train", "--run", trained, "--train.temperature", 0.5))
    begin = error.partition("begin another run with it: ")[2].split()
    assert begin[:4] == ["openrpt", "train", "--from", str(trained)]
    assert run(*begin[1:])[0] == 0
    other = existing_run(Path(f"{trained}-2"))
    assert (other.config.train.temperature, len(read_metrics(other.metrics))) == (0.5, 3)
    for name in ("scored/positions-00000.parquet", "warmup/model.safetensors"):
        assert (other.path / name).samefile(trained / name), "linked, not copied"
    assert run(*begin[1:])[0] == 0, "the same command goes on"

    error = refused(run("train", "--run", trained, "--prompt.candidates", 2))
    begin = error.partition("begin another run with it: ")[2].split()
    assert begin[1:6] == ["warmup", "--from", str(trained), "--run", f"{trained}-3"]
    assert run(*begin[1:])[0] == 0
    assert existing_run(Path(f"{trained}-3")).config.prompt.candidates == 2


def test_nothing_silently_does_nothing(run: Run, trained: Path) -> None:
    for stage in ("score", "warmup", "train"):
        code, out, err = run(stage, "--run", trained)
        assert code == 0
        again = f"openrpt {stage} --from {trained} --run {trained}-2"
        assert (
            f"{trained}: {stage} was done before, and nothing now; to do it again: {again}" in err
        )
        assert out.splitlines()[-1] == f"next: openrpt evaluate start trained --run {trained}"
    on = err.partition("to go on: ")[2].splitlines()[0]
    assert on == f"openrpt train --run {trained} --train.steps 4"
    code, out, err = run(*on.split()[1:])
    assert code == 0 and "was done before" not in err
    assert "4 steps in" in out and "; reward 0.000 → " in out
    assert run("train", "--run", trained, "--warmup.learning_rate", 0.5)[0] == 0
    assert run("warmup", "--run", trained, "--warmup.time_limit", 9)[0] == 0
    made = existing_run(trained).config.warmup
    assert made.learning_rate != 0.5 and made.time_limit != 9, "as the warmup was made"
    before = (trained / "config.toml").read_text()
    _, out, err = run("train", "--run", trained, "--train.steps", 3, "--train.learning_rate", 3e-5)
    assert "was done before" in err and "load" not in err and out.startswith("4 steps in")
    again = f"--from {trained} --run {trained}-2 --train.steps 3 --train.learning_rate 3e-05"
    assert err.count(again) == 1, err
    assert (trained / "config.toml").read_text() == before, "as the 4 steps were made"
    none = ["--from", trained, "--run", f"{trained}-w", "--warmup.steps", 0]
    code, out, err = run("warmup", *none)
    assert code == 0 and "no step of warmup fits" in err and out.startswith("next: ")
    assert run("warmup", "--run", f"{trained}-w", "--warmup.steps", 1)[0] == 0, "it is not done"
    none = ["--from", trained, "--run", f"{trained}-0", "--train.steps", 0]
    code, out, err = run("train", *none)
    assert code == 0 and "no step of train fits" in err
    assert out.startswith("0 steps in 0 s\n")  # and no checkpoint, which there is none of


def test_each_command_says_which_comes_next(run: Run, toml: Path) -> None:
    folder = toml.parent / "run"
    commands = [
        "openrpt score",
        "openrpt warmup",
        "openrpt train",
        "openrpt evaluate start trained",
    ]
    command = [*commands[0].split()[1:], str(toml)]
    for after in [*commands[1:], "openrpt report"]:
        code, out, _ = run(*command)
        assert code == 0
        following = out.splitlines()[-1].removeprefix("next: ")
        assert following.startswith(after) and str(folder) in following
        command = following.split()[1:]
    assert run(*command)[0] == 0 and (folder / "report.html").is_file()


def test_a_warmup_behind_a_training_without_one_is_refused(run: Run, toml: Path) -> None:
    """That training would go on without it, and take it for its reference."""
    folder = toml.parent / "run"
    assert run("score", toml)[0] == 0
    code, _, err = run("train", "--run", folder, "--train.steps", 1)
    assert code == 0 and f"no warmup: the policy begins as {toml.parent / 'model'}" in err
    line = refused(run("warmup", "--run", folder))
    assert "its training began without a warmup" in line and not (folder / "warmup").exists()
    again = line.partition("openrpt warmup ")[2].split()
    result = run("warmup", *again)
    assert result[0] == 0, result
    code, _, err = run("train", "--run", again[-1], "--train.steps", 1)
    assert code == 0 and "no warmup" not in err
    assert run("train", "--run", folder, "--train.steps", 2)[0] == 0  # as it began


def test_where_no_document_is_held_out_no_evaluation_comes_next(run: Run, toml: Path) -> None:
    assert run("score", toml, "--corpus.heldout_fraction", 0)[0] == 0
    folder = toml.parent / "run"
    code, out, _ = run("train", "--run", folder, "--train.steps", 1)
    assert code == 0 and out.splitlines()[-1] == f"next: openrpt report {folder}"
    assert run(*out.splitlines()[-1].split()[2:])[0] == 0


def test_a_beginning_that_was_broken_off_goes_on(
    run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ["train", "--from", trained, "--run", trained.with_name("other")]
    with monkeypatch.context() as patched:
        patched.setattr(taken_over, "link_folder", lambda source, target: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main([str(part) for part in typed])
    assert run(*typed)[0] == 0
    assert len(read_metrics(trained.with_name("other") / "metrics.jsonl")) == 3


def test_a_run_begins_only_from_what_fits(run: Run, trained: Path) -> None:
    other = trained.with_name("other")
    for command, key in (("train", "prompt.candidates"), ("warmup", "corpus.limit")):
        error = refused(run(command, "--from", trained, "--run", other, f"--{key}", 2))
        assert key in error and f"--from {trained} --run {other} --{key} 2" in error
        assert not other.exists()
    assert "give its folder with --run" in refused(run("train", "--from", trained))
    assert "begins another run" in refused(run("train", "--from", trained, "--run", trained))
    weights = trained / "warmup" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    error = refused(run("train", "--from", trained, "--run", other))
    assert "damaged: its content has changed" in error
    assert not other.exists()


# ---- small traps --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["version"], "no command 'version'; nearest: '--version'"),
        (["trian"], "nearest: 'train'"),
        (["xyzzy"], "no command 'xyzzy'; see openrpt --help"),
        (
            ["train", "--train.lr", "1"],
            "No such option '--train.lr'; nearest: '--train.learning_rate'",
        ),
        (["train", "--lr", "1"], "nearest: '--train.learning_rate'"),
        (["warmup", "--lr", "1"], "nearest: '--warmup.learning_rate'"),
        (["score", "--lr", "1"], "nearest: '--warmup.learning_rate'"),
        (["rollouts", "--setp", "1", "x"], "No such option '--setp'; nearest: '--step'"),
        (["evaluate", "r1"], "r1: no such folder, and no run is named (runs/default is not there)"),
        (["evaluate"], "no run is named (runs/default is not there): give one by --run RUN"),
        (["compare", __file__], f"{__file__}: a file; give run folders, or models in them"),
        (["watch", str(Path(__file__).parent)], "cli: not a run folder (config.toml is missing)"),
        (["train", "--group_size", "1"], "nearest: '--train.group_size'"),
        (["train", "--train.xyz", "1"], "No such option '--train.xyz'; see --help"),
    ],
)
def test_nearest_names_are_near(run: Run, typed: list[str], said: str) -> None:
    assert said in refused(run(*typed))


@pytest.mark.parametrize(
    "command",
    ["rollouts", "status", "report", "patterns", "compare", "control", "scaling", "watch"],
)
def test_every_command_that_takes_a_run_takes_it_by_option(run: Run, command: str) -> None:
    for typed in (["--run", "nothing"], ["--run=nothing"]):
        assert "nothing" in refused(run(command, *typed))
    if command != "control":
        assert "--run RUN" in run(command, "--help")[1]


def test_a_run_stands_for_its_latest_model(run: Run, trained: Path) -> None:
    code, out, _ = run("evaluate", trained)
    assert code == 0 and f"recorded as 'trained' in {trained}/evaluation.json" in out
    assert run("perplexity", trained)[1].startswith("trained on ")
    typed = ["--text", "qzxjkv", "--samples", 2]
    for model in (["trained", "--run", trained], [trained], [trained / "checkpoints/step-000002"]):
        code, out, err = run("predict", *model, *typed)
        assert code == 0, err
    assert "say of which with --run RUN" in refused(run("predict", "trained", *typed))


def test_rollouts_that_read_alike_are_one(run: Run, trained: Path) -> None:
    out = run("rollouts", "--run", trained, "--limit", 1)[1]
    assert out.count("thought") == 1 and "× 4: 0, 1, 2, 3" in out


def test_a_model_that_is_nowhere_is_said_at_once(
    run: Run, toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers tries again for half a minute; the Hub is asked once."""
    import huggingface_hub

    asked: list[str] = []

    def refuse(url: str, **options: Any) -> None:
        asked.append(url)
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    error = refused(run("score", toml, "--model.path", "nobody/nothing"))
    assert "model 'nobody/nothing': no such folder or file here, nor a model of the Hub's" in error
    assert len(asked) == 1 and "nobody/nothing" in asked[0]
    error = refused(run("score", toml, "--model.path", "runs/no/model"))  # no name of the Hub's
    assert "runs/no/model: no such model folder or file" in error and len(asked) == 1
    assert not (toml.parent / "run").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="has no load average")
@pytest.mark.parametrize(
    ("threads", "load", "said"), [(0, 3.9, True), (0, 0.4, False), (1, 3.9, False)]
)
def test_threads_on_busy_cores_are_said(
    monkeypatch: pytest.MonkeyPatch, threads: int, load: float, said: bool
) -> None:
    monkeypatch.setattr(cpu, "usable_cpus", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    advice = cpu.busy_cores(threads)
    assert bool(advice) == said
    assert not said or ("4 cores are busy (load 3.9)" in advice and "--model.threads 1" in advice)
