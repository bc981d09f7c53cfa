"""Trains the same run by 1, 2 and 4 processes, and compares loss, reward and rollouts step by step.

    python scripts/parallel_curves.py runs/parallel docs/results/parallel.json

A tiny model from scratch learns text in which each letter follows from the one before; all
processes share this machine's cores, so that times say nothing of several machines. What is there
is not run again. Draws the curves beside the results (`.svg`).
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from openrpt.files import write_text
from openrpt.json_files import json_text
from openrpt.runs.metrics import read_metrics

COUNTS = (1, 2, 4)
DTYPES = ("float64", "float32")
STEPS = 24
_LETTERS = "qzxjkvwbfgpm"
_SETTINGS: dict[str, Any] = {
    "model.path": "new:llama?layers=2&width=64&heads=4&context=128",
    "model.device": "cpu",
    "model.threads": 1,
    "corpus.heldout_fraction": 0.0,
    "corpus.development_fraction": 0.0,
    "corpus.min_tokens": 20,
    "prompt.window": 32,
    "prompt.min_context": 4,
    "prompt.prediction_budget": 4,
    "warmup.steps": 50,
    "warmup.learning_rate": 3e-3,
    "warmup.answer_sharpness": 0.0,
    "warmup.ntp_weight": 0.2,
    "warmup.documents_per_step": 2,
    "warmup.positions_per_document": 8,
    "train.steps": STEPS,
    "train.documents_per_step": 4,
    "train.positions_per_document": 4,
    "train.group_size": 8,
    "train.learning_rate": 1e-3,
    "train.ntp_weight": 0.5,
    "train.algorithm": "dapo",
    "train.dynamic_sampling_from": 4,
    "train.eval_every": 0,
}


def main() -> None:
    """Runs what is missing, and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the runs are put")
    parser.add_argument("results", type=Path, help="the file of results: NAME.json")
    arguments = parser.parse_args()
    found = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "steps": STEPS,
        "dtypes": {dtype: _compared(arguments.folder / dtype, dtype) for dtype in DTYPES},
    }
    write_text(arguments.results, json_text(found))
    write_text(arguments.results.with_suffix(".svg"), _figure(found))
    for dtype, by_count in found["dtypes"].items():
        for count, row in by_count.items():
            print(
                f"{dtype}, {count}: loss off by {row['loss_off']:.1e}, {row['rollouts_other']} of"
                f" {row['rollouts']} rollouts differ, {row['step_seconds']:.2f} s a step"
            )


def _compared(folder: Path, dtype: str) -> dict[str, Any]:
    """Returns what each number of processes came to, beside what one did."""
    begun = folder / "begun"
    if not (begun / "warmup").is_dir():
        begun.mkdir(parents=True, exist_ok=True)
        config, corpus = folder / "config.toml", folder / "corpus.jsonl"
        corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in _texts()))
        own = {"run": str(begun), "corpus.path": str(corpus), "model.dtype": dtype}
        values = (_SETTINGS | own).items()
        config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values))
        for stage in ("score", "warmup"):
            _call([sys.executable, "-m", "openrpt", stage, "--config", str(config)])
    found: dict[str, Any] = {}
    for count in COUNTS:
        run = folder / f"by-{count}"
        if not run.is_dir():
            shutil.copytree(begun, run)
        launcher = ["torchrun", "--nproc-per-node", str(count), "-m", "--"]
        started = time.monotonic()
        _call([*launcher, "openrpt", "train", "--run", str(run)])
        rows = [row for row in read_metrics(run / "metrics.jsonl") if row["stage"] == "train"]
        found[str(count)] = {
            "seconds": time.monotonic() - started,
            "step_seconds": sum(row["time/step"] for row in rows) / len(rows),
            "loss": [row["loss/policy"] + row["loss/ntp"] for row in rows],
            "reward": [row["reward/mean"] for row in rows],
            "norm": [row["optim/grad_norm"] for row in rows],
        }
        _compare(found["1"], found[str(count)], folder / "by-1", run)
    return found


def _compare(expected: dict[str, Any], found: dict[str, Any], one: Path, run: Path) -> None:
    """Adds by how much losses and gradient norms differ, relatively, and how many rollouts do."""
    for name in ("loss", "norm"):
        pairs = zip(found[name], expected[name], strict=True)
        found[f"{name}_off"] = max(abs(a - b) / abs(b) for a, b in pairs)
    drawn, other = _rollouts(run), _rollouts(one)
    found["rollouts"] = len(drawn)
    found["rollouts_other"] = sum(a != b for a, b in zip(drawn, other, strict=False))
    found["rollouts_other"] += abs(len(drawn) - len(other))


def _rollouts(run: Path) -> list[Any]:
    columns = ["document_id", "position", "token_ids", "reward"]
    files = sorted((run / "rollouts").glob("step-*.parquet"))
    return [row for path in files for row in pq.read_table(path, columns=columns).to_pylist()]


def _texts() -> list[str]:
    size = len(_LETTERS)
    return ["".join(_LETTERS[(first + i) % size] for i in range(60)) for first in range(size)]


def _call(command: list[str]) -> None:
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def _figure(found: dict[str, Any]) -> str:
    """Returns an SVG: loss and reward by step, a line a number of processes; the more processes the
    thinner, so that lines on one another are seen."""
    import altair as alt
    import vl_convert

    values = [
        {"processes": count, "step": step + 1, "what": name, "value": value}
        for count, row in found["dtypes"]["float32"].items()
        for name in ("loss", "reward")
        for step, value in enumerate(row[name])
    ]
    widths = alt.Scale(domain=["1", "2", "4"], range=[7, 3.5, 1.2])
    colors = alt.Scale(domain=["1", "2", "4"], range=["#c9d6e8", "#4c78a8", "#e45756"])
    chart = (
        alt.Chart(alt.Data(values=values))
        .mark_line()
        .encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            color=alt.Color("processes:N", title="processes", scale=colors),
            strokeWidth=alt.StrokeWidth("processes:N", title="processes", scale=widths),
            column=alt.Column("what:N", title=None),
        )
        .properties(width=280, height=220)
        .resolve_scale(y="independent")
    )
    svg: str = vl_convert.vegalite_to_svg(chart.to_dict())
    return svg


if __name__ == "__main__":
    main()
