"""Metrics: one JSON object a step in `metrics.jsonl`. The names stand in docs/metrics.md."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openrpt.errors import UserError
from openrpt.files import append_line, reason_of, write_text


class PhaseTimer:
    """Seconds by phase of one step: `with timer("generate"): …`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.seconds[phase] = self.seconds.get(phase, 0.0) + elapsed

    def metrics(self) -> dict[str, float]:
        return {f"time/{phase}": seconds for phase, seconds in self.seconds.items()}


def peak_memory_gib() -> float:
    """Greatest resident memory of this process so far, in GiB."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**30
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB; bytes on macOS
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def append_metrics(path: Path, values: dict[str, Any]) -> None:
    """The row is on the disk when this returns, so that a checkpoint never has steps that the
    metrics lack: 1 ms on an SSD. Raises UserError where it can't be written."""
    append_line(path, json.dumps(values))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All rows; a last line that was cut off is left out. Raises UserError for a damaged line
    before it, and for a file that may not be read."""
    rows, damaged, _ = _read(path)
    if damaged:
        lines = "that line" if len(damaged) == 1 else f"the lines {', '.join(map(str, damaged))}"
        raise UserError(
            f"{path}:{damaged[0]}: damaged, not a line of metrics; delete {lines}, and the run goes"
            " on without"
        )
    return rows


def readable_metrics(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows that can be read, and what is to be said of the rest."""
    try:
        rows, damaged, cut = _read(path)
    except UserError as error:
        return [], [str(error)]
    notes = [f"{path.name}:{number}: damaged and left out" for number in damaged[:3]]
    if len(damaged) > 3:
        notes.append(f"{path.name}: {len(damaged) - 3} more lines are damaged and left out")
    return rows, notes + [f"{path.name}: its last line is cut off and left out"] * cut


def _read(path: Path) -> tuple[list[dict[str, Any]], list[int], bool]:
    """Rows, numbers of damaged lines, and whether the last line is cut off."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], [], False
    except OSError as error:
        raise UserError(f"{path}: cannot be read {reason_of(error)}") from None
    found = {number: _row(line) for number, line in enumerate(lines, 1) if line}
    damaged = [number for number, row in found.items() if row is None]
    cut = bool(damaged) and damaged[-1] == max(found)
    return [row for row in found.values() if row is not None], damaged[: -1 if cut else None], cut


def _row(line: bytes) -> dict[str, Any] | None:
    """None for what is no row of metrics."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, or no UTF-8
        return None
    if not isinstance(row, dict) or not isinstance(row.get("stage"), str):
        return None
    warnings = row.get("warnings", [])
    known = isinstance(warnings, list) and all(isinstance(one, dict) for one in warnings)
    return row if known and type(row.get("step")) is int else None


def truncate_metrics(path: Path, stage: str, last_step: int) -> None:
    """Forgets the stage's steps after `last_step`: they are about to be run again."""
    rows = read_metrics(path)
    kept = [row for row in rows if row["stage"] != stage or row["step"] <= last_step]
    if path.is_file():
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
