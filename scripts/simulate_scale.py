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
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from openrpt.config.corpus import CorpusConfig
from openrpt.config.loading import load_config
from openrpt.config.sections import Config
from openrpt.data.curriculum import read_curriculum
from openrpt.data.documents import CorpusCounts, read_corpus
from openrpt.data.evaluation_work import evaluation_work
from openrpt.data.positions import ScoredDocument
from openrpt.data.prompts import build_layout
from openrpt.data.score_summary import SCORED, ScoreSummary
from openrpt.data.scored import ScoredCorpus, load_scored
from openrpt.data.scored_shards import complete_shards, remove_shards, shard_paths, write_shard
from openrpt.data.training_work import take_work
from openrpt.data.work import Work
from openrpt.engine.checkpoint_record import TrainerState, read_record, write_record
from openrpt.engine.new_models import byte_tokenizer
from openrpt.files import write_sealed, write_text
from openrpt.rl.collect import Collector
from openrpt.seeding import generator
from openrpt.stages.score.said import score_lines
from openrpt.terminal import say
from openrpt.types import Completion, Group, Prompt, Rollout

_VOCABULARY = 50_000
_MEAN_TOKENS = 500.0
"""Tokens of a document, in the geometric mean; half of them have between 250 and 1,000."""
_LONGEST = 16_000
_KINDS = 5
_SPLITS = (("heldout", 0.05), ("development", 0.06), ("train", 1.0))
"""Each split with the share of documents up to its end."""
_EPOCHS_ON = 3
_READ = 500
"""Documents that are read from a file of texts."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Made-up tokens: a word each, with a space before it, as frequent as words are."""

    words: list[str]
    lengths: np.ndarray  # [V] bytes
    cumulative: np.ndarray  # [V] probability of this token or one before it


def vocabulary() -> Vocabulary:
    """Returns tokens of 2 to 7 bytes, frequent ones short, by Zipf's law."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    lengths = np.minimum(1 + np.log2(np.arange(_VOCABULARY) + 2).astype(int) // 3, 6)
    words = [" " + "".join(letters[rng.integers(0, 26, n)]) for n in lengths]
    weights = 1 / (np.arange(_VOCABULARY) + 2.7)
    return Vocabulary(
        words=words, lengths=lengths + 1, cumulative=np.cumsum(weights / weights.sum())
    )


def document(number: int, tokens: Vocabulary) -> ScoredDocument:
    """Returns document `number`: a pure function of it, its scores as incompressible as real ones
    at most."""
    rng = np.random.Generator(np.random.Philox(key=number))
    count = int(np.clip(rng.lognormal(np.log(_MEAN_TOKENS), 1.0), 40, _LONGEST))
    ids = np.searchsorted(tokens.cumulative, rng.random(count)).clip(0, _VOCABULARY - 1)
    lengths = tokens.lengths[ids]
    entropy = rng.gamma(0.7, 1.6, count).astype(np.float32)
    surprise = (entropy * rng.exponential(1.0, count)).astype(np.float32)
    surprise[0] = entropy[0] = np.nan  # nothing stands before it
    right = rng.random(count) < np.exp(-surprise)
    guess = np.searchsorted(tokens.cumulative, rng.random(count)).clip(0, _VOCABULARY - 1)
    side = rng.random()
    return ScoredDocument(
        document_id=hashlib.sha256(str(number).encode()).hexdigest()[:16],
        key=str(number),
        split=next(name for name, end in _SPLITS if side < end),  # type: ignore[arg-type]
        source=f"synthetic:{number}",
        text="".join([tokens.words[i] for i in ids.tolist()]),
        kind=str(1 + number % _KINDS),
        token_ids=ids,
        byte_offsets=np.cumsum(lengths) - lengths,
        negative_log_likelihood=surprise,
        entropy=entropy,
        entropy_top16=(entropy * np.float32(0.9)),
        ntp_token_id=np.where(right, ids, guess),
        ntp_correct=right,
    )


def write(folder: Path, config: Config, positions: int) -> dict[str, Any]:
    """Writes the corpus as `openrpt score` does, and goes on behind the whole shards that are
    there."""
    tokens, summary = vocabulary(), ScoreSummary()
    folder.mkdir(parents=True, exist_ok=True)
    if shards := complete_shards(folder):
        stored = pq.read_schema(shard_paths(folder, shards - 1)[1]).metadata
        summary = ScoreSummary(**json.loads(stored[b"openrpt.summary"]))
    remove_shards(folder, shards)
    pending: list[ScoredDocument] = []
    waiting = spent = written = 0.0
    while summary.num_tokens < positions:
        one = document(summary.documents, tokens)
        pending.append(one)
        waiting += one.num_tokens
        summary.documents += 1
        summary.tokens[one.split] = summary.tokens.get(one.split, 0) + one.num_tokens
        if waiting >= config.score.shard_tokens or summary.num_tokens >= positions:
            summary.shards += 1
            start = time.perf_counter()
            write_shard(folder, summary.shards - 1, pending, {"summary": asdict(summary)})
            spent, written = spent + time.perf_counter() - start, written + waiting
            pending, waiting = [], 0
    about = {"finished": True, "scorer": "synthetic", "tokenizer": "synthetic", "settings": {}}
    write_sealed(folder / SCORED, about | {"summary": asdict(summary)})
    return {
        "documents": summary.documents,
        "positions": summary.num_tokens,
        "shards": summary.shards,
        "tokens_per_second": written / spent if spent else None,
        "bytes_per_token": _bytes_per_token(folder, summary),
    }


def _bytes_per_token(folder: Path, summary: ScoreSummary) -> dict[str, float]:
    """Returns the bytes on disk a token, by column; all else is the files' own."""
    sizes: dict[str, float] = {}
    whole = 0
    for shard in range(summary.shards):
        for path in shard_paths(folder, shard):
            stored = pq.read_metadata(path)
            whole += path.stat().st_size
            for group in range(stored.num_row_groups):
                for column in range(stored.num_columns):
                    chunk = stored.row_group(group).column(column)
                    name = f"{path.name.split('-')[0]}.{chunk.path_in_schema.split('.')[0]}"
                    sizes[name] = sizes.get(name, 0) + chunk.total_compressed_size
    found = {name: size / summary.num_tokens for name, size in sizes.items()}
    return found | {"all": whole / summary.num_tokens}


