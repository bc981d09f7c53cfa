"""The demo from its first stage to its tables, with a tiny model: what it prints, and what a second
start does not do again."""

import json
from pathlib import Path

import pytest

from openrpt.config.loading import with_overrides
from openrpt.evaluation.records import read_evaluation
from openrpt.experiments.demo import CLOCK, Clock, config_in, demo_config, print_outcome, run_demo
from openrpt.experiments.demo_tables import EVERYWHERE
from openrpt.progress import SILENT
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, open_run
from tests.helpers.tiny_model import tiny_model_folder

SMALL = {
    "model.compute_dtype": "same",
    "model.threads": 1,
    "corpus.path": "bills?documents=40&bills=1&most=3",
    "prompt.window": 64,
    "prompt.think_budget": 24,
    "warmup.steps": 2,
    "warmup.documents_per_step": 2,
    "train.steps": 1,
    "train.eval_positions": 4,
    "evaluate.positions": 8,
}


@pytest.fixture
def begun(tmp_path: Path) -> Run:
    """A demo's folder before its first stage, whose configuration another start goes on with."""
    model = tiny_model_folder(tmp_path / "model")
    config = demo_config(10.0, tmp_path / "run")
    run = open_run(with_overrides(config, SMALL | {"model.path": str(model)}), min_free_bytes=0)
    Clock.open(run, 10.0).save()
    return run


def test_from_the_first_stage_to_the_tables(begun: Run, capsys) -> None:
    run = run_demo(config_in(begun.path, 10.0), 10.0, SILENT)
    print_outcome(run)
    printed = " ".join(capsys.readouterr().out.split())
    assert "computed numbers of" in printed and "positions of all kinds" in printed
    assert "can't be told apart from the same weights' standard prediction" in printed
    assert (run.path / "report.html").is_file()
    evaluations = read_evaluation(run.evaluation)["evaluations"]
    assert list(evaluations) == ["start", "warmup", "trained", EVERYWHERE]
    assert "reasoning" not in evaluations["start"]["summary"]
    assert [evaluations[label]["where"] for label in evaluations] == ["class:computed"] * 3 + [""]
    stages = json.loads((run.path / CLOCK).read_text())["stages"]
    assert len(stages) == 8

    steps, traces = read_metrics(run.metrics), (run.path / "traces.jsonl").read_bytes()
    run_demo(config_in(begun.path, 10.0), 10.0, SILENT)
    assert read_metrics(run.metrics) == steps
    assert (run.path / "traces.jsonl").read_bytes() == traces
