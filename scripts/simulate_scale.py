"""What a large corpus asks of one machine: the real shards, reader and scheduler, no model.

    python scripts/simulate_scale.py --folder /tmp/scale --out docs/results/scale.json

Writes scored shards of synthetic documents with the package's own writer until they hold as many
positions as are asked for. Then each part runs in a process of its own, so that its peak memory is
its own: opening the scores, the works of training steps in their keyed order (the real `Collector`
with made-up rollouts in the place of a model's), the same steps gone on with from a checkpoint's
record, a cursor some epochs on, the evaluation's positions, a curriculum, and the lines that
`openrpt score` ends with. Needs about 2 GB of disk for 10⁸ positions, which it removes again.
"""

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_corpus import document, vocabulary, write_corpus
from synthetic_task import Synthetic

from openrpt.config.corpus import CorpusConfig
from openrpt.config.loading import load_config
from openrpt.config.sections import Config
from openrpt.data.corpus_counts import CorpusCounts
from openrpt.data.curriculum import read_curriculum
from openrpt.data.documents import read_corpus
from openrpt.data.evaluation_work import asked_evaluation_work
from openrpt.data.prompts import build_layout
from openrpt.data.scored import load_scored
from openrpt.data.training_work import take_work
from openrpt.engine.checkpoint_record import TrainerState, read_record, write_record
from openrpt.engine.new_models import byte_tokenizer
from openrpt.files import write_text
from openrpt.rl.collect import Collector
from openrpt.stages.score.said import score_lines
from openrpt.terminal import say

_EPOCHS_ON = 3
_READ = 500
"""Documents that are read from a file of texts."""


def _steps(folder: Path, config: Config, state: TrainerState, upto: int) -> dict[str, Any]:
    """Takes steps up to number `upto`, and says what they took and a hash of all their places."""
    start = time.perf_counter()
    corpus = load_scored(folder)
    opened = time.perf_counter() - start
    task: Any = Synthetic(corpus, config)
    layout = build_layout(byte_tokenizer(), config.prompt, ())
    collector = Collector(config=config, sampler=task, task=task, layout=layout)
    digest, spent, positions = hashlib.sha256(), [], 0
    while state.step < upto:
        state.step += 1
        start = time.perf_counter()
        _, generated = collector.collect(state)
        spent.append(time.perf_counter() - start)
        for graded in generated:
            places = [position.index for position in graded.work.positions]
            positions += len(places)
            digest.update(json.dumps([graded.work.document.document_id, places]).encode())
    return {
        "opened_seconds": opened,
        "steps": len(spent),
        "positions": positions,
        "first_step_seconds": spent[0],
        "median_step_seconds": float(np.median(spent[1:])),
        "slowest_later_step_seconds": max(spent[1:]),
        "places": digest.hexdigest(),
    }


def read(scratch: Path) -> dict[str, Any]:
    """Reads the first documents from a file, as scoring does before it runs a model: templates,
    splits, and the index of what is there twice."""
    tokens, corpus = vocabulary(), scratch / "corpus.jsonl"
    scratch.mkdir(parents=True, exist_ok=True)
    count = 0
    with corpus.open("w", encoding="utf-8") as file:
        for number in range(_READ):
            one = document(number, tokens)
            count += one.num_tokens
            file.write(json.dumps({"text": one.text}) + "\n")
    asked = CorpusConfig(path=str(corpus))
    start = time.process_time()
    with closing(read_corpus(asked, CorpusCounts())) as documents:
        found = sum(1 for _ in documents)
    seconds = time.process_time() - start
    return {"documents": found, "tokens": count, "tokens_per_cpu_second": count / seconds}


