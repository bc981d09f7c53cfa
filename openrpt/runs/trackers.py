"""Trackers that people have, behind one small interface; each package is imported when asked for.

Metric names are those of docs/metrics.md. Each stage of a run is a tracker's run of its own (so
that step 1 of the warmup and step 1 of the training do not meet), named `RUN/STAGE`; a resumed
stage goes on in it. What a tracker needs to find it again stands in `trackers.json`.
"""

import html
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from openrpt.config.sections import STAGES
from openrpt.extras import require
from openrpt.json_files import read_as, write_sealed
from openrpt.runs.metrics import numbers

if TYPE_CHECKING:
    from openrpt.runs.run import Run


_Table = list[dict[str, str | float]]
"""Rollouts for people to read: a dict a rollout, bytes made visible."""

_Ids = dict[str, dict[str, str]]
"""A stage's id at a tracker: tracker → stage → id."""

ROLLOUT_STAGES = {stage for stage, facts in STAGES.items() if facts.rollouts}
"""Stages that store their rollouts."""
_TABLE_GROUPS = 8
"""Groups in a table of rollouts: what a person reads, not an archive (that is `rollouts/`)."""


class Tracker(Protocol):
    """A protocol: a service that follows one stage of a run."""

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Records metrics of a step; what is not a finite number is left out."""

    def log_rollouts(self, table: _Table, step: int) -> None:
        """Records rollouts of a step as a table."""

    def close(self) -> None:
        """Writes what is still waiting; nothing follows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedStage:
    """The stage that a tracker is opened for."""

    folder: Path
    """The run folder."""
    project: str
    name: str
    """The tracker's name for it, `RUN/STAGE`."""
    stage: str
    step: int
    """The last step that is done: what a tracker has of later ones is about to be run again."""
    config: dict[str, Any]
    """The configuration by dotted keys: `train.learning_rate` → its value."""

    def stored_id(self, tracker: str, make: Callable[[], str]) -> str:
        """Returns the tracker's id of this stage: made once, kept in `trackers.json`."""
        path, ids = self.folder / "trackers.json", _Ids()
        if path.is_file():
            ids = read_as(_Ids, path, advice="delete it, and new tracker runs begin")
        known = ids.setdefault(tracker, {})
        if self.stage not in known:
            known[self.stage] = make()
            write_sealed(path, ids)
        return known[self.stage]


def require_installed(names: Sequence[str]) -> None:
    """Checks that each tracker's package is installed: it has the tracker's name, and so has the
    extra. Raises UserError."""
    for name in names:
        require(name, extra=name, what=f"track.to = '{name}'", otherwise=f", or leave {name} out")


def open_trackers(run: "Run", *, stage: str, step: int) -> list[Tracker]:
    """Opens the trackers that the run's configuration asks for. Raises UserError for a missing
    package."""
    from openrpt.config.loading import flatten

    settings = run.config.track
    require_installed(settings.to)
    about = TrackedStage(
        folder=run.path,
        project=settings.project,
        name=f"{run.path.resolve().name}/{stage}",
        stage=stage,
        step=step,
        config=flatten(run.config.model_dump(mode="json")),
    )
    return [TRACKERS[name](about) for name in settings.to]


def rollout_table(run: Path, step: int) -> _Table:
    """Returns the first groups of a step's rollouts; bytes as the terminal shows them."""
    from openrpt.runs.rollouts import read_rollouts
    from openrpt.runs.show import visible, visible_prediction, visible_tokens

    rows = read_rollouts(run, step).to_pylist()
    shown = list(dict.fromkeys((row["document_id"], row["position"]) for row in rows))
    kept = set(shown[:_TABLE_GROUPS])
    return [
        {
            "document": row["document_id"],
            "position": row["position"],
            "rollout": row["rollout"],
            "prefix_end": visible(row["prefix_end"]),
            "continuation": visible_tokens(row["continuation"]),
            "ntp": visible(row["ntp_prediction"]),
            "thought": visible(row["thought"]),
            "prediction": visible_prediction(row["prediction"]),
            "reward": row["reward"],
            "advantage": row["advantage"],
        }
        for row in rows
        if (row["document_id"], row["position"]) in kept
    ]


