"""The scored corpus on disk: pairs of parquet shards, and how they are read back. No torch.

A pair is `positions-NNNNN.parquet` (a row a token position) and `documents-NNNNN.parquet`. Each
is written under another name and then moved into place, documents last, so a pair counts only
once both are whole.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from openrpt.data.positions import ScoredDocument
from openrpt.data.scored_index import SCHEMA, ScoredIndex
from openrpt.errors import UserError
from openrpt.files import read_json
from openrpt.parquet import read_columns, read_table, unreadable, write_table
from openrpt.types import Split

SCORED = "scored.json"
_SHARDS_HELD = 4
"""Shards that a ScoredCorpus keeps in memory at least (about 4 MB each)."""
_TOKENS_HELD = 4_000_000
"""Tokens of a corpus that it keeps in memory (160 MB): training takes documents in random order, so
that of a corpus that is not held, about every document would have its shard read anew."""

_DOCUMENT_SCHEMA = pa.schema(
    [
        ("document_id", pa.string()),
        ("key", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("text", pa.large_string()),
        ("num_tokens", pa.int64()),
        ("kind", pa.string()),
        ("offsets", pa.list_(pa.int64())),
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
_TEXT_COLUMNS = ("document_id", "key", "split", "source", "text", "kind")
_SCORE_COLUMNS = (
    "negative_log_likelihood",
    "entropy",
    "entropy_top16",
    "ntp_token_id",
    "ntp_correct",
)
_PACKED: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
_POSITION_ENCODING: dict[str, Any] = {
    "use_dictionary": ["document_id"],
    "column_encoding": {
        "position": "DELTA_BINARY_PACKED",
        "byte_offset": "DELTA_BINARY_PACKED",
        "negative_log_likelihood": "BYTE_STREAM_SPLIT",
        "entropy": "BYTE_STREAM_SPLIT",
        "entropy_top16": "BYTE_STREAM_SPLIT",
    },
}
"""Half of the bytes that parquet's defaults take: with them a float that hardly repeats is stored
twice, as its dictionary's entry and as its number there."""


@dataclass(kw_only=True)
class ScoreSummary:
    """The state of a corpus's scoring; in the end, what became of the corpus."""

    shards: int = 0
    documents_read: int = 0
    """Documents read from the corpus, those that were not scored included."""
    documents: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    """Scored tokens (= positions) of each split."""
    skipped_short: int = 0
    """Documents with fewer tokens than corpus.min_tokens (or than a position needs)."""
    skipped_unencodable: int = 0
    """Documents that the tokenizer does not give back."""
    first: dict[str, list[str]] = field(default_factory=dict)
    """Names of the first 3 documents of each of these two counts, by the count's name."""
    positions_dropped: int = 0
    """Positions where a scorer with another tokenizer has no boundary."""
    corpus_hash: str = ""
    """Hash over the documents read, in order: their ids and splits."""

    @property
    def num_tokens(self) -> int:
        """Scored tokens of all splits."""
        return sum(self.tokens.values())


def shard_paths(folder: Path, shard: int) -> tuple[Path, Path]:
    """Returns the pair's files: positions and documents."""
    return folder / f"positions-{shard:05}.parquet", folder / f"documents-{shard:05}.parquet"


def complete_shards(folder: Path) -> int:
    """Returns the number of whole pairs in the folder, from the first on."""
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
    folder: Path, shard: int, documents: Sequence[ScoredDocument], metadata: dict[str, Any]
) -> None:
    """Writes a pair; `metadata` goes into both files, as JSON. Other processes may be writing the
    same. Raises UserError if it can't."""
    encoded = {f"openrpt.{name}": json.dumps(value) for name, value in metadata.items()}
    positions_path, documents_path = shard_paths(folder, shard)
    rows = [
        {name: getattr(one, name) for name in (*_TEXT_COLUMNS, "num_tokens", "offsets")}
        for one in documents
    ]
    positions = _position_table(documents).replace_schema_metadata(encoded)
    options = {"shared": True, **_PACKED}
    write_table(positions_path, positions, **options, **_POSITION_ENCODING)
    table = pa.Table.from_pylist(rows, schema=_DOCUMENT_SCHEMA)
    write_table(documents_path, table.replace_schema_metadata(encoded), **options)


