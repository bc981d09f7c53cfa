"""Stages that several processes share end where one process does, and end together."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from transformers import AutoModelForCausalLM

from openrpt.cli.main import main
from openrpt.config.loading import to_toml
from openrpt.errors import UserError
from openrpt.rl import roll_call
from openrpt.runs.journal import read_stage
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run
from openrpt.stages.train import open_train
from tests.helpers.processes import Ended, commands, in_processes
from tests.helpers.run_files import OF_THE_MACHINE, rollouts_of
from tests.helpers.tiny_model import copied_run, tiny_model_folder, tiny_run

SETTINGS: dict[str, Any] = {
    "model__dtype": "float64",
    "corpus__development_fraction": 0.2,
    "warmup__steps": 2,
    "warmup__documents_per_step": 3,
    "train__steps": 3,
    "train__documents_per_step": 3,
    "train__positions_per_document": 3,
    "train__learning_rate": 1e-3,
    "train__kl_weight": 0.05,
    "train__ntp_weight": 0.5,
    "train__eval_every": 2,
    "train__eval_positions": 8,
    "train__algorithm": "dapo",
    "train__dynamic_sampling_from": 1,
    "train__dynamic_sampling_rounds": 3,
    "reward__terms": {"random": 1.0},
    "reward__random_probability": 0.1,
    "pretrain__steps": 2,
    "pretrain__tokens_per_step": 150,
    "pretrain__sequence_length": 64,
    "pretrain__eval_every": 0,
    "checkpoints__every": 1,
    "checkpoints__kept": 5,
}
PLAIN = SETTINGS | {
    "train__documents_per_step": 2,
    "train__algorithm": "grpo",
    "train__kl_weight": 0.0,
    "train__eval_every": 0,
}
OWN = """
import os, signal

def in_step_2():
    first = os.path.isdir(os.path.join(os.environ.get("RUN", ""), "checkpoints", "step-000001"))
    return first and os.environ.get("RANK") == "1"

def fails(prediction):
    if in_step_2():
        raise ValueError("not this one")
    return len(prediction or b"") % 2

def killed(prediction):
    if in_step_2():
        os.kill(os.getpid(), signal.SIGKILL)
    return len(prediction or b"") % 2

def asked(prediction):
    if in_step_2():
        os.kill(os.getpid(), signal.SIGTERM)
    return len(prediction or b"") % 2
"""


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A scored run of a model that is float64 throughout."""
    folder = tmp_path_factory.mktemp("processes")
    tiny_model_folder(folder / "model", family="gpt2", dtype=torch.float64)
    return tiny_run(folder, **SETTINGS)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of rewards in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "group_rewards.py").write_text(OWN)


def run_of(scored: Run, name: str, settings: dict[str, Any], *terms: str) -> Run:
    """The scored run under another name, with its settings in its own configuration."""
    own = {"reward__terms": {f"group_rewards:{term}": 1.0 for term in terms}} if terms else {}
    run = copied_run(scored, name, **settings | own)
    (run.path / "config.toml").write_text(to_toml(run.config))
    return run


def command(name: str, run: Run, **overrides: Any) -> list[str]:
    options = [f"--{key.replace('__', '.')}={value}" for key, value in overrides.items()]
    return [name, "--run", str(run.path), *options]


def folder_of(run: Run, step: int) -> Path:
    return run.checkpoints / f"step-{step:06d}"


