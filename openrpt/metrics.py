"""Metrics: one JSON object a step in `metrics.jsonl`. The names stand in docs/metrics.md."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openrpt.errors import UserError


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
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            if number < len(lines) - 1:
                raise UserError(f"{path}:{number}: not a JSON object") from None
            continue
        if not isinstance(row, dict) or not {"stage", "step"} <= row.keys():
            raise UserError(f"{path}:{number}: not a line of metrics: no stage and step there")
        rows.append(row)
    return rows


def truncate_metrics(path: Path, stage: str, last_step: int) -> None:
    """Forgets the stage's steps after `last_step`: they are about to be run again."""
    from openrpt.files import write_text

    rows = read_metrics(path)
    kept = [row for row in rows if row["stage"] != stage or row["step"] <= last_step]
    if path.is_file():
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
