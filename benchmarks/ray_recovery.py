"""How long a training on a Ray cluster takes to recover from a worker that is killed.

    python benchmarks/ray_recovery.py [--steps 8] [--out docs/results/ray.json]

A cluster of two nodes, a CPU each, is started on this machine, and a tiny model trains there three
times from the same scores: in one process, on two workers, and on two workers of which one is
killed in the middle. Noted are the seconds from the kill until the step that was lost is whole
again, and whether all three have the same losses and rewards.
"""

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from openrpt.config.loading import load_config
from openrpt.files import write_text
from openrpt.integrations.ray.cluster import Cluster
from openrpt.integrations.ray.training import train_on
from openrpt.runs.run import Run, open_run
from openrpt.stages.score.score import score_corpus
from openrpt.stages.train import train

COMPARED = ("reward/mean", "loss/ntp", "optim/grad_norm")
"""The metrics that are to be the same."""


@dataclass(kw_only=True)
class Watch:
    """A progress that kills a worker behind a step, and notes when each step was whole."""

    kill_after: int = 0
    """0 = none is killed."""
    killed: float = 0.0
    started: float = field(default_factory=time.monotonic)
    steps: list[tuple[int, float]] = field(default_factory=list)
    """(step, seconds since the beginning)."""

    def begin(self, task: str, total: float, unit: str = "") -> None:
        """Does nothing."""

    def update(self, completed: float, note: str = "") -> None:
        """Notes a step, and kills a worker behind the one that is asked for."""
        now = time.monotonic() - self.started
        self.steps.append((int(completed), now))
        if self.kill_after and completed >= self.kill_after and not self.killed:
            self.killed = now
            workers()[-1].kill()

    def say(self, line: str) -> None:
        """Does nothing."""

    def recovery(self) -> float:
        """Seconds from the kill until a step behind the last one before it is whole."""
        return next(at for step, at in self.steps if step > self.kill_after) - self.killed


def workers() -> list[psutil.Process]:
    """Ray Train's workers on the nodes that this process has started."""
    found = psutil.Process().children(recursive=True)
    return [one for one in found if "RayTrainWorker" in " ".join(one.cmdline())]


def scored_run(folder: Path, steps: int) -> Run:
    """A run with scores, in float64: the order of sums is then no matter."""
    config = load_config(
        overrides={
            "run": str(folder / "scored"),
            "model.path": "new:llama?layers=2&width=64&heads=4&mlp=3&context=256&seed=0",
            "model.dtype": "float64",
            "model.threads": 1,
            "corpus.path": "lab:sums",
            "corpus.limit": 60,
            "corpus.min_tokens": 16,
            "prompt.window": 64,
            "prompt.min_context": 4,
            "train.steps": steps,
            "train.documents_per_step": 4,
            "train.positions_per_document": 4,
            "train.group_size": 4,
            "train.eval_every": 0,
            "reward.terms": {"random": 1.0},  # an untrained model is never right
            "checkpoints.every": 2,
        }
    )
    run = open_run(config, min_free_bytes=0)
    score_corpus(config, run.scored)
    return run


def copied(run: Run, name: str) -> Run:
    """The same run in another folder."""
    path = run.path.with_name(name)
    shutil.copytree(run.path, path)
    return Run(path=path, config=run.config.model_copy(update={"run": str(path)}))


def series(run: Run) -> list[list[float]]:
    """What is compared, a row a step."""
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [[row[name] for name in COMPARED] for row in rows]


def largest_difference(one: list[list[float]], other: list[list[float]]) -> float:
    """The largest difference of two series, relative to the larger value."""
    pairs = [
        (a, b)
        for first, second in zip(one, other, strict=True)
        for a, b in zip(first, second, strict=True)
    ]
    return max(abs(a - b) / max(abs(a), abs(b), 1e-300) if a != b else 0.0 for a, b in pairs)


def measure(folder: Path, steps: int) -> dict[str, Any]:
    """Trains three times; returns what is written."""
    import ray
    from ray.cluster_utils import Cluster as Nodes

    scored = scored_run(folder, steps)
    alone, whole, disturbed = (copied(scored, name) for name in ("alone", "whole", "disturbed"))
    began = time.monotonic()
    train(alone)
    seconds = {"alone": time.monotonic() - began}
    small = {"num_cpus": 1, "object_store_memory": 100 << 20}
    nodes = Nodes(initialize_head=True, head_node_args=small | {"include_dashboard": False})
    watched = {"two workers": Watch(), "one killed": Watch(kill_after=steps // 2 + 1)}
    try:
        nodes.add_node(**small)
        ray.init(nodes.address, logging_level="ERROR", log_to_driver=False)
        runs = zip(watched.items(), (whole, disturbed), strict=True)
        for (name, watch), run in runs:
            watch.started = time.monotonic()
            train_on(Cluster(workers=2), run, watch)
            seconds[name] = time.monotonic() - watch.started
    finally:
        ray.shutdown()
        nodes.shutdown()
    killed = watched["one killed"]
    first = next(at for step, at in watched["two workers"].steps if step == 1)
    return {
        "steps": steps,
        "checkpoint_every": scored.config.checkpoints.every,
        "killed_after_step": killed.kill_after,
        "seconds": seconds | {"until_step_1": first, "recovery": killed.recovery()},
        "largest_relative_difference": {
            "two workers": largest_difference(series(alone), series(whole)),
            "one killed": largest_difference(series(alone), series(disturbed)),
        },
        "compared": list(COMPARED),
        "ray": ray.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, two nodes on one machine",
        "load_average": list(os.getloadavg()),
    }


def main() -> None:
    """Measures, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("docs/results/ray.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="openrpt-ray-") as name:
        found = measure(Path(name), given.steps)
    write_text(given.out, json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
