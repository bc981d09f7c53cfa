"""Metrics: one JSON object a step in `metrics.jsonl`. The names stand in docs/metrics.md."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from openrpt.errors import UserError
from openrpt.json_lines import JsonLines, Row, append_row, read_lines, write_rows

if TYPE_CHECKING:
    import torch

_LARGEST_STEP = 10**9
_FINDING = {"name": str, "step": int, "seen": str, "helps": str}
"""The fields of a warning in a row, those of `openrpt.types.Finding`, with their types."""


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
        """Returns the seconds by phase as metrics."""
        return {f"time/{phase}": seconds for phase, seconds in self.seconds.items()}


def peak_memory_gib() -> float:
    """Returns the greatest resident memory of this process so far, in GiB."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**30
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB; bytes on macOS
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def memory_metrics(device: "torch.device") -> dict[str, float]:
    """Returns this process's resident memory, now and at its greatest so far, and the most that it
    had on the policy's device so far, where that is a GPU; in GiB."""
    resident = psutil.Process().memory_info().rss / 2**30
    found = {"memory/resident_gib": resident, "memory/peak_gib": peak_memory_gib()}
    if device.type == "cuda":
        import torch  # the report reads metrics without it

        found["memory/gpu_peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return found


def append_metrics(path: Path, values: dict[str, Any]) -> None:
    """Appends a row, which is on the disk when this returns, so that a checkpoint never has steps
    that the metrics lack. Raises UserError where it can't be written."""
    append_row(path, values)


def read_metrics(path: Path) -> list[Row]:
    """Returns all rows; a last line that was cut off is left out. Raises UserError for a damaged
    line before it, and for a file that may not be read."""
    found = read_lines(path, fits=_is_of_a_step)
    if found.damaged:
        numbers = ", ".join(map(str, found.damaged))
        lines = "that line" if len(found.damaged) == 1 else f"the lines {numbers}"
        raise UserError(
            f"{path}:{found.damaged[0]}: damaged, not the line of a step that was written; delete"
            f" {lines}, and the run goes on without"
        )
    return _known(found)


def readable_metrics(path: Path) -> tuple[list[Row], list[str]]:
    """Returns the rows that can be read, and what is to be said of the rest."""
    try:
        found = read_lines(path, fits=_is_of_a_step)
    except UserError as error:
        return [], [str(error)]
    damaged = found.damaged
    notes = [f"{path.name}:{number}: damaged and left out" for number in damaged[:3]]
    if len(damaged) > 3:
        notes.append(f"{path.name}: {len(damaged) - 3} more lines are damaged and left out")
    if found.cut:
        notes.append(f"{path.name}: its last line is cut off and left out")
    return _known(found), notes


def _known(found: JsonLines) -> list[Row]:
    """Returns the rows without what is null, which was a number that is not finite."""
    return [{key: value for key, value in row.items() if value is not None} for row in found.rows]


def _is_of_a_step(row: Row) -> bool:
    """Returns whether a row, of works.jsonl as of metrics.jsonl, has what the code that reads it
    relies on."""
    step, changed = row.get("step"), row.get("changed", {})
    return (
        isinstance(row.get("stage"), str)
        and type(step) is int
        and 0 < step <= _LARGEST_STEP
        and _all_hold(row.get("warnings", []), _FINDING)
        and isinstance(changed, dict)
        and _all_hold(list(changed.values()), {"before": object, "now": object})
        and all(value is None or is_number(value) for key, value in row.items() if "/" in key)
        and is_number(row.get("seconds") or 0.0)
    )


def _all_hold(values: object, kinds: Mapping[str, type]) -> bool:
    return isinstance(values, list) and all(
        isinstance(one, dict)
        and all(key in one and isinstance(one[key], kind) for key, kind in kinds.items())
        for one in values
    )


def is_number(value: object) -> bool:
    """Returns whether a value is a finite number; True and False count."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Returns the finite numbers among the values."""
    return {name: float(value) for name, value in values.items() if is_number(value)}


def truncate_metrics(path: Path, stage: str, last_step: int) -> None:
    """Forgets the stage's steps after `last_step`: they are about to be run again."""
    rows = read_metrics(path)
    kept = [row for row in rows if row["stage"] != stage or row["step"] <= last_step]
    if path.is_file():
        write_rows(path, kept)
