"""What a stage records: a line of metrics.jsonl a step, its warnings, the trackers, and how far
it is to go (`stage.json`).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from openrpt.config.sections import StageName
from openrpt.json_files import read_as, write_sealed
from openrpt.json_lines import write_rows
from openrpt.progress import Progress
from openrpt.runs.advice import how_to, naming
from openrpt.runs.metrics import append_metrics, read_metrics
from openrpt.runs.run import Run
from openrpt.runs.signatures import new_findings
from openrpt.runs.trackers import ROLLOUT_STAGES, Tracker, open_trackers, rollout_table
from openrpt.types import Finding

_UNEVALUATED = "unevaluated"
"""Key of a row of metrics.jsonl whose step's evaluation failed or was left; the next start makes up
for it."""
StageState = Literal["running", "done", "stopped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord:
    """The stage that ran last, or runs: `stage.json` of a run folder. The limits are those that it
    was called with, which need not be those of the run's configuration."""

    stage: str
    steps: int
    seconds: float
    """The time limit; 0 = none."""
    state: StageState
    """The state: `stopped` by a signal (Ctrl-C, SIGTERM, SIGHUP) or an error. A process killed
    otherwise leaves `running`."""

    def write(self, run: Path) -> None:
        """Writes `stage.json` of a run folder. Raises UserError where it can't be written."""
        write_sealed(run / "stage.json", asdict(self))


def read_stage(run: Path) -> StageRecord | None:
    """Returns the stage that ran last; None where none has begun. Raises UserError where the file
    is damaged."""
    path = run / "stage.json"
    if not path.is_file():
        return None
    return read_as(StageRecord, path, advice="the next stage writes it anew")


@dataclass(frozen=True, kw_only=True, eq=False)
class Journal:
    """The records of a stage that runs: its metrics, warnings and trackers."""

    run: Run
    stage: StageName
    rows: list[dict[str, Any]]
    """Rows of this stage, those of earlier starts included."""
    trackers: list[Tracker]
    rollouts_every: int
    changed: dict[str, dict[str, Any]]
    """Settings that hold from the next step on, as `recorded_changes` gives them."""
    progress: Progress
    writes: bool = True
    """Whether rows are written, or only kept here: another process writes the same."""

    def record(
        self, step: int, metrics: dict[str, Any], *, seconds: float, evaluated: bool = True
    ) -> None:
        """Writes the row, with the failure signatures that show for the first time, beside the
        findings that the step has brought as `warnings`. `seconds`: of the stage so far, over all
        starts. `evaluated`: False where the step's evaluation is to be made up for."""
        own: list[Finding] = metrics.pop("warnings", [])
        row = {"stage": self.stage, "step": step, "seconds": seconds} | metrics
        self.rows.append(row)
        if not self.writes:
            return
        found = own + new_findings(self.rows)
        if found:
            row["warnings"] = [finding.as_dict() for finding in found]
        if self.changed:
            row["changed"] = dict(self.changed)
            self.changed.clear()
        if not evaluated:
            row[_UNEVALUATED] = True
        append_metrics(self.run.metrics, row)

    @property
    def unevaluated(self) -> bool:
        """Whether the last step's evaluation is to be made up for."""
        return is_unevaluated(self.rows)

    def amend(self, metrics: dict[str, Any]) -> None:
        """Adds what the last step's evaluation found, once it has been made up for."""
        row = self.rows[-1]
        del row[_UNEVALUATED]
        row |= metrics
        if not self.writes:
            return
        path = self.run.metrics
        others = [other for other in read_metrics(path) if not _same_step(other, row)]
        write_rows(path, [*others, row])

    def tell(self, step: int, metrics: dict[str, Any]) -> None:
        """Says the warnings of the row that was written last; gives the trackers its metrics."""
        for warning in self.rows[-1].get("warnings", []):
            self.progress.say(naming(self.run, f"warning: {Finding(**warning)}"))
            for line in how_to(self.run, warning["helps"], stage=self.stage):
                self.progress.say(f"  {line}")
        for tracker in self.trackers:
            tracker.log(metrics, step)
        if self.trackers and self.stage in ROLLOUT_STAGES and step % self.rollouts_every == 0:
            table = rollout_table(self.run.path, step)
            for tracker in self.trackers:
                tracker.log_rollouts(table, step)


def is_unevaluated(rows: Sequence[dict[str, Any]]) -> bool:
    """Returns whether the evaluation of the last of a stage's rows is to be made up for."""
    return bool(rows) and _UNEVALUATED in rows[-1]


def _same_step(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["stage"], one["step"]) == (other["stage"], other["step"])


def rows_of(run: Run, stage: StageName) -> list[dict[str, Any]]:
    """Returns a stage's rows of a run's metrics.jsonl."""
    return [row for row in read_metrics(run.metrics) if row["stage"] == stage]


@contextmanager
def open_journal(
    run: Run,
    *,
    stage: StageName,
    step: int,
    steps: int,
    seconds: float,
    changed: dict[str, dict[str, Any]],
    progress: Progress,
    writes: bool = True,
) -> Iterator[Journal]:
    """Opens the journal of a stage; at the end `stage.json` says how it ended.

    The run's configuration names the trackers. `step`: the last one that is done; `steps`,
    `seconds`: at most so many in all (infinite = no limit). Not `writes`: nothing is written or
    told, since another process does that. Raises UserError where a tracker's package is missing.
    """
    rows = rows_of(run, stage)
    record = StageRecord(
        stage=stage,
        steps=steps,
        seconds=seconds if math.isfinite(seconds) else 0.0,
        state="running",
    )
    state: StageState = "stopped"
    with ExitStack() as stack:
        trackers = open_trackers(run, stage=stage, step=step) if writes else []
        for tracker in trackers:
            stack.callback(tracker.close)
        journal = Journal(
            run=run,
            stage=stage,
            rows=rows,
            trackers=trackers,
            rollouts_every=run.config.track.rollouts_every,
            changed=changed,
            progress=progress,
            writes=writes,
        )
        if not writes:
            yield journal
            return
        record.write(run.path)
        try:
            yield journal
            state = "done"
        finally:
            replace(record, state=state).write(run.path)
