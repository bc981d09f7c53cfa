"""The scorer's pass over a corpus: what it says of every token, from plain text alone.

Each token gets its negative log-likelihood, the entropy of its distribution (the difficulty),
the same over the 16 most probable, and whether standard prediction was right. Documents are
scored in their order, some at a time; whole shards are written (`openrpt.data.scored`), and a
restart goes on after the last one. Memory does not grow with the corpus.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from openrpt.config.sections import Config
from openrpt.costs.meters import WorkMeter
from openrpt.data.documents import CorpusCounts, keep_first, possible_splits, read_corpus
from openrpt.data.positions import ScoredDocument, check_window
from openrpt.data.prompts import delimiter_ids
from openrpt.data.scored import (
    SCORED,
    ScoredCorpus,
    ScoreSummary,
    complete_shards,
    load_scored,
    read_metadata,
    read_scored_json,
    remove_shards,
    shard_paths,
    write_shard,
)
from openrpt.data.tokens import encode_document, tokenizer_fingerprint
from openrpt.engine.engine import Engine, open_engine
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.engine.loading import resolve_model
from openrpt.engine.model import Model
from openrpt.engine.scorer import PACK_TOKENS, Scores, align, aligned_scores, score_documents
from openrpt.errors import UserError
from openrpt.files import read_json, write_sealed
from openrpt.rl.rewards.matching import prefix_match
from openrpt.runs.metrics import numbers
from openrpt.runs.scores import (
    require_same_settings,
    require_same_weights,
    score_settings,
    scores_of,
)
from openrpt.types import Document

__all__ = ["ScoreSummary", "ScoredCorpus", "load_scored", "score_corpus", "scores_of"]

WAITING_TOKENS = 4 * PACK_TOKENS
"""Of documents that wait to be packed: of few, the last pass is half empty."""
COST = "cost.json"
"""What scoring has taken, all starts together; the other files hold nothing of the machine."""

Progress = Callable[[int, str], None]
"""Tokens scored so far (those of earlier starts included), and a few words on it."""


def check_input(config: Config) -> None:
    """Raises UserError where scoring could not begin: before a run folder is made, which would
    refuse the corrected command."""
    check_window(config.prompt.window, config.prompt.min_context)
    with closing(read_corpus(config.corpus, CorpusCounts())) as documents:
        next(documents)
    for model in filter(None, (config.model.path, config.score.model)):
        resolve_model(model)


def score_corpus(
    config: Config,
    folder: Path,
    *,
    policy: Engine | None = None,
    scorer: Engine | None = None,
    progress: Progress = lambda tokens, text: None,
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
    next(read_corpus(config.corpus, CorpusCounts()))  # bad input shows before a model is loaded
    policy = policy or open_engine(config.model)
    if scorer is None:
        other = config.score.model
        scorer = open_engine(config.model, path=other) if other else policy
    meter = WorkMeter(scorer, config)
    job = _Job(config=config, policy=policy.model, scorer=scorer.model, meter=meter)
    if before is not None:
        require_same_settings(folder, before, {"tokenizer": job.tokenizer})
        if finished := _finished(folder, shards):
            return finished
    remove_shards(folder, shards)
    about = {"scorer": settings["score.model"], "tokenizer": job.tokenizer, "settings": settings}
    about["weights"] = {key: model_fingerprint(name) for key, name in names.items()}
    write_sealed(folder / SCORED, {"finished": False} | about)
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
    job: "_Job", folder: Path, shards: int, about: dict[str, Any], progress: Progress
) -> tuple[ScoreSummary, CorpusCounts]:
    """Scores what is left after `shards` whole ones."""
    config, summary, counts = job.config, ScoreSummary(), CorpusCounts()
    spent = read_cost(folder) if shards else {}
    index_path = folder / "duplicates.sqlite"
    with closing(read_corpus(config.corpus, counts, index_path=index_path)) as documents:
        if shards:
            summary = _last_summary(folder, shards)
            progress(summary.num_tokens, f"goes on after {summary.documents} documents")
            _skip(documents, summary, counts, folder)
        waiting: list[Encoded] = []
        pending: list[ScoredDocument] = []
        waiting_tokens = pending_tokens = 0
        open_splits = _open_splits(config, summary)
        while open_splits and (document := next(documents, None)) is not None:
            summary.documents_read += 1
            if document.split not in open_splits:
                continue
            encoded = job.encode(document, summary)
            if encoded is None:
                continue
            waiting.append(encoded)
            waiting_tokens += len(encoded.token_ids)
            pending_tokens += len(encoded.token_ids)
            open_splits = _open_splits(config, summary)
            full = pending_tokens >= config.score.shard_tokens
            if waiting_tokens >= WAITING_TOKENS or full or not open_splits:
                pending += job.score(waiting, summary, progress)
                waiting, waiting_tokens = [], 0
            if full:
                _flush(folder, pending, summary, counts, about)
                _record_cost(folder, spent, job.meter)
                pending, pending_tokens = [], 0
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


def read_cost(folder: Path) -> dict[str, float]:
    """What scoring has taken so far: tokens, flops, seconds, joules, and money where it has a
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
    """The splits that may still get documents; once there are none, the corpus is left."""
    possible, limit = possible_splits(config.corpus), config.score.max_tokens
    return {
        split
        for split in config.score.splits
        if split in possible and (not limit or summary.tokens.get(split, 0) < limit)
    }


