"""Run folders made of files alone, without a model: what the commands that look at runs read."""

import json
from pathlib import Path
from typing import Any

from openrpt.config.loading import load_config, to_toml
from openrpt.runs.journal import StageRecord, StageState
from openrpt.runs.metrics import append_metrics
from openrpt.runs.rollouts import write_rollouts

WORDS = [b" the", b" sum", b" of", b" two", b" even", b" numbers", b" is", b" even"]

MACHINE = {
    "openrpt": "0.1.0",
    "python": "3.12.0",
    "platform": "Linux",
    "torch": "2.13.0",
    "transformers": "5.16.0",
    "threads": 1,
    "cpus": 2,
    "cuda": None,
}


def rollout(
    document: str = "d0",
    position: int = 3,
    number: int = 0,
    *,
    step: int = 1,
    thought: bytes = b" the | a, probably the sum",
    prediction: bytes | None = b" the",
    reward: float = 1.0,
    **more: Any,
) -> dict[str, Any]:
    """A row of a rollout file."""
    return {
        "step": step,
        "document_id": document,
        "position": position,
        "rollout": number,
        "entropy": 1.5,
        "prefix_end": b"we know that the sum",
        "continuation": WORDS,
        "ntp_prediction": b" the",
        "candidates": [b" the", b" a"],
        "thought": thought,
        "prediction": prediction,
        "reward": reward,
        "exact": reward > 0,
        "reward_terms": [{"name": "prefix", "value": reward}],
        "advantage": 0.5,
        "finish_reason": "stop",
        "token_ids": [1, 2],
        "sampler_logprobs": [0.0, -0.5],
        "loss_mask": [False, True],
    } | more


def train_row(step: int, **values: Any) -> dict[str, Any]:
    """A row of metrics.jsonl."""
    row = {"stage": "train", "step": step, "seconds": 10.0 * step}
    row |= {"reward/mean": 0.4, "group/flat_fraction": 0.5}
    row |= {"time/generate": 4.0, "time/update": 6.0, "time/step": 10.0}
    return row | values


def fake_run(
    path: Path,
    *,
    steps: int = 4,
    train_steps: int = 10,
    seconds: float = 0.0,
    state: StageState = "running",
    **overrides: Any,
) -> Path:
    """A run of some steps, with the rollouts of each: two documents, two positions, two each."""
    path.mkdir(parents=True)
    given = {"run": str(path), "train.steps": train_steps}
    given |= {key.replace("__", "."): value for key, value in overrides.items()}
    (path / "config.toml").write_text(to_toml(load_config(overrides=given)), encoding="utf-8")
    (path / "environment.json").write_text(json.dumps(MACHINE), encoding="utf-8")
    if steps:
        StageRecord(stage="train", steps=train_steps, seconds=seconds, state=state).write(path)
    for step in range(1, steps + 1):
        append_metrics(path / "metrics.jsonl", train_row(step))
        rows = [
            rollout(document, position, number, step=step)
            for document in ("d0", "d1")
            for position in (3, 9)
            for number in (0, 1)
        ]
        write_rollouts(path, step, rows)
    return path