def alone(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 0


def together(count: int, *arguments: str) -> list[Ended]:
    ended = commands(count, *arguments)
    assert [one.code for one in ended] == [0] * count, ended
    assert all(not one.out and not one.err for one in ended[1:]), ended
    return ended


def rows(run: Run, stage: str) -> list[dict[str, Any]]:
    """The metrics that must not depend on the machine's mood."""
    return [
        {name: value for name, value in row.items() if not name.startswith(OF_THE_MACHINE)}
        for row in read_metrics(run.metrics)
        if row["stage"] == stage
    ]


def assert_alike(a: Run, b: Run, stage: str, *, steps: int) -> None:
    """Metrics within the rounding of sums in another order; whatever is drawn, to the bit."""
    assert [row["step"] for row in rows(a, stage)] == list(range(1, steps + 1))
    for found, expected in zip(rows(a, stage), rows(b, stage), strict=True):
        assert found.pop("stage") == expected.pop("stage")
        drawn = {k: v for k, v in expected.items() if k.startswith(("reward/", "group/"))}
        assert {name: found[name] for name in drawn} == drawn
        assert found == pytest.approx(expected, rel=1e-10, abs=1e-12)


def state_files(folder: Path) -> list[Path]:
    return [*folder.glob("state.safetensors"), *folder.glob("state/*.safetensors")]


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """The optimizer's state, put together by the first rows that the parts' headers name."""
    parts: dict[str, dict[int, torch.Tensor]] = {}
    for path in state_files(folder):
        with safe_open(path, "pt") as file:
            places = json.loads((file.metadata() or {}).get("DCP_SHARDING_INFO", "{}"))
            for name in file.keys():  # noqa: SIM118
                first = places[name]["saved_offsets"] if name in places else []
                parts.setdefault(name, {})[first[0] if first else 0] = file.get_tensor(name)
    return {
        name: torch.cat([rows[first] for first in sorted(rows)]) if rows[0].ndim else rows[0]
        for name, rows in parts.items()
    }


def assert_same_weights(a: Path, b: Path) -> None:
    """The model's and the optimizer's, whose state may lie in parts."""
    found, expected = (load_file(one / "model.safetensors") for one in (a, b))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(state_of(a), state_of(b), rtol=1e-8, atol=1e-12)


def test_two_then_one_then_four_processes_end_where_one_does(scored: Run) -> None:
    """Checkpoints know no number of processes, nor how weights and optimizer are divided among
    them; dynamic sampling goes on while all documents of a process are flat."""
    settings = SETTINGS | {"train__steps": 4}
    run, expected = run_of(scored, "shared", settings), run_of(scored, "one", settings)
    alone(*command("train", expected))
    said = together(2, *command("train", run, train__steps=1, parallel__shard="weights"))[0]
    assert "1 steps in" in said.out and "train: done, 1 steps" in said.err
    alone(*command("train", run, train__steps=2))
    together(4, *command("train", run, train__steps=3, parallel__shard="layers"))
    together(2, *command("train", run, train__steps=4, parallel__shard="optimizer"))
    assert_alike(run, expected, "train", steps=4)
    parts = {step: len(state_files(folder_of(run, step))) for step in range(1, 5)}
    assert parts == {1: 2, 2: 1, 3: 4, 4: 2}
    assert any(row["group/generated"] > 3 * 3 for row in rows(run, "train"))
    assert rollouts_of(run).keys() == rollouts_of(expected).keys()
    for name, rollouts in rollouts_of(run).items():
        for found, row in zip(rollouts, rollouts_of(expected)[name], strict=True):
            assert found["token_ids"] == row["token_ids"]
            assert found["reward"] == row["reward"]
    for step in range(1, 5):
        assert_same_weights(folder_of(run, step), folder_of(expected, step))
    stage = read_stage(run.path)
    assert stage is not None and stage.state == "done"


def test_adapters_go_on_whoever_had_a_part_of_them(scored: Run) -> None:
    """LoRA: 2 processes with divided weights, then 1, then 3 that divide; the policy is the folder
    of one process, merged, its adapter beside it."""
    settings = PLAIN | {"model__lora_rank": 2}
    run, expected = run_of(scored, "adapters", settings), run_of(scored, "adapters-1", settings)
    alone(*command("train", expected))
    together(2, *command("train", run, train__steps=1, parallel__shard="weights"))
    alone(*command("train", run, train__steps=2))
    together(3, *command("train", run, train__steps=3, parallel__shard="weights"))
    assert_alike(run, expected, "train", steps=3)
    for step, parts in ((1, 2), (2, 1), (3, 3)):
        folder, known = folder_of(run, step), folder_of(expected, step)
        assert len(state_files(folder)) == parts
        assert_same_weights(folder, known)
        adapter = "adapter/adapter_model.safetensors"
        found, whole = load_file(folder / adapter), load_file(known / adapter)
        torch.testing.assert_close(found, whole, rtol=1e-8, atol=1e-12)


def test_plain_text_and_warmup_are_shared_too(scored: Run) -> None:
    """With weights divided, and layers run again on the way back; one process has neither."""
    run = run_of(scored, "plain-2", SETTINGS | {"memory__gradient_checkpointing": True})
    expected = run_of(scored, "plain", SETTINGS)
    for name in ("pretrain", "warmup"):
        alone(*command(name, expected))
        together(2, *command(name, run, parallel__shard="weights"))
        assert_alike(run, expected, name, steps=2)
    assert_same_weights(run.start, expected.start)
    pretrained = (one.checkpoints_of("pretrain") / "step-000002" for one in (run, expected))
    assert_same_weights(*pretrained)


@pytest.mark.usefixtures("own")
def test_a_reward_that_fails_on_one_ends_all_with_one_line(scored: Run) -> None:
    run = run_of(scored, "fails", PLAIN, "fails")
    ended = commands(2, *command("train", run), RUN=str(run.path))
    assert [one.code for one in ended] == [2, 2]
    lines = ended[0].err.splitlines()
    assert lines[-1].startswith("openrpt: train, step 2: rank 1 of 2: 'group_rewards:fails' raised")
    assert "ValueError (not this one)" in lines[-1]
    assert lines[-1].endswith("; all up to step 1 is saved")
    assert not ended[1].err and not ended[1].out
    assert [row["step"] for row in rows(run, "train")] == [1]


@pytest.mark.usefixtures("own")
def test_a_killed_process_loses_no_step(scored: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is left saves; the same command, by one process, ends where it would have."""
    monkeypatch.setattr(roll_call, "_BEAT_SECONDS", 0.2)
    run, expected = (run_of(scored, name, PLAIN, "killed") for name in ("killed", "whole"))
    ended = commands(2, *command("train", run), RUN=str(run.path))
    assert [one.code for one in ended] == [2, -signal.SIGKILL]
    assert "train, step 2: rank 1 of 2 ended without a word" in ended[0].err.splitlines()[-1]
    for one in (run, expected):
        alone(*command("train", one))
    assert_alike(run, expected, "train", steps=3)


def test_a_kill_during_a_save_leaves_the_checkpoint_before(scored: Run) -> None:
    """Of weights that are divided, while each process writes its part; the same command, by one
    process, ends where one would have, with a folder that transformers opens."""
    settings = PLAIN | {"train__steps": 2}
    run, expected = (run_of(scored, name, settings) for name in ("half saved", "unbroken"))

    def work(rank: int) -> None:
        write, saves = HuggingFaceStorageWriter.write_data, []

        def killed(*arguments: Any) -> Any:
            saves.append(rank)
            if (rank, len(saves)) == (1, 2):
                os.kill(os.getpid(), signal.SIGKILL)
            return write(*arguments)

        HuggingFaceStorageWriter.write_data = killed  # type: ignore[method-assign]
        main(command("train", run, parallel__shard="weights"))

    ended = in_processes(2, work)
    assert [one.code for one in ended] == [2, -signal.SIGKILL], ended
    last = ended[0].err.splitlines()[-1]
    assert "rank 1 of 2 ended without a word" in last and "'checkpoint'" in last
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000001"]
    for one in (run, expected):
        alone(*command("train", one))
    assert_alike(run, expected, "train", steps=2)
    ids = torch.arange(3, 40)[None]
    found, known = (  # step 1 is written from divided weights, and from whole ones
        AutoModelForCausalLM.from_pretrained(folder_of(one, 1), dtype="float64")(ids).logits
        for one in (run, expected)
    )
    torch.testing.assert_close(found, known, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("what", "settings"),
    [
        ("engine.trainer = 'flat'", {"engine__trainer": "flat"}),
        ("reward.terms 'information_gain'", {"reward__terms": {"information_gain": 1.0}}),
        ("train.adam_states = 'separate'", {"train__adam_states": "separate"}),
    ],
)
def test_what_divided_weights_do_not_go_with_is_refused(
    scored: Run, what: str, settings: dict[str, Any]
) -> None:
    name = f"refused {next(iter(settings))}"
    run = run_of(scored, name, PLAIN | settings | {"parallel__shard": "weights"})
    with pytest.raises(UserError, match=rf"parallel\.shard = 'weights' .*{re.escape(what)}"):
        open_train(run)


@pytest.mark.usefixtures("own")
def test_a_signal_to_one_stops_all_after_the_same_step(scored: Run) -> None:
    run = run_of(scored, "asked", PLAIN, "asked")
    ended = commands(2, *command("train", run), RUN=str(run.path))
    assert [one.code for one in ended] == [128 + signal.SIGTERM] * 2, ended
    assert ended[0].err.splitlines()[-1].startswith("openrpt: stopped in train after step 2;")
    assert not ended[1].err
    assert [row["step"] for row in rows(run, "train")] == [1, 2]


def test_what_differs_is_named_before_the_first_step(scored: Run) -> None:
    run = run_of(scored, "differ", SETTINGS)

    def work(rank: int) -> None:
        main(command("train", run, train__learning_rate=(1e-3, 2e-3)[rank]))

    ended = in_processes(2, work)
    assert [one.code for one in ended] == [2, 2]
    (line,) = [line for line in ended[0].err.splitlines() if line.startswith("openrpt: ")]
    assert "train.learning_rate: 0.001 on rank 0 (" in line and "but 0.002 on rank 1 (" in line
    assert not ended[1].err
    assert not rows(run, "train")


def test_modules_of_ones_own_that_differ_are_named(scored: Run, tmp_path: Path) -> None:
    """As on two machines, one of which has an older file."""
    run = run_of(scored, "own", SETTINGS)

    def work(rank: int) -> None:
        folder = tmp_path / str(rank)
        folder.mkdir()
        source = f"def worth(prediction):\n    return len(prediction or b'') % {rank + 2}\n"
        (folder / "worth_of_mine.py").write_text(source)
        os.chdir(folder)
        main(command("train", run, reward__terms="worth_of_mine:worth=1"))

    ended = in_processes(2, work)
    assert [one.code for one in ended] == [2, 2], ended
    (line,) = [line for line in ended[0].err.splitlines() if line.startswith("openrpt: ")]
    assert "the module of 'worth_of_mine:worth': " in line and "on rank 1 (" in line
    assert not rows(run, "train")


def test_what_is_for_one_process_says_so_once(scored: Run) -> None:
    ended = commands(2, "score", "--run", str(scored.path))
    assert [one.code for one in ended] == [2, 2]
    assert ended[0].err.startswith(
        "openrpt: openrpt score runs in one process, and 2 were launched"
    )
    assert not ended[1].err
    assert json.loads((scored.scored / "scored.json").read_text())["finished"]
