"""The files that `openrpt scaling` reads (runs), writes (JSON, tables, a figure) and prints."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from openrpt.data.positions import DIFFICULTIES
from openrpt.errors import UserError
from openrpt.evaluation.scaling.figure import figure
from openrpt.evaluation.scaling.scaling import Analysis, Point
from openrpt.evaluation.scaling.table import fit_rows, scaling_sheets
from openrpt.files import csv_text, write_text
from openrpt.json_files import json_text
from openrpt.runs.checkpoints import latest_checkpoint
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, existing_run
from openrpt.sheets import markdown, print_sheet

_ACCURACY = "development/reasoning_accuracy"
_NAME = "scaling.json"


def read_points(sources: Sequence[str]) -> list[Point]:
    """Reads the points of all runs. Raises UserError where one has none."""
    return [point for source in sources for point in _run_points(existing_run(Path(source)))]


def _run_points(run: Run) -> list[Point]:
    """Returns a point for each development evaluation and difficulty; compute is that of the
    training steps so far (generation and update; scoring, warmup and evaluation are not in it)."""
    size = _model_size(run)
    points, flops = [], 0.0
    for row in read_metrics(run.metrics):
        if row["stage"] != "train":
            continue
        flops += row["flops/generate"] + row["flops/update"]
        if _ACCURACY not in row:
            continue
        by_difficulty = {
            n: row[f"{_ACCURACY}/{n}"] for n in DIFFICULTIES if f"{_ACCURACY}/{n}" in row
        }
        for name, accuracy in (by_difficulty or {"all": row[_ACCURACY]}).items():
            points.append(
                Point(
                    compute=flops,
                    accuracy=accuracy,
                    difficulty=name,
                    model_size=size,
                    source=f"{run.path}, step {row['step']}",
                )
            )
    if not points:
        raise UserError(
            f"{run.metrics}: no development evaluation; train with train.eval_every above 0 and a"
            " development split"
        )
    return points


def _model_size(run: Run) -> float | None:
    """Returns the parameters of the run's latest checkpoint; None without one."""
    folder = latest_checkpoint(run.checkpoints)
    return None if folder is None else float(parameters_in(folder))


def parameters_in(folder: Path) -> int:
    """Returns the number of a model's weights, from its files' headers."""
    from safetensors import safe_open

    total = 0
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            total += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    return total


def output_folder(sources: Sequence[str], output: str | None) -> Path:
    """Returns the folder of the files. Raises UserError for a folder that holds something else."""
    folder = Path(output or (Path(sources[0]) / "scaling" if len(sources) == 1 else "scaling"))
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: a file of that name stands there")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _NAME).is_file():
        raise UserError(f"--out {folder}: the folder is not empty and not of openrpt scaling")
    return folder


def write_scaling(found: Analysis, folder: Path) -> list[Path]:
    """Writes scaling.json (everything, the points too), .csv (a row a fit), .md (the tables), .svg
    and returns their paths."""
    texts = {
        "scaling.csv": csv_text(fit_rows(found)).replace("−", "-"),  # for programs that read it
        "scaling.md": "\n".join(map(markdown, scaling_sheets(found))),
        "scaling.svg": figure(found.series),
        _NAME: json_text(asdict(found)),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def print_scaling(found: Analysis, console: Console) -> None:
    """Prints the tables of `scaling_sheets`, one below the other."""
    for sheet in scaling_sheets(found):
        print_sheet(sheet, console)