class Synthetic:
    """Engine and task in one, without a model: rollouts are right as often as the scorer says."""

    baseline = None

    def __init__(self, corpus: ScoredCorpus, config: Config) -> None:
        self.corpus, self.config = corpus, config
        nothing = (False,) * 8
        self.completion = Completion(
            token_ids=(0,) * 8, sampler_logprobs=(0.0,) * 8, loss_mask=nothing, finish_reason="stop"
        )

    def take(self, state: TrainerState) -> Iterator[tuple[int, Work]]:
        """Takes works as `openrpt.stages.text_task.TextTask` does."""
        return take_work(
            self.corpus,
            self.config,
            cursor=state.cursor,
            count=self.config.train.positions_per_document,
            purpose="positions",
            pass_rates=state.pass_rates,
        )

    def generate_each(self, requests: Sequence[Any], *_: Any) -> Iterator[list[Any]]:
        """Yields nothing for each request: `grade` makes up what came of it."""
        return iter([[] for _ in requests])

    def grade(self, work: Work, generated: Any, step: int) -> list[Group]:
        """Returns a group a position, from draws that are keyed by step and place."""
        groups = []
        for position in work.positions:
            rng = generator(self.config.seed, step, position.document_id, position.index)
            chance = np.exp(-work.document.negative_log_likelihood[position.index])
            exact = (rng.random(self.config.train.group_size) < chance).tolist()
            rollouts = tuple(
                Rollout(
                    completion=self.completion,
                    thought=b"",
                    prediction=b"",
                    exact=one,
                    reward=float(one),
                )
                for one in exact
            )
            prompt = Prompt(position=position, head_ids=(), prefix_ids=(), tail_ids=())
            groups.append(Group(prompt=prompt, rollouts=rollouts, ntp_token_id=0))
        return groups


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
    corpus, asked = load_scored(folder), config.evaluate
    start = time.perf_counter()
    works = evaluation_work(
        corpus,
        config,
        split=asked.split,
        positions=asked.positions,
        positions_per_document=asked.positions_per_document,
        min_entropy=asked.min_entropy,
    )
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
        "write": lambda: write(folder, config, positions),
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