def _position_table(documents: Sequence[ScoredDocument]) -> pa.Table:
    """Returns a row a token of all documents: short ones cost no table each."""

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(one, name) for one in documents])

    missing = np.isnan(joined("negative_log_likelihood"))
    scores = {
        name: pa.array(joined(name), mask=missing)  # null where there is no score
        for name in _SCORE_COLUMNS
    }
    sizes = [one.num_tokens for one in documents]
    ids = pa.array([one.document_id for one in documents], pa.string())
    columns = {
        "document_id": ids.take(pa.array(np.repeat(np.arange(len(sizes)), sizes))),
        "position": np.concatenate([np.arange(size) for size in sizes]),
        "token_id": joined("token_ids"),
        "byte_offset": joined("byte_offsets"),
    }
    return pa.table(columns | scores, _POSITION_SCHEMA)


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
    """Returns the metadata that `write_shard` was given. Raises UserError for a file that is broken
    or foreign."""
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


def document_ids(path: Path) -> list[str]:
    """Returns the documents of a shard's file, in order. Raises UserError for a broken one."""
    with _reading(path):
        return list(read_table(path, columns=["document_id"])["document_id"].to_pylist())


def read_scored_json(folder: Path) -> dict[str, Any] | None:
    """Returns the folder's `scored.json`; None where there is none. Raises UserError if it is
    broken."""
    path = folder / SCORED
    if not path.is_file():
        return None
    return read_json(path, advice="delete it and score again")


