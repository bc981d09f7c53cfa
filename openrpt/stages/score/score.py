"""The scorer's pass over a corpus: what it says of every token, from plain text alone.

Each token gets its negative log-likelihood, the entropy of its distribution (the difficulty),
the same over the 16 most probable, and whether standard prediction was right. Documents are
scored in their order, some at a time; whole shards are written (`openrpt.data.scored`), and a
restart goes on after the last one. Memory does not grow with the corpus.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import Any

from openrpt.config.corpus import CorpusConfig
from openrpt.config.sections import Config
from openrpt.costs.meters import WorkMeter
from openrpt.data.corpus_size import expected_tokens
from openrpt.data.documents import CorpusCounts, possible_splits, read_corpus
from openrpt.data.positions import ScoredDocument, check_window
from openrpt.data.scored import (
    SCORED,
    ScoreSummary,
    complete_shards,
    load_scored,
    read_metadata,
    read_scored_json,
    remove_shards,
    shard_paths,
    write_shard,
)
from openrpt.data.skipped import skipped_lines
from openrpt.engine.engine import Engine, open_engine
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.engine.loading import resolve_model
from openrpt.engine.scorer import PACK_TOKENS
from openrpt.errors import UserError
from openrpt.files import read_json, write_sealed, writing
from openrpt.progress import Progress
from openrpt.runs.metrics import numbers
from openrpt.runs.run import Run
from openrpt.runs.scores import (
    require_same_settings,
    require_same_weights,
    score_settings,
)
from openrpt.stages.harness import done_before
from openrpt.stages.score.documents import Encoded, Job, Report
from openrpt.stages.score.said import score_lines
from openrpt.types import Document

_WAITING_TOKENS = 4 * PACK_TOKENS
"""The number of tokens of documents that wait to be packed: of few, the last pass is half empty."""
_SHARD_SECONDS = 60.0
"""Seconds after which a shard is written, full or not: what a restart can lose."""
COST = "cost.json"
"""The file with what scoring has taken, all starts together; the other files hold nothing of the
machine."""


def check_input(run: Run) -> None:
    """Checks that scoring could begin, or has ended. Raises UserError for a corpus or a model that
    can't be read, or a window that doesn't fit."""
    config = run.config
    if _finished(run.scored, complete_shards(run.scored)):
        return
    check_window(config.prompt.window, config.prompt.min_context)
    _check_corpus(config.corpus)
    for model in filter(None, (config.model.path, config.score.model)):
        resolve_model(model)


def _check_corpus(corpus: CorpusConfig) -> None:
    """Reads the first document of the corpus, and of the held-out one. Raises UserError."""
    for path in filter(None, (corpus.path, corpus.heldout_path)):
        one = corpus.model_copy(update={"path": path, "heldout_path": ""})
        with closing(read_corpus(one, CorpusCounts())) as documents:
            next(documents)


def score_run(run: Run, progress: Progress) -> ScoreSummary:
    """Scores a run's corpus into its folder, as `score_corpus`, and says what was scored and what
    was skipped."""
    if _finished(run.scored, complete_shards(run.scored)):
        progress.say(done_before(run, "score"))
    progress.begin("load the scorer", 0)
    begun = False

    def update(tokens: int, note: str) -> None:
        nonlocal begun
        if not begun:
            progress.begin("score", expected_tokens(run.config), "tokens, at a guess")
            begun = True
        progress.update(tokens, note)

    summary = score_corpus(run.config, run.scored, progress=update)
    corpus = load_scored(run.scored)
    for line in (*skipped_lines(corpus.metadata), *score_lines(corpus, run.config)):
        progress.say(line)
    return summary


def score_corpus(
    config: Config,
    folder: Path,
    *,
    policy: Engine | None = None,
    scorer: Engine | None = None,
    progress: Report = lambda tokens, text: None,
) -> ScoreSummary:
    """Scores config.corpus into `folder` and goes on from where an earlier start stopped.

    `policy`, whose tokens the positions are, and `scorer` are loaded where they are not given.
    Documents stay whole: a split ends with the document that reaches score.max_tokens. Raises
    UserError for scores of other settings, a corpus that changed meanwhile or has no usable
    document, a window that does not fit, and files that can't be read or written.
    """
    check_window(config.prompt.window, config.prompt.min_context)
    given = [None if one is None else one.model for one in (policy, scorer)]
    settings = score_settings(config, *given)
    # Models that are given have no files that are read here.
    names = {} if policy else {"model.path": config.model.path}
    if scorer is None and (policy is None or config.score.model):
        names["score.model"] = str(settings["score.model"])
    shards = complete_shards(folder)
    before = read_metadata(shard_paths(folder, shards - 1)[1]) if shards else None
    if before is not None:
        require_same_settings(folder, before["settings"], settings)
        require_same_weights(folder, before, names)
        if policy is None and (finished := _finished(folder, shards)):
            return finished
    _check_corpus(config.corpus)  # before a model is loaded
    policy = policy or open_engine(config)
    if scorer is None:
        other = config.score.model
        scorer = open_engine(config, path=other) if other else policy
    meter = WorkMeter(scorer, config)
    job = Job(config=config, policy=policy.model, scorer=scorer.model, meter=meter)
    if before is not None:
        require_same_settings(folder, before, {"tokenizer": job.tokenizer})
        if finished := _finished(folder, shards):
            return finished
    remove_shards(folder, shards)
    about = {"scorer": settings["score.model"], "tokenizer": job.tokenizer, "settings": settings}
    about["weights"] = {key: model_fingerprint(name) for key, name in names.items()}
    if shards:
        _write_unfinished(folder, about)
    summary, counts = _run(job, folder, shards, about, progress)
    write_sealed(
        folder / SCORED,
        {"finished": True}
        | about
        | {"corpus_hash": summary.corpus_hash, "summary": asdict(summary)}
        | {"corpus": _public(counts)},
    )
    return summary


def _finished(folder: Path, shards: int) -> ScoreSummary | None:
    state = read_scored_json(folder)
    if state is None or not state["finished"] or state["summary"]["shards"] != shards:
        return None
    return ScoreSummary(**state["summary"])


def _run(
    job: Job, folder: Path, shards: int, about: dict[str, Any], progress: Report
) -> tuple[ScoreSummary, CorpusCounts]:
    """Scores what is left after `shards` whole ones."""
    config, summary, counts = job.config, ScoreSummary(), CorpusCounts()
    shard_tokens = config.score.shard_tokens
    spent = read_cost(folder) if shards else {}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    index_path = folder / "duplicates.sqlite"
    with closing(read_corpus(config.corpus, counts, index_path=index_path)) as documents:
        if shards:
            summary = _last_summary(folder, shards)
            progress(summary.num_tokens, f"goes on after {summary.documents} documents")
            _skip(documents, summary, counts, folder)
        waiting: list[Encoded] = []
        pending: list[ScoredDocument] = []
        waiting_tokens, written = 0, time.monotonic()
        open_splits = _open_splits(config, summary)
        while open_splits and (document := next(documents, None)) is not None:
            summary.documents_read += 1
            if document.split not in open_splits:
                continue
            before = summary.num_tokens
            encoded = job.encode(document, summary)
            if encoded is None:
                continue
            waiting.append(encoded)
            waiting_tokens += len(encoded.token_ids)
            open_splits = _open_splits(config, summary)
            # By tokens in all: what is packed together must not hang on when shards are written.
            full = summary.num_tokens // shard_tokens > before // shard_tokens
            if waiting_tokens < _WAITING_TOKENS and not full and open_splits:
                continue
            pending += job.score(waiting, summary, progress)
            waiting, waiting_tokens = [], 0
            if full or time.monotonic() - written > _SHARD_SECONDS:
                _flush(folder, pending, summary, counts, about)
                _record_cost(folder, spent, job.meter)
                pending, written = [], time.monotonic()
        pending += job.score(waiting, summary, progress)
        if pending:
            _flush(folder, pending, summary, counts, about)
            _record_cost(folder, spent, job.meter)
    summary.corpus_hash = counts.corpus_hash()
    if not summary.documents:
        raise UserError(
            f"{config.corpus.path}: no document can be scored: of {summary.documents_read} read,"
            f" {summary.skipped_short} are shorter than {job.min_tokens} tokens and"
            f" {summary.skipped_unencodable} cannot be encoded; the rest is in splits that are"
            " not scored (corpus.min_tokens, prompt.min_context, score.splits)"
        )
    return summary, counts


def _flush(
    folder: Path,
    pending: list[ScoredDocument],
    summary: ScoreSummary,
    counts: CorpusCounts,
    about: dict[str, Any],
) -> None:
    shard = summary.shards
    summary.shards += 1
    summary.corpus_hash = counts.corpus_hash()
    metadata = about | {"corpus_hash": summary.corpus_hash, "summary": asdict(summary)}
    write_shard(folder, shard, pending, metadata)
    if not shard:  # from here on its settings bind the folder
        _write_unfinished(folder, about)


def _write_unfinished(folder: Path, about: dict[str, Any]) -> None:
    write_sealed(folder / SCORED, {"finished": False} | about)


def read_cost(folder: Path) -> dict[str, float]:
    """Reads what scoring has taken so far: tokens, flops, seconds, joules, and money where it has a
    price. Empty where it was not recorded."""
    path = folder / COST
    return numbers(read_json(path, advice="delete it")) if path.is_file() else {}


def _record_cost(folder: Path, before: dict[str, Any], meter: WorkMeter) -> None:
    cost = meter.cost()
    for key in ("tokens", "flops", "flops_alone", "seconds", "joules", "money"):
        if key in cost:
            cost[key] += before.get(key, 0)
    write_sealed(folder / COST, cost)


def _last_summary(folder: Path, shards: int) -> ScoreSummary:
    positions_path, documents_path = shard_paths(folder, shards - 1)
    read_metadata(positions_path)  # broken files are found here, not after hours
    return ScoreSummary(**read_metadata(documents_path)["summary"])


def _skip(
    documents: Iterator[Document], summary: ScoreSummary, counts: CorpusCounts, folder: Path
) -> None:
    """Reads again what is scored already; it must be what it was."""
    for _ in islice(documents, summary.documents_read):
        pass
    if counts.corpus_hash() != summary.corpus_hash:
        raise UserError(
            f"{folder}: the corpus has changed since scoring began; use another --run or delete"
            " this folder"
        )


def _open_splits(config: Config, summary: ScoreSummary) -> set[str]:
    """Returns the splits that may still get documents; once there are none, the corpus is left."""
    possible, limit = possible_splits(config.corpus), config.score.max_tokens
    return {
        split
        for split in config.score.splits
        if split in possible and (not limit or summary.tokens.get(split, 0) < limit)
    }


def _public(counts: CorpusCounts) -> dict[str, Any]:
    names = [one.name for one in fields(counts) if not one.name.startswith("_")]
    return {name: getattr(counts, name) for name in names}
