"""A short run of a tiny model in float64, as numbers: score, warmup, eight steps of reinforcement
with dynamic sampling, a KL term and the plain next-token loss, and an evaluation.

Only the command line and the run folder's files are used, so that it says the same wherever the
code of a stage lies. To record it anew, after a change that is meant to change results:

    python -m tests.helpers.trajectory
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from openrpt.cli.main import main
from tests.helpers.tiny_model import SMALL, periodic_corpus, tiny_model_folder

FIXTURE = Path(__file__).parents[1] / "fixtures" / "trajectory.json"
SETTINGS: dict[str, Any] = SMALL | {
    "model.dtype": "float64",
    "corpus.heldout_fraction": 0.3,
    "prompt.think_budget": 1,
    "warmup.steps": 60,
    "train.steps": 8,
    "train.dynamic_sampling_from": 3,
    "train.kl_weight": 0.05,
    "train.ntp_weight": 0.5,
    "train.learning_rate": 1e-3,
    "evaluate.positions": 24,
    "evaluate.min_entropy": 0.0,
    "evaluate.samples": 2,
}
METRICS = ("loss/", "reward/mean", "optim/grad_norm", "group/kept", "group/generated")


def trajectory(folder: Path) -> dict[str, Any]:
    """What the run of all stages in `folder` came to: metrics by step, the rollouts' ids and
    rewards, and the evaluation's accuracies."""
    model = tiny_model_folder(folder / "model", family="gpt2", dtype=torch.float64)
    corpus = periodic_corpus(folder / "corpus.jsonl", documents=20)
    run = folder / "run"
    own = {"model.path": str(model), "corpus.path": str(corpus), "run": str(run)}
    config = folder / "config.toml"
    config.write_text(toml(SETTINGS | own))
    for command in (["score"], ["warmup"], ["train"], ["evaluate"]):
        _call([*command, "--config", str(config)])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "metrics": [
            {k: v for k, v in row.items() if k in ("stage", "step") or k.startswith(METRICS)}
            for row in rows
        ],
        "rollouts": [
            [
                [row["document_id"], row["position"], row["token_ids"], row["reward"]]
                for row in pq.read_table(path).to_pylist()
            ]
            for path in sorted((run / "rollouts").glob("step-*.parquet"))
        ],
        "evaluation": {
            label: {mode: entry["summary"][mode]["all"]["value"] for mode in ("ntp", "reasoning")}
            for label, entry in json.loads((run / "evaluation.json").read_text())[
                "evaluations"
            ].items()
        },
    }


def toml(values: dict[str, Any]) -> str:
    """Dotted keys, which TOML takes as they are; JSON's spelling of a value is TOML's, too."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def _call(arguments: list[str]) -> None:
    try:
        main(arguments)
    except SystemExit as stopped:
        if stopped.code:
            raise


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = trajectory(Path(folder))
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FIXTURE
    target.write_text(json.dumps(found) + "\n", encoding="utf-8")