def train(folder: Path, config: Config, scratch: Path, steps: int) -> dict[str, Any]:
    """Takes half of the steps, writes the record of a checkpoint there, and takes the rest."""
    state = TrainerState(stage="train")
    first = _steps(folder, config, state, steps // 2)
    kept = scratch / f"step-{state.step:06d}"
    kept.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    write_record(kept, state, config)
    record = {
        "record_seconds": time.perf_counter() - start,
        "record_bytes": (kept / "checkpoint.json").stat().st_size,
    }
    return {"first": first, "rest": _steps(folder, config, state, steps)} | record


def resume(folder: Path, config: Config, scratch: Path, steps: int) -> dict[str, Any]:
    """Takes the second half of the steps from the record."""
    start = time.perf_counter()
    state = read_record(scratch / f"step-{steps // 2:06d}").state
    read = time.perf_counter() - start
    return {"record_read_seconds": read} | _steps(folder, config, state, steps)


def skip(folder: Path, config: Config) -> dict[str, Any]:
    """Takes the first step's works at a cursor that is epochs on."""
    corpus = load_scored(folder)
    cursor = _EPOCHS_ON * len(corpus.ids("train")) + 12_345
    start = time.perf_counter()
    supply = take_work(corpus, config, cursor=cursor, count=16, purpose="positions")
    works = list(islice(supply, config.train.documents))
    return {"cursor": cursor, "seconds": time.perf_counter() - start, "works": len(works)}


def evaluate(folder: Path, config: Config) -> dict[str, Any]:
    """Chooses the positions of `openrpt evaluate`."""
    corpus = load_scored(folder)
    start = time.perf_counter()
    works = asked_evaluation_work(corpus, config)
    found = sum(len(work.positions) for work in works)
    return {"seconds": time.perf_counter() - start, "positions": found}


def curriculum(folder: Path, config: Config) -> dict[str, Any]:
    """Opens a curriculum that begins with one kind of five, and takes a step's works of it."""
    corpus = load_scored(folder)
    selection = config.selection.model_copy(update={"curriculum": 1})
    start = time.perf_counter()
    rule = read_curriculum(corpus, selection)
    assert rule is not None
    opened = time.perf_counter() - start
    kinds = rule.open_kinds(0)
    supply = take_work(corpus, config, cursor=0, count=16, purpose="positions", kinds=kinds)
    start = time.perf_counter()
    works = list(islice(supply, config.train.documents))
    assert {work.document.kind for _, work in works} == set(kinds)
    return {"opened_seconds": opened, "step_seconds": time.perf_counter() - start}


def said(folder: Path, config: Config) -> dict[str, Any]:
    """Makes the lines that `openrpt score` ends with: one pass over all scores."""
    corpus = load_scored(folder)
    start = time.perf_counter()
    lines = list(score_lines(corpus, config))
    return {"seconds": time.perf_counter() - start, "lines": lines}


def settings(strategy: str, scratch: Path) -> Config:
    """Returns the paper's setting, as a step takes its works by it."""
    named = {"selection.strategy": strategy, "run": str(scratch / "run"), "corpus.kind": "kind"}
    return load_config("recipe:paper", named)


def part(name: str, folder: Path, positions: int, steps: int) -> dict[str, Any]:
    """Runs one part in this process."""
    scratch = folder.parent / f"{folder.name}-scratch"
    strategy = name.partition(":")[2] or "entropy"
    config, kept = settings(strategy, scratch), scratch / strategy
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "write": lambda: write_corpus(folder, config, positions),
        "read": lambda: read(kept),
        "train": lambda: train(folder, config, kept, steps),
        "resume": lambda: resume(folder, config, kept, steps),
        "skip": lambda: skip(folder, config),
        "evaluate": lambda: evaluate(folder, config),
        "curriculum": lambda: curriculum(folder, config),
        "said": lambda: said(folder, config),
    }
    start = time.perf_counter()
    found = parts[name.partition(":")[0]]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux: in KiB
    return found | {"all_seconds": time.perf_counter() - start, "peak_gb": peak / 1e9}


PARTS = (
    "write",
    "read",
    "train:entropy",
    "resume:entropy",
    "train:pass_rate",
    "resume:pass_rate",
    "skip",
    "evaluate",
    "curriculum",
    "said",
)


def main() -> None:
    """Runs all parts, one process after another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the shards are written")
    parser.add_argument("--positions", type=int, default=100_000_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, help="the JSON with the results")
    parser.add_argument("--keep", action="store_true", help="leave the shards there")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--part", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(part(given.part, given.folder, given.positions, given.steps)))
        return
    found: dict[str, Any] = {"positions": given.positions, "steps": given.steps}
    for name in given.parts.split(","):
        command = [sys.executable, __file__, "--folder", str(given.folder), "--part", name]
        command += ["--positions", str(given.positions), "--steps", str(given.steps)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[name] = json.loads(done.stdout)
        say(f"{name}: {json.dumps(found[name])}")
    for strategy in ("entropy", "pass_rate"):
        if f"train:{strategy}" in found and f"resume:{strategy}" in found:
            rest = found[f"train:{strategy}"]["rest"]
            assert found[f"resume:{strategy}"]["places"] == rest["places"], "resumed elsewhere"
    if given.out:
        write_text(given.out, json.dumps(found, indent=1) + "\n")
    if not given.keep:
        shutil.rmtree(given.folder)
        shutil.rmtree(given.folder.parent / f"{given.folder.name}-scratch")


if __name__ == "__main__":
    main()
