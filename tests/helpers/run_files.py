"""What a run's files hold that must not depend on the machine's mood."""

from typing import Any

import pyarrow.parquet as pq

from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run

OF_THE_MACHINE = ("seconds", "time/", "memory/", "energy/", "efficiency/", "development/seconds")


def rows_of(run: Run) -> list[dict[str, Any]]:
    """The training metrics that must not depend on the machine's mood."""
    return [
        {k: v for k, v in row.items() if not k.startswith(OF_THE_MACHINE)}
        for row in read_metrics(run.metrics)
        if row["stage"] == "train"
    ]


def rollouts_of(run: Run) -> dict[str, list[dict[str, Any]]]:
    files = sorted((run.path / "rollouts").glob("step-*.parquet"))
    return {path.name: pq.read_table(path).to_pylist() for path in files}


def weights_of(run: Run, step: int) -> dict[str, bytes]:
    folder = run.checkpoints / f"step-{step:06d}"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}