class _TensorBoard:
    """A tracker that writes event files: `tensorboard --logdir RUN/tensorboard`."""

    def __init__(self, stage: TrackedStage) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = stage.folder / "tensorboard" / stage.stage
        self.writer = SummaryWriter(str(folder), purge_step=stage.step + 1)  # type: ignore[no-untyped-call]

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        for name, value in numbers(metrics).items():
            self.writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]
        self.writer.flush()  # type: ignore[no-untyped-call]

    def log_rollouts(self, table: _Table, step: int) -> None:
        self.writer.add_text("rollouts", table_markdown(table), step)  # type: ignore[no-untyped-call]
        self.writer.flush()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self.writer.close()  # type: ignore[no-untyped-call]


def table_markdown(table: _Table) -> str:
    """Returns a Markdown table in which a text of a corpus is only text."""
    if not table:
        return ""

    def cell(value: str | float) -> str:
        text = f"{value:g}" if isinstance(value, float) else str(value)
        return re.sub(r"([\\`*_{}\[\]()#+.!|~-])", r"\\\1", html.escape(text, quote=False))

    lines = [list(table[0]), ["---"] * len(table[0])]
    lines += [[cell(value) for value in row.values()] for row in table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


class _WeightsAndBiases:
    """A tracker for wandb. Steps are a metric of their own, so that steps run again after a restart
    count anew."""

    def __init__(self, stage: TrackedStage) -> None:
        import wandb

        self.run = wandb.init(
            project=stage.project,
            name=stage.name,
            group=stage.folder.resolve().name,
            job_type=stage.stage,
            id=stage.stored_id("wandb", lambda: secrets.token_hex(8)),
            resume="allow",
            config=stage.config,
            dir=str(stage.folder),
        )
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("*", step_metric="step")

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        self.run.log(numbers(metrics) | {"step": step})

    def log_rollouts(self, table: _Table, step: int) -> None:
        import wandb

        columns = list(table[0]) if table else []
        rows = [list(row.values()) for row in table]
        self.run.log({"rollouts": wandb.Table(columns=columns, data=rows), "step": step})

    def close(self) -> None:
        self.run.finish()


class _Trackio:
    """A tracker for trackio, whose run is found again by its name."""

    def __init__(self, stage: TrackedStage) -> None:
        import trackio

        self.run = trackio.init(
            project=stage.project,
            name=stage.stored_id("trackio", lambda: f"{stage.name}-{secrets.token_hex(3)}"),
            group=stage.folder.resolve().name,
            resume="allow",
            config=stage.config,
            embed=False,
        )

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        self.run.log(numbers(metrics), step=step)

    def log_rollouts(self, table: _Table, step: int) -> None:
        import pandas
        import trackio

        self.run.log({"rollouts": trackio.Table(dataframe=pandas.DataFrame(table))}, step=step)

    def close(self) -> None:
        self.run.finish()


class _MLflow:
    """A tracker for MLflow, where MLFLOW_TRACKING_URI says, else at MLflow's own default."""

    def __init__(self, stage: TrackedStage) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient()
        found = self.client.get_experiment_by_name(stage.project)
        experiment = found.experiment_id if found else self.client.create_experiment(stage.project)

        def create() -> str:
            run = self.client.create_run(experiment, run_name=stage.name)
            for name, value in stage.config.items():
                self.client.log_param(run.info.run_id, name, value)
            return str(run.info.run_id)

        self.run_id = stage.stored_id("mlflow", create)
        self.client.update_run(self.run_id, status="RUNNING")

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(name, value, now, step) for name, value in numbers(metrics).items()]
        self.client.log_batch(self.run_id, metrics=values)

    def log_rollouts(self, table: _Table, step: int) -> None:
        columns = {name: [row[name] for row in table] for name in (table[0] if table else {})}
        self.client.log_table(self.run_id, columns, f"rollouts/step-{step:06d}.json")

    def close(self) -> None:
        self.client.set_terminated(self.run_id)


TRACKERS: dict[str, Callable[[TrackedStage], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
    "trackio": _Trackio,
    "mlflow": _MLflow,
}