def _public(counts: CorpusCounts) -> dict[str, Any]:
    names = [one.name for one in fields(counts) if not one.name.startswith("_")]
    return {name: getattr(counts, name) for name in names}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Encoded:
    """A document in the policy's tokens and in the scorer's: ids and exact bytes."""

    document: Document
    token_ids: list[int]
    token_bytes: list[bytes]
    scorer_ids: list[int]
    scorer_bytes: list[bytes]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """Who scores whose tokens, and how."""

    config: Config
    policy: Model
    scorer: Model
    meter: WorkMeter

    @cached_property
    def tokenizer(self) -> str:
        return tokenizer_fingerprint(self.policy.tokenizer)

    @cached_property
    def same_tokenizer(self) -> bool:
        if self.policy is self.scorer:
            return True
        return self.tokenizer == tokenizer_fingerprint(self.scorer.tokenizer)

    @cached_property
    def id_of(self) -> dict[bytes, int]:
        """The policy's token with these bytes."""
        return {piece: i for i, piece in reversed([*enumerate(self.policy.table.bytes)]) if piece}

    @property
    def min_tokens(self) -> int:
        return max(self.config.corpus.min_tokens, self.config.prompt.min_context + 1)

    def encode(self, document: Document, summary: ScoreSummary) -> Encoded | None:
        """A document's tokens, counted; None (and counted) where it can't be used."""
        try:
            ids, pieces = encode_document(self.policy.tokenizer, document.text)
            scorer_ids, scorer_pieces = ids, pieces
            if not self.same_tokenizer:
                scorer_ids, scorer_pieces = encode_document(self.scorer.tokenizer, document.text)
        except UserError as error:
            if self.config.corpus.strict:
                raise UserError(f"{document.source}: {error}") from None
            summary.skipped_unencodable += 1
            keep_first(summary.first, "skipped_unencodable", document.source)
            return None
        if len(ids) < self.min_tokens:
            summary.skipped_short += 1
            keep_first(summary.first, "skipped_short", document.source)
            return None
        summary.documents += 1
        summary.tokens[document.split] = summary.tokens.get(document.split, 0) + len(ids)
        return Encoded(
            document=document,
            token_ids=ids,
            token_bytes=pieces,
            scorer_ids=scorer_ids,
            scorer_bytes=scorer_pieces,
        )

    def score(
        self, documents: Sequence[Encoded], summary: ScoreSummary, progress: Progress
    ) -> list[ScoredDocument]:
        """Scores documents that `summary` has counted already, in one go."""
        left = sum(len(one.token_ids) for one in documents)
        before, text = summary.num_tokens - left, f"{summary.documents} documents"
        prompt = self.config.prompt
        found = score_documents(
            self.meter.engine,
            [one.scorer_ids for one in documents],
            window=prompt.window,
            min_context=prompt.min_context,
            delimiter_ids=delimiter_ids(self.scorer.tokenizer, prompt),
            scored=lambda share: progress(before + round(share * left), text),
        )
        return [
            self._scored(one, scores, summary) for one, scores in zip(documents, found, strict=True)
        ]

    def _scored(self, encoded: Encoded, scores: "Scores", summary: ScoreSummary) -> ScoredDocument:
        prompt = self.config.prompt
        self.meter.add_scoring(
            len(encoded.scorer_ids), window=prompt.window, min_context=prompt.min_context
        )
        argmax_bytes = [self.scorer.table.bytes[i] if i >= 0 else b"" for i in scores.argmax]
        if not self.same_tokenizer:
            source = align(encoded.token_bytes, encoded.scorer_bytes)
            argmax_bytes = [argmax_bytes[a] if a < b else b"" for a, b in source]
            scores = aligned_scores(scores, source)
            scores.argmax = np.array([self.id_of.get(piece, -1) for piece in argmax_bytes])
            summary.positions_dropped += sum(a == b for a, b in source)
        document = encoded.document
        lengths = [len(piece) for piece in encoded.token_bytes]
        return ScoredDocument(
            document_id=document.document_id,
            key=document.key,
            split=document.split,
            source=document.source,
            text=document.text,
            kind=document.kind,
            token_ids=np.array(encoded.token_ids, dtype=np.int64),
            byte_offsets=np.cumsum([0, *lengths], dtype=np.int64)[:-1],
            negative_log_likelihood=scores.negative_log_likelihood,
            entropy=scores.entropy,
            entropy_top16=scores.entropy_top16,
            ntp_token_id=scores.argmax,
            ntp_correct=grade(argmax_bytes, encoded.token_bytes),
        )


def grade(predictions: Sequence[bytes], pieces: Sequence[bytes]) -> np.ndarray:
    """[T] bool: does each prediction earn the reward, against the document's tokens from there?"""
    # No token but a document's first is empty, so a prediction of n bytes reads n tokens at most.
    return np.array(
        [
            bool(prefix_match(prediction, pieces[t : t + len(prediction) + 1]))
            for t, prediction in enumerate(predictions)
        ],
        dtype=bool,
    )
