"""Stages taken by hand: a step in memory alone, which is the step that a run takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from openrpt.config.sections import STAGES, StageName
from openrpt.errors import UserError
from openrpt.progress import SILENT
from openrpt.runs.checkpoints import latest_checkpoint
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, open_run
from openrpt.stages.harness import run_stage
from openrpt.stages.pretrain.pretrain import check_input as check_pretrain
from openrpt.stages.pretrain.pretrain import open_pretrain
from openrpt.stages.stage import Limits, Stage
from openrpt.stages.train import check_input as check_train
from openrpt.stages.train import open_train
from openrpt.stages.warmup.warmup import check_input as check_warmup
from openrpt.stages.warmup.warmup import open_warmup
from tests.helpers.run_files import OF_THE_MACHINE
from tests.helpers.tiny_model import copied_run, tiny_config, tiny_run

OPENED: dict[StageName, Callable[[Run], Stage]] = {
    "warmup": open_warmup,
    "train": open_train,
    "pretrain": open_pretrain,
}
SETTINGS: dict[str, Any] = {
    "warmup__steps": 3,
    "train__steps": 3,
    "train__learning_rate": 1e-3,
    "pretrain__steps": 3,
    "pretrain__tokens_per_step": 100,
    "pretrain__sequence_length": 40,
}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("stage"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shown(metrics: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on the machine."""
    return {key: value for key, value in metrics.items() if not key.startswith(OF_THE_MACHINE)}


@pytest.mark.parametrize("name", OPENED)
def test_a_step_by_hand_is_the_runs_and_writes_nothing(scored: Run, name: StageName) -> None:
    run = copied_run(scored, f"hand-{name}", **SETTINGS)
    before = contents(run.path)
    stage = OPENED[name](run)
    by_hand = [stage.step() for _ in range(3)]
    assert stage.state.step == 3 and stage.describe(by_hand[-1])
    assert contents(run.path) == before

    other = copied_run(scored, f"run-{name}", **SETTINGS)
    opened = OPENED[name](other)
    summary = run_stage(opened, SILENT)
    rows = [row for row in read_metrics(other.metrics) if row["stage"] == name]
    assert [shown(row) for row in rows] == [
        {"stage": name, "step": i + 1} | shown(metrics) for i, metrics in enumerate(by_hand)
    ]
    assert summary.steps == 3 and summary.checkpoint.is_dir()
    pairs = zip(stage.engine.model.parameters(), opened.engine.model.parameters(), strict=True)
    assert all(torch.equal(one, another) for one, another in pairs)
    assert (other.path / "rollouts").is_dir() is STAGES[name].rollouts


@pytest.mark.parametrize("name", OPENED)
def test_a_stage_leaves_its_model_where_it_says(scored: Run, name: StageName) -> None:
    run = copied_run(scored, f"leaves-{name}", **SETTINGS)
    summary = run_stage(OPENED[name](run), SILENT)
    last = latest_checkpoint(run.checkpoints_of(name))
    if STAGES[name].leaves:
        assert summary.checkpoint == run.path / STAGES[name].leaves
        assert not run.checkpoints_of(name).exists()
    else:
        assert summary.checkpoint == last
    assert run.standing() == {"score", name}


def test_limits() -> None:
    assert Limits.of(steps=5, minutes=0.0).seconds == float("inf")
    assert Limits.of(steps=5, minutes=0.5).seconds == 30


@pytest.mark.parametrize("check", [check_warmup, check_train, check_pretrain])
def test_a_folder_is_made_once_the_input_can_be_read(
    tmp_path: Path, check: Callable[[Run], None]
) -> None:
    config = tiny_config(tmp_path)
    with pytest.raises(UserError, match="run 'openrpt score' first"):
        open_run(config, min_free_bytes=0, check_input=check)
    assert not Path(config.run).exists()
    scored = tiny_run(tmp_path)  # what stands is opened by the stage itself
    open_run(scored.config, min_free_bytes=0, check_input=check)
