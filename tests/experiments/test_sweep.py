"""A sweep: one run a value, from the same scores, side by side; stopped and gone on with."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from openrpt.cli.main import cli
from openrpt.config.loading import load_config, to_toml, with_overrides
from openrpt.errors import UserError
from openrpt.evaluation.records import read_evaluation
from openrpt.experiments import sweep as module
from openrpt.experiments.sweep import run_sweep, variants_of
from openrpt.files import write_text
from openrpt.progress import SILENT
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import existing_run, open_run
from openrpt.stages.score.score import score_run
from openrpt.stages.train import train
from openrpt.stages.warmup.warmup import warmup
from tests.helpers.tiny_model import tiny_config

OVERRIDES = {
    "corpus__heldout_fraction": 0.3,
    "train__steps": 1,
    "warmup__steps": 1,
    "evaluate__min_entropy": 0.0,
    "evaluate__positions": 10,
    "selection__min_entropy": 0.0,
}


def test_each_combination_is_a_run_of_its_own_name() -> None:
    config = load_config(overrides={"run": "runs/a"})
    found = variants_of(config, {"train.learning_rate": [1e-5, 2e-5], "seed": [0, 1]})
    assert [one.name for one in found] == [
        "learning_rate=1e-05,seed=0",
        "learning_rate=1e-05,seed=1",
        "learning_rate=2e-05,seed=0",
        "learning_rate=2e-05,seed=1",
    ]
    assert found[3].config.run == "runs/a/sweep/learning_rate=2e-05,seed=1"
    assert (found[3].config.train.learning_rate, found[3].config.seed) == (2e-5, 1)
    both = variants_of(
        config, {"train.learning_rate": [1e-5], "warmup.learning_rate": [1e-4, 1e-3]}
    )
    assert both[1].name == "train.learning_rate=1e-05,warmup.learning_rate=0.001"
    with pytest.raises(UserError, match="a key with several values"):
        variants_of(config, {})
    with pytest.raises(UserError, match=r"--pretrain\.learning_rate: a sweep scores"):
        variants_of(config, {"pretrain.learning_rate": [1e-5, 2e-5]})


def test_a_sweep_as_a_command(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **OVERRIDES)
    write_text(tmp_path / "tiny.toml", to_toml(config))
    folder = tmp_path / "run"
    command = ["sweep", str(tmp_path / "tiny.toml"), "--train.group_size", "2,3"]
    command += ["--warmup.learning_rate", "1e-3"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert "sweep/comparison.json" in done.output and "report.html" in done.output
    assert "was done before" not in done.output
    best = rf"most accurate of them: openrpt train --run {folder}/sweep/group_size=[23] --train.s"
    assert re.search(rf"{best}teps 2$", done.output, re.MULTILINE)
    differing = done.output.partition("Settings that differ")[2]
    assert "train.group_size" in differing and "corpus.path" not in differing
    runs = [existing_run(folder / "sweep" / f"group_size={size}") for size in (2, 3)]
    assert [run.config.train.group_size for run in runs] == [2, 3]
    for run in runs:
        assert run.config.warmup.learning_rate == 1e-3
        assert [row["stage"] for row in read_metrics(run.metrics)] == ["warmup", "train"]
        for name in ("scored/positions-00000.parquet", "warmup/model.safetensors"):
            assert (run.path / name).samefile(folder / name), "made once"
    compared = json.loads((folder / "sweep/comparison.json").read_text(encoding="utf-8"))
    text = json.dumps(compared)
    assert all(
        name in text for name in ("run/start", "group_size=2/trained", "group_size=3/trained")
    )

    again = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert again.output.count("done before, taken from") == 2
    assert "train (" not in again.output


def test_a_run_that_was_trained_keeps_its_configuration(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **OVERRIDES)
    run = open_run(config)
    with run.at_work():
        score_run(run, SILENT)
        warmup(run)
        train(run)
    before = (run.path / "config.toml").read_text(encoding="utf-8")
    asked = with_overrides(config, {"train.steps": 2, "evaluate.positions": 6})
    shared, *runs = run_sweep(asked, variants_of(asked, {"train.group_size": [2, 3]}))
    assert (run.path / "config.toml").read_text(encoding="utf-8") == before
    assert list(read_evaluation(shared.evaluation)["evaluations"]) == ["start-positions=6"]
    for one in runs:
        assert [row["stage"] for row in read_metrics(one.metrics)].count("train") == 2
        assert one.config.evaluate.positions == 6


def test_a_stopped_sweep_goes_on_and_shares_no_warmup_that_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, **OVERRIDES)
    variants = variants_of(config, {"prompt.candidates": [1, 2]})
    with monkeypatch.context() as patched:
        patched.setattr(module.train_stage, "train", lambda run, progress: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_sweep(config, variants)
    shared, *runs = run_sweep(config, variants)
    assert not shared.start.exists(), "no run begins from it"
    assert [run.config.prompt.candidates for run in runs] == [1, 2]
    assert all(run.start.is_dir() for run in runs)
    assert all(len(read_metrics(run.metrics)) == 2 for run in runs)
