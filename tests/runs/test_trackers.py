"""Trackers: TensorBoard for real, read back by its own reader; resuming; what is missing."""

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from openrpt.config.loading import load_config
from openrpt.errors import UserError
from openrpt.loaded import load_run
from openrpt.progress import SILENT
from openrpt.runs.journal import StageRecord, open_journal, read_stage
from openrpt.runs.metrics import numbers
from openrpt.runs.rollouts import write_rollouts
from openrpt.runs.run import existing_run, open_run
from openrpt.runs.trackers import (
    TRACKERS,
    TrackedStage,
    require_installed,
    rollout_table,
    table_markdown,
)
from openrpt.stages.train import train
from openrpt.stages.warmup.warmup import warmup
from openrpt.stopping import Interrupted
from tests.helpers.fake_run import fake_run, rollout
from tests.helpers.tiny_model import copied_run, tiny_run

LIMITS: dict[str, Any] = {"steps": 20, "seconds": 60.0, "changed": {}}


class Heard:
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, task: str, total: float, unit: str = "") -> None: ...

    def update(self, completed: float, note: str = "") -> None: ...

    def say(self, line: str) -> None:
        self.lines.append(line)


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(name)]


def test_a_run_in_tensorboard(tmp_path: Path) -> None:
    """Warmup and train through their own functions; train stops, and goes on in the same run."""
    settings: dict[str, Any] = {"track__to": ["tensorboard"], "track__rollouts_every": 2}
    start = tiny_run(tmp_path, warmup__steps=1, **settings)
    warmup(start)
    for steps in (2, 4):
        config = start.config.model_copy(
            update={"train": start.config.train.model_copy(update={"steps": steps})}
        )
        train(open_run(config, min_free_bytes=0))
    folder = start.path / "tensorboard"
    rows = load_run(start.path).metrics("train").to_pylist()
    for name in ("reward/mean", "completion/closed_fraction", "time/step"):
        logged = scalars(folder / "train", name)
        assert [step for step, _ in logged] == [1, 2, 3, 4]
        assert [value for _, value in logged] == pytest.approx([row[name] for row in rows])
    assert [step for step, _ in scalars(folder / "warmup", "loss/imitation")] == [1]
    tables = events(folder / "train").Tensors("rollouts/text_summary")
    assert [event.step for event in tables] == [2, 4]
    text = tables[0].tensor_proto.string_val[0].decode()
    shown = rollout_table(start.path, 2)
    assert text.count("\n") == len(shown) + 1 and "| document |" in text


def test_steps_that_are_run_again_replace_those_in_the_tracker(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "run", steps=0, track__to=["tensorboard"])
    for done, values in ((0, [0.1, 0.2, 0.3]), (1, [0.5, 0.6])):
        run = existing_run(path)
        with open_journal(run, stage="warmup", step=done, **LIMITS, progress=SILENT) as journal:
            for step, value in enumerate(values, done + 1):
                row = {"loss/imitation": value, "note": "no number"}
                journal.record(step, row, seconds=step)
                journal.tell(step, row)
    logged = scalars(path / "tensorboard" / "warmup", "loss/imitation")
    assert [step for step, _ in logged] == [1, 2, 3]
    assert [value for _, value in logged] == pytest.approx([0.1, 0.5, 0.6])


def test_warnings_are_said_once_and_recorded(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "run", steps=0)
    heard = Heard()
    bad = {"reward/mean": 0.0, "group/flat_fraction": 1.0}
    run = existing_run(path)
    for steps in (range(1, 7), range(7, 10)):  # a second start says nothing anew
        before = steps[0] - 1
        with open_journal(run, stage="train", step=before, **LIMITS, progress=heard) as journal:
            for step in steps:
                journal.record(step, bad, seconds=step)
                journal.tell(step, bad)
    said, here, anew = heard.lines
    assert said.endswith(f"read the rollouts: `openrpt rollouts {path}`.")
    assert said.startswith("warning: no_reward (step 5): ")
    assert here.startswith("  in this run (now selection.min_entropy 0.5, train.group_size 8): ")
    assert f": openrpt train --run {path} --selection.min_entropy VALUE" in here
    assert anew.endswith(f"openrpt warmup --from {path} --run {path}-2 --warmup.steps VALUE")
    (warning,) = load_run(path).warnings
    assert (warning["stage"], warning["step"], warning["name"]) == ("train", 5, "no_reward")
    assert load_run(path).metrics().num_rows == 9


def test_how_a_stage_ends_is_recorded(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "run", steps=0)
    limits = LIMITS | {"steps": 9, "seconds": math.inf}
    opened = {"stage": "train", "step": 0, "progress": SILENT} | limits
    assert read_stage(path) is None
    with open_journal(existing_run(path), **opened):
        assert read_stage(path) == StageRecord(stage="train", steps=9, seconds=0, state="running")
    assert read_stage(path).state == "done"
    with pytest.raises(Interrupted), open_journal(existing_run(path), **opened):
        raise Interrupted("stopped")
    assert read_stage(path).state == "stopped"


