"""Shards of a scored corpus on disk: pairs of parquet files, written and read back. No torch.

A pair is `positions-NNNNN.parquet` (a row a token position) and `documents-NNNNN.parquet`. Each
is written under another name and then moved into place, documents last, so a pair counts only
once both are whole.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from openrpt.data.positions import ScoredDocument
from openrpt.data.scored_index import SCHEMA
from openrpt.errors import UserError
from openrpt.parquet import read_columns, read_table, reading_errors, values_of, write_table

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
TEXT_COLUMNS = ("document_id", "key", "split", "source", "text", "kind")
SCORE_COLUMNS = (
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
        {name: getattr(one, name) for name in (*TEXT_COLUMNS, "num_tokens", "offsets")}
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
        for name in SCORE_COLUMNS
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
    except reading_errors() as error:
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


def position_table(folder: Path, shard: int) -> pa.Table:
    """Returns a row a token of a shard; null where there is no score. Raises UserError if it is
    broken."""
    path, _ = shard_paths(folder, shard)
    with _reading(path):
        return read_table(path).replace_schema_metadata(None)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ShardTables:
    """A pair of files in memory."""

    positions: dict[str, Any]  # a column, as an array: [tokens of the shard]
    documents: pa.Table


def read_positions(folder: Path, shard: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Returns columns of a shard's positions, its documents one after another; with what stands for
    a missing score. Raises UserError if its file is broken."""
    path = shard_paths(folder, shard)[0]
    with _reading(path):
        positions = read_table(path, columns=[*names])
    return {name: _filled(name, positions[name]) for name in names}


def read_shard(folder: Path, shard: int) -> ShardTables:
    """Reads a pair. Raises UserError if it is broken."""
    path = shard_paths(folder, shard)[1]
    positions = read_positions(folder, shard, ["token_id", "byte_offset", *SCORE_COLUMNS])
    with _reading(path):
        documents = _with_kinds(read_table(path))
    if "offsets" not in documents.column_names:  # scored before documents had any
        nothing = pa.array([[]] * len(documents), pa.list_(pa.int64()))
        documents = documents.append_column("offsets", nothing)
    return ShardTables(positions=positions, documents=documents)


def read_keys(folder: Path, shard: int) -> list[tuple[str, str]]:
    """Returns (document, key) of each document of a shard, in order. Raises UserError if its file
    is broken."""
    path = shard_paths(folder, shard)[1]
    with _reading(path):
        table = read_columns(path, ["document_id", "key"])
    return [(row["document_id"], row["key"]) for row in table.to_pylist()]


def _with_kinds(documents: pa.Table) -> pa.Table:
    """Returns a table of documents with their kinds: none, where they were scored before there were
    any."""
    if "kind" in documents.column_names:
        return documents
    return documents.append_column("kind", pa.array([""] * len(documents), pa.string()))


def _filled(name: str, column: pa.ChunkedArray) -> Any:
    """A column, to be read only, with what stands for a missing score."""
    missing = {"ntp_token_id": -1, "ntp_correct": False}.get(name, np.nan)
    return values_of(column.combine_chunks(), missing=missing if name in SCORE_COLUMNS else None)


def read_index(folder: Path, shard: int) -> pa.Table:
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
