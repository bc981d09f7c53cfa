"""The scored corpus on disk: pairs of parquet shards, and how they are read back. No torch.

A pair is `positions-NNNNN.parquet` (a row a token position) and `documents-NNNNN.parquet`. Each
is written under another name and then moved into place, documents last, so a pair counts only
once both are whole.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openrpt.data.positions import ScoredDocument
from openrpt.errors import UserError
from openrpt.files import read_json
from openrpt.parquet import read_table, unreadable, write_table
from openrpt.types import Document, Split

SCORED = "scored.json"
SHARDS_HELD = 4
"""Shards that a ScoredCorpus keeps in memory (about 10 MB each)."""

_DOCUMENT_SCHEMA = pa.schema(
    [
        ("document_id", pa.string()),
        ("key", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("text", pa.large_string()),
        ("num_tokens", pa.int64()),
        ("kind", pa.string()),
    ]
)
_POSITION_SCHEMA = pa.schema(
    [
        ("document_id", pa.string()),
        ("position", pa.int64()),
        ("token_id", pa.int64()),
        ("byte_offset", pa.int64()),
        ("negative_log_likelihood", pa.float32()),
        ("entropy", pa.float32()),
        ("entropy_top16", pa.float32()),
        ("ntp_token_id", pa.int64()),
        ("ntp_correct", pa.bool_()),
    ]
)


@dataclass(kw_only=True)
class ScoreSummary:
    """Where the scoring of a corpus stands; in the end, what became of the corpus."""

    shards: int = 0
    documents_read: int = 0
    """From the corpus, those that were not scored included."""
    documents: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    """Scored tokens (= positions) of each split."""
    skipped_short: int = 0
    """Documents with fewer tokens than corpus.min_tokens (or than a position needs)."""
    skipped_unencodable: int = 0
    """Documents that the tokenizer does not give back."""
    first: dict[str, list[str]] = field(default_factory=dict)
    """By the names of these two counts: the first 3 documents that were counted there."""
    positions_dropped: int = 0
    """Where a scorer with another tokenizer has no boundary."""
    corpus_hash: str = ""
    """Over the documents read, in order: their ids and splits."""

    @property
    def num_tokens(self) -> int:
        return sum(self.tokens.values())


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ScoredTokens:
    """A document and its scores, ready to be written. Arrays as in ScoredDocument, [T]."""

    document: Document
    token_ids: Sequence[int]
    token_bytes: Sequence[bytes]
    negative_log_likelihood: np.ndarray
    entropy: np.ndarray
    entropy_top16: np.ndarray
    ntp_token_id: np.ndarray
    ntp_correct: np.ndarray


def shard_paths(folder: Path, shard: int) -> tuple[Path, Path]:
    """The pair's files: positions and documents."""
    return folder / f"positions-{shard:05}.parquet", folder / f"documents-{shard:05}.parquet"


def complete_shards(folder: Path) -> int:
    """How many pairs are there, counted from the first."""
    shard = 0
    while all(path.is_file() for path in shard_paths(folder, shard)):
        shard += 1
    return shard


def remove_shards(folder: Path, first: int) -> None:
    """Removes what is left of shards from number `first` on: halves, and those behind a gap."""
    for path in folder.iterdir() if folder.is_dir() else ():
        match = re.fullmatch(r"(?:positions|documents)-(\d{5,})\.parquet", path.name, re.ASCII)
        if match and int(match[1]) >= first:
            path.unlink()


def write_shard(
    folder: Path, shard: int, scored: Sequence[ScoredTokens], metadata: dict[str, Any]
) -> None:
    """Writes a pair; `metadata` goes into both files, as JSON. Raises UserError if it can't."""
    encoded = {f"openrpt.{name}": json.dumps(value) for name, value in metadata.items()}
    positions_path, documents_path = shard_paths(folder, shard)
    documents = [
        asdict(one.document) | {"num_tokens": len(one.token_ids)}
        for one in scored  # asdict's fields are the schema's
    ]
    # One table a document: memory stays near that of the scores.
    positions = pa.concat_tables([_position_table(one) for one in scored])
    write_table(positions_path, positions.replace_schema_metadata(encoded))
    table = pa.Table.from_pylist(documents, schema=_DOCUMENT_SCHEMA)
    write_table(documents_path, table.replace_schema_metadata(encoded))


def _position_table(one: ScoredTokens) -> pa.Table:
    count = len(one.token_ids)
    offsets = np.cumsum([0, *(len(piece) for piece in one.token_bytes)])[:count]
    missing = np.isnan(one.negative_log_likelihood)
    columns = [
        pa.repeat(one.document.document_id, count),
        np.arange(count),
        np.asarray(one.token_ids, dtype=np.int64),
        offsets,
        *(
            pa.array(values, mask=missing)
            for values in (
                one.negative_log_likelihood,
                one.entropy,
                one.entropy_top16,
                one.ntp_token_id,
                one.ntp_correct,
            )
        ),
    ]
    return pa.table(dict(zip(_POSITION_SCHEMA.names, columns, strict=True)), _POSITION_SCHEMA)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing; delete the folder and score again") from None
    except unreadable() as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: broken or not a file of scores ({reason}); delete it and score again"
        ) from None


