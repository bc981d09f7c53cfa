"""Where a run stands: progress, last metrics, time left, warnings. Read from its files alone."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from openrpt.amounts import count, rough_duration
from openrpt.config.sections import STAGES
from openrpt.errors import UserError
from openrpt.runs.advice import how_to, naming
from openrpt.runs.journal import StageRecord, read_stage
from openrpt.runs.metrics import numbers, readable_metrics
from openrpt.runs.reading import look_at, run_warnings, setting_changes
from openrpt.terminal import printable

_RECENT = 20
"""Steps whose mean time foretells the rest."""
_SILENT_STEPS = 5
"""Time without a new step, in usual steps, after which a stage is quiet: stopped, or in a long
evaluation."""
_SILENT_SECONDS = 120
"""Least such time, in seconds."""

_SHOWN = {
    "reward/mean": "reward",
    "group/flat_fraction": "flat groups",
    "completion/closed_fraction": "closed",
    "policy/entropy": "entropy",
    "loss/imitation": "imitation loss",
    "loss/trace": "trace loss",
    "loss/ntp": "NTP loss",
    "development/reasoning_accuracy": "development",
    "development/ntp_accuracy": "development NTP",
}
"""Metrics of a status, with their names in short: the last value of each."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """A run's state, read from its files."""

    path: str
    stage: str
    """The stage that runs, or ran last; empty before any has."""
    step: int
    goal: int
    """Steps that the stage will have; 0 = unknown, or its time limit ends it sooner."""
    share: float
    """Share of the stage that is done, 0 to 1, by steps or by its time limit, whichever ends
    first."""
    seconds_left: float | None
    """Seconds that the stage will still take; None where nothing can be foretold."""
    age: float | None
    """Seconds since a stage wrote anything."""
    state: str
    """`done`, `running`, `stopped` (by a signal or an error), `quiet` (nothing came for long:
    killed, or in a long evaluation) or `not begun`."""
    last: dict[str, float]
    """The last value of each of a few metrics."""
    warnings: list[dict[str, Any]]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Returns the status as JSON has it."""
        return asdict(self)


def read_status(path: Path, *, now: float | None = None) -> Status:
    """Reads a run's status from its files. `now`: seconds since the epoch, for tests. Raises
    UserError where no run is."""
    run, notes = look_at(path)
    said = list(notes)
    record: StageRecord | None = None
    try:
        record = read_stage(path)
    except UserError as error:
        said.append(str(error))
    rows, left_out = readable_metrics(run.metrics)
    stage = record.stage if record else rows[-1]["stage"] if rows else ""
    own = [row for row in rows if row["stage"] == stage]
    if not rows and not left_out:
        said.append("no metrics yet: no step of a stage is done")
    said += setting_changes(rows)
    age = _age(path, time.time() if now is None else now)
    forecast = _forecast(own, record)
    return Status(
        path=str(path),
        stage=stage,
        step=own[-1]["step"] if own else 0,
        goal=forecast.goal,
        share=forecast.share,
        seconds_left=forecast.seconds_left,
        age=age,
        state=_state(own, record, age),
        last=_last_values(own),
        warnings=[
            warning
            | {
                "helps": naming(run, warning["helps"]),
                "how_to": how_to(run, warning["helps"], stage=warning["stage"]),
            }
            for warning in run_warnings(rows)
            if warning["stage"] in STAGES
        ],
        notes=said,
    )


def _age(run: Path, now: float) -> float | None:
    """Returns the seconds since a stage wrote anything."""
    written = [run / name for name in ("metrics.jsonl", "stage.json") if (run / name).is_file()]
    return max(0.0, now - max(path.stat().st_mtime for path in written)) if written else None


def _step_seconds(rows: Sequence[dict[str, Any]]) -> float:
    """Returns the mean seconds of the last steps, evaluations between them included; 0 = not
    known."""
    timed = [row for row in rows if "seconds" in numbers(row)]
    times = [(row["step"], row["seconds"]) for row in timed[-_RECENT - 1 :]]
    if len(times) > 1:
        (first, began), (last, ended) = times[0], times[-1]
        return (ended - began) / (last - first) if last > first else 0.0
    return times[0][1] / times[0][0] if times else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Forecast:
    """The rest of a stage, as far as it can be foretold."""

    goal: int = 0
    share: float = 0.0
    seconds_left: float | None = None


def _forecast(rows: Sequence[dict[str, Any]], record: StageRecord | None) -> _Forecast:
    """Foretells the rest of a stage by steps or by the time limit, whichever ends first."""
    if record is None:
        return _Forecast()
    step = rows[-1]["step"] if rows else 0
    if record.state == "done":
        return _Forecast(goal=step, share=1.0, seconds_left=0.0)
    mean, spent = _step_seconds(rows), numbers(rows[-1]).get("seconds", 0.0) if rows else 0.0
    by_time = _Forecast()
    if record.seconds:
        left = max(0.0, record.seconds - spent)
        by_time = _Forecast(share=min(1.0, spent / record.seconds), seconds_left=left)
    if not mean:  # no step is done: nothing is known of their speed
        return by_time if record.seconds else _Forecast(goal=record.steps)
    left = max(0.0, (record.steps - step) * mean)
    if by_time.seconds_left is not None and by_time.seconds_left < left:
        return by_time
    return _Forecast(
        goal=record.steps, share=min(1.0, step / max(1, record.steps)), seconds_left=left
    )


def _state(rows: Sequence[dict[str, Any]], record: StageRecord | None, age: float | None) -> str:
    if age is None:
        return "not begun"
    if record and record.state != "running":
        return record.state
    usual = max(_SILENT_SECONDS, _SILENT_STEPS * _step_seconds(rows))
    return "quiet" if age > usual else "running"


def _last_values(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    last: dict[str, float] = {}
    for row in rows:
        last |= numbers(row)
    return {key: last[key] for key in _SHOWN if key in last}


def print_status(status: "Status", console: Console) -> None:
    """Prints where a run stands, in a few lines."""

    put = _putter(console)
    put(Text(printable(status.path), "bold"))
    if status.stage:
        whole = f" of {count(status.goal)}" if status.goal and status.state != "done" else ""
        bar = f"{_bar(status.share)} {status.share:.0%}" if status.share else ""
        put(Text(f"  {status.stage}  step {count(status.step)}{whole}  {bar}"))
        put(Text(f"  {_when(status)}"))
    for key, value in status.last.items():
        put(Text.assemble((f"  {_SHOWN[key]:<16}", "dim"), f"{value:.3f}  ", (key, "dim")))
    for warning in status.warnings:
        where = f"{warning['stage']} step {warning['step']}"
        put(Text(f"  ! {warning['name']} ({where}): {warning['seen']}", "yellow"))
        put(Text(f"    what usually helps: {warning['helps']}", "dim"))
        for line in warning["how_to"]:
            put(Text(f"    {line}", "dim"))
    for note in status.notes:
        put(Text(f"  note: {printable(note)}"))


def _putter(console: Console) -> Callable[[Text], None]:
    return lambda text: console.print(text, soft_wrap=True)


def _bar(share: float, width: int = 24) -> str:
    done = round(share * width)
    return "━" * done + "╌" * (width - done)


def _when(status: "Status") -> str:
    """Returns how long since the last step, and how long still, in words."""
    ago = f"{'last step' if status.step else 'begun'} {rough_duration(status.age or 0)} ago"
    if status.state == "done":
        return f"done, {ago}"
    if status.state == "quiet":
        return f"{ago}: killed, or in a long evaluation; the same command goes on"
    if status.state == "stopped":
        return f"stopped, {ago}; the same command goes on"
    left = status.seconds_left
    return ago if left is None else f"{ago}, about {rough_duration(left)} left"