def test_a_missing_package_is_named_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = load_config(overrides={"run": str(tmp_path / "run"), "track.to": ["wandb"]})
    said = r"track.to = 'wandb' needs wandb; install it: pip install \"openrpt\[wandb\]\" \(in a"
    with pytest.raises(UserError, match=said):
        open_run(config)
    assert not (tmp_path / "run").exists()
    require_installed([])


def test_a_run_may_change_its_trackers(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    other = copied_run(run, "other")
    changed = load_config(
        other.path / "config.toml",
        {"run": str(other.path), "track.to": ["tensorboard"], "track.project": "x"},
    )
    assert open_run(changed, min_free_bytes=0).config.track.to == ["tensorboard"]


def test_ids_are_made_once(tmp_path: Path) -> None:
    stage = TrackedStage(folder=tmp_path, project="p", name="n", stage="train", step=0, config={})
    assert stage.stored_id("wandb", lambda: "a") == "a"
    assert stage.stored_id("wandb", lambda: "b") == "a"
    assert stage.stored_id("mlflow", lambda: "c") == "c"
    assert json.loads((tmp_path / "trackers.json").read_text())["wandb"] == {"train": "a"}
    (tmp_path / "trackers.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        stage.stored_id("wandb", lambda: "d")


def test_what_is_logged(tmp_path: Path) -> None:
    values = {"a": 1, "b": float("nan"), "c": "text", "warnings": [{}], "d": 0.5}
    assert numbers(values) == {"a": 1.0, "d": 0.5}
    write_rollouts(tmp_path, 1, [rollout("d0", p, thought=b"<b>|*x*\n") for p in range(9)])
    table = rollout_table(tmp_path, 1)
    assert len(table) == 8 and table[0]["thought"] == "<b>|*x*⏎"
    line = table_markdown(table).splitlines()[2]
    assert r"&lt;b&gt;\|\*x\*⏎" in line
    assert table_markdown([]) == ""


TABLE = [{"document": "d", "position": 1, "prediction": " the", "reward": 1.0}]


def followed(name: str, tmp_path: Path) -> TrackedStage:
    """Two steps and a table, logged by the tracker's own package into a folder of the test."""
    stage = TrackedStage(
        folder=tmp_path,
        project="openrpt-test",
        name="run/train",
        stage="train",
        step=0,
        config={"train.learning_rate": 1e-5},
    )
    tracker = TRACKERS[name](stage)
    tracker.log({"reward/mean": 0.25, "note": "no number", "nan": math.nan}, 1)
    tracker.log({"reward/mean": 0.5}, 2)
    tracker.log_rollouts(TABLE, 2)
    tracker.close()
    return stage


@pytest.mark.filterwarnings("default")  # the package's own
def test_mlflow_reads_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra 'mlflow'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    followed("mlflow", tmp_path)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("openrpt-test").experiment_id])
    history = client.get_metric_history(run.info.run_id, "reward/mean")
    assert [(m.step, m.value) for m in history] == [(1, 0.25), (2, 0.5)]
    assert set(run.data.metrics) == {"reward/mean"} and run.info.status == "FINISHED"
    assert run.data.params == {"train.learning_rate": "1e-05"}
    (artifact,) = client.list_artifacts(run.info.run_id, "rollouts")
    stored = json.loads(Path(client.download_artifacts(run.info.run_id, artifact.path)).read_text())
    assert stored["data"] == [list(TABLE[0].values())]


@pytest.mark.filterwarnings("default")
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs the extra 'wandb'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    stage = followed("wandb", tmp_path)
    identity = stage.stored_id("wandb", lambda: "another")
    (log,) = tmp_path.glob(f"wandb/offline-run-*/run-{identity}.wandb")
    written = log.read_bytes()
    assert b"reward/mean" in written and b"0.25" in written and b"train.learning_rate" in written
    assert b"no number" not in written
    (table,) = tmp_path.glob("wandb/offline-run-*/files/media/table/rollouts*.table.json")
    assert json.loads(table.read_text())["data"] == [list(TABLE[0].values())]


@pytest.mark.filterwarnings("default")
def test_trackio_keeps_it_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="needs the extra 'trackio'")
    followed("trackio", tmp_path)
    stored = b"".join(p.read_bytes() for p in (tmp_path / "trackio").glob("openrpt-test*.db*"))
    assert b"reward/mean" in stored and b"run/train" in stored


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"train": 3}}', "[" * 100_000])
def test_damaged_ids_of_trackers_are_one_line(tmp_path: Path, text: str) -> None:
    stage = TrackedStage(folder=tmp_path, project="p", name="n", stage="train", step=0, config={})
    assert stage.stored_id("a", lambda: "one") == "one"
    assert stage.stored_id("a", lambda: "two") == "one"
    (tmp_path / "trackers.json").write_text(text)
    with pytest.raises(UserError, match=r"trackers\.json.*: damaged.*; delete it, and new tracker"):
        stage.stored_id("a", lambda: "two")