def read_metadata(path: Path) -> dict[str, Any]:
    """What `write_shard` was given. Raises UserError for a file that is broken or foreign."""
    with _reading(path):
        stored = read_table(path, columns=["document_id"]).schema.metadata or {}
        metadata = {
            name.decode().removeprefix("openrpt."): json.loads(value)
            for name, value in stored.items()
            if name.startswith(b"openrpt.")
        }
        if not metadata:
            raise ValueError("it says nothing of its scorer")
    return metadata


def read_scored_json(folder: Path) -> dict[str, Any] | None:
    """The folder's `scored.json`; None where there is none. Raises UserError if it is broken."""
    path = folder / SCORED
    if not path.is_file():
        return None
    return read_json(path, advice="delete it and score again")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Where a document's scores are: rows [start, start + num_tokens) of a shard's positions."""

    document_id: str
    split: Split
    num_tokens: int
    shard: int
    row: int
    start: int


class ScoredCorpus:
    """The scores of a folder: an index of its documents, each loaded when it is asked for."""

    def __init__(self, folder: Path, metadata: dict[str, Any], entries: Sequence[Entry]) -> None:
        self.folder = folder
        self.metadata = metadata
        """scorer, tokenizer, corpus_hash, settings, summary."""
        self.entries = {entry.document_id: entry for entry in entries}
        self._shard = lru_cache(maxsize=SHARDS_HELD)(self._read_shard)

    def ids(self, split: Split) -> list[str]:
        """The split's documents, in the corpus's order."""
        return [entry.document_id for entry in self.entries.values() if entry.split == split]

    def document(self, document_id: str) -> ScoredDocument:
        """Raises UserError if there is no such document or its shard is broken."""
        entry = self.entries.get(document_id)
        if entry is None:
            raise UserError(f"{self.folder}: no document '{document_id}' among the scores")
        positions, documents = self._shard(entry.shard)
        rows = positions.slice(entry.start, entry.num_tokens)
        nothing = {"ntp_token_id": -1, "ntp_correct": False}

        def column(name: str) -> Any:
            values = rows[name].combine_chunks()
            return values.fill_null(nothing.get(name, float("nan"))).to_numpy(zero_copy_only=False)

        return ScoredDocument(
            **{name: documents[name][entry.row].as_py() for name in _TEXT_COLUMNS},
            token_ids=rows["token_id"].combine_chunks().to_numpy(),
            **{name: column(name) for name in _SCORE_COLUMNS},
        )

    def byte_offsets(self, document_id: str) -> np.ndarray:
        """[T] int64: where each token of the document begins, in bytes of its text."""
        entry = self.entries[document_id]
        rows = self._shard(entry.shard)[0].slice(entry.start, entry.num_tokens)
        return rows["byte_offset"].combine_chunks().to_numpy()

    def _read_shard(self, shard: int) -> tuple[pa.Table, pa.Table]:
        positions_path, documents_path = shard_paths(self.folder, shard)
        with _reading(positions_path):
            columns = ["token_id", "byte_offset", *_SCORE_COLUMNS]
            positions = read_table(positions_path, columns=columns)
        with _reading(documents_path):
            documents = read_table(documents_path)
        if "kind" not in documents.column_names:  # scored before there were kinds
            documents = documents.append_column("kind", pa.array([""] * len(documents)))
        return positions, documents


_TEXT_COLUMNS = ("document_id", "key", "split", "source", "text", "kind")
_SCORE_COLUMNS = (
    "negative_log_likelihood",
    "entropy",
    "entropy_top16",
    "ntp_token_id",
    "ntp_correct",
)


def load_scored(folder: Path) -> ScoredCorpus:
    """Opens what `openrpt.stages.score.score.score_corpus` wrote.

    Raises UserError for a folder without scores, with unfinished ones, or with a broken shard.
    """
    state = read_scored_json(folder)
    if state is None:
        raise UserError(f"{folder}: no scores here; run 'openrpt score' first")
    if not state.get("finished"):
        raise UserError(f"{folder}: scoring has not finished; run 'openrpt score' again to go on")
    entries: list[Entry] = []
    for shard in range(state["summary"]["shards"]):
        entries += _read_entries(folder, shard)
    return ScoredCorpus(folder, state, entries)


def _read_entries(folder: Path, shard: int) -> list[Entry]:
    positions_path, documents_path = shard_paths(folder, shard)
    with _reading(documents_path):
        columns = ["document_id", "split", "num_tokens"]
        rows = read_table(documents_path, columns=columns).to_pylist()
    entries, start = [], 0
    for row, values in enumerate(rows):
        entries.append(Entry(**values, shard=shard, row=row, start=start))
        start += values["num_tokens"]
    with _reading(positions_path):
        found = pq.read_metadata(positions_path).num_rows
        if found != start:
            raise ValueError(f"{found} rows where its documents have {start} tokens")
    return entries