class ScoredCorpus:
    """The scores of a folder: an index of its documents, each loaded when it is asked for."""

    def __init__(self, folder: Path, metadata: dict[str, Any], entries: ScoredIndex) -> None:
        self.folder = folder
        self.metadata = metadata
        """scorer, tokenizer, corpus_hash, settings, summary."""
        self.entries = entries
        tokens = int(entries.num_tokens.sum())
        held = _TOKENS_HELD * entries.shards // max(tokens, 1)
        self._shard = lru_cache(maxsize=max(_SHARDS_HELD, held))(self._read_shard)

    def ids(self, split: Split) -> list[str]:
        """Returns the split's documents, in the corpus's order."""
        return self.entries.ids(self.numbers(split))

    def numbers(self, split: Split) -> NDArray[np.int64]:
        """Returns the numbers of the split's documents, in the corpus's order."""
        return self.entries.numbers(split)

    def document(self, document_id: str) -> ScoredDocument:
        """Returns a document with its scores. Raises UserError if there is none of that id or its
        shard is broken."""
        try:
            number = self.entries.number(document_id)
        except KeyError:
            missing = f"no document '{document_id}' among the scores"
            raise UserError(f"{self.folder}: {missing}") from None
        return self.numbered(number)

    def numbered(self, number: int) -> ScoredDocument:
        """Returns the document of this number with its scores. Raises UserError if its shard is
        broken."""
        entry = self.entries.entry(number)
        shard = self._shard(entry.shard)
        rows = slice(entry.start, entry.start + entry.num_tokens)
        arrays = {name: _copied(column[rows]) for name, column in shard.positions.items()}
        values: dict[str, Any] = {name: arrays[name] for name in _SCORE_COLUMNS}
        values |= {name: shard.documents[name][entry.row].as_py() for name in _TEXT_COLUMNS}
        return ScoredDocument(
            **values,
            offsets=tuple(shard.documents["offsets"][entry.row].as_py()),
            token_ids=arrays["token_id"],
            byte_offsets=arrays["byte_offset"],
        )

    def columns(self, shard: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Returns columns of a shard's positions, its documents one after another; with what stands
        for a missing score. Raises UserError if it is broken."""
        path = shard_paths(self.folder, shard)[0]
        with _reading(path):
            positions = read_table(path, columns=[*names])
        return {name: _filled(name, positions[name]) for name in names}

    def token_bytes(self, place: int) -> bytes:
        """Returns the bytes of the token at a place, counted over all documents."""
        number, index = self.entries.at(place)
        document = self.numbered(number)
        data = document.text.encode()
        start, end = [*document.byte_offsets.tolist(), len(data)][index : index + 2]
        return data[start:end]

    def keys(self) -> dict[str, list[str]]:
        """Returns the documents that have each key, in the corpus's order; reads no scores."""
        found: dict[str, list[str]] = {}
        for shard in range(self.entries.shards):
            path = shard_paths(self.folder, shard)[1]
            with _reading(path):
                table = read_columns(path, ["document_id", "key"])
            for row in table.to_pylist():
                found.setdefault(row["key"], []).append(row["document_id"])
        return found

    def kinds(self, split: Split) -> dict[str, str]:
        """Returns the kind of each document of a split, in the corpus's order; reads no scores."""
        numbers = self.numbers(split)
        return dict(zip(self.entries.ids(numbers), map(self.entries.kind, numbers), strict=True))

    def _read_documents(self, shard: int) -> pa.Table:
        path = shard_paths(self.folder, shard)[1]
        with _reading(path):
            documents = read_table(path)
        documents = _with_kinds(documents)
        if "offsets" not in documents.column_names:  # scored before documents had any
            nothing = pa.array([[]] * len(documents), pa.list_(pa.int64()))
            documents = documents.append_column("offsets", nothing)
        return documents

    def _read_shard(self, shard: int) -> "_Shard":
        columns = ["token_id", "byte_offset", *_SCORE_COLUMNS]
        return _Shard(positions=self.columns(shard, columns), documents=self._read_documents(shard))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Shard:
    """A pair of files in memory."""

    positions: dict[str, Any]  # a column, as an array: [tokens of the shard]
    documents: pa.Table


def _with_kinds(documents: pa.Table) -> pa.Table:
    """Returns a table of documents with their kinds: none, where they were scored before there were
    any."""
    if "kind" in documents.column_names:
        return documents
    return documents.append_column("kind", pa.array([""] * len(documents), pa.string()))


def _copied(values: NDArray[Any]) -> NDArray[Any]:
    """A copy, to be read only: a part of a shard's array would keep the whole shard in memory."""
    found = values.copy()
    found.setflags(write=False)
    return found


def _filled(name: str, column: pa.ChunkedArray) -> Any:
    """A column, to be read only, with what stands for a missing score."""
    values = column.combine_chunks()
    if name in _SCORE_COLUMNS:
        values = values.fill_null({"ntp_token_id": -1, "ntp_correct": False}.get(name, np.nan))
    array = values.to_numpy(zero_copy_only=False)
    array.setflags(write=False)
    return array


def load_scored(folder: Path) -> ScoredCorpus:
    """Opens what `openrpt.stages.score.score.score_corpus` wrote.

    Raises UserError for a folder without scores, with unfinished ones, or with a broken shard.
    """
    state = read_scored_json(folder)
    if state is None:
        raise UserError(f"{folder}: no scores here; run 'openrpt score' first")
    if not state.get("finished"):
        raise UserError(f"{folder}: scoring has not finished; run 'openrpt score' again to go on")
    shards = range(state["summary"]["shards"])
    return ScoredCorpus(folder, state, ScoredIndex([_read_index(folder, one) for one in shards]))


def _read_index(folder: Path, shard: int) -> pa.Table:
    """Returns what a shard's documents say for the index."""
    positions_path, documents_path = shard_paths(folder, shard)
    with _reading(documents_path):
        documents = _with_kinds(read_columns(documents_path, SCHEMA.names))
        documents = documents.select(SCHEMA.names).cast(SCHEMA)
        tokens = sum(documents["num_tokens"].to_pylist())
    with _reading(positions_path):
        found = pq.read_metadata(positions_path).num_rows
        if found != tokens:
            raise ValueError(f"{found} rows where its documents have {tokens} tokens")
    return documents
