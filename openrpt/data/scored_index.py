"""Where the scores of each document lie: an index in columns, some 50 bytes a document."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from openrpt.parquet import values_of
from openrpt.types import Split

SCHEMA = pa.schema(
    [
        ("document_id", pa.string()),
        ("split", pa.string()),
        ("num_tokens", pa.int64()),
        ("kind", pa.string()),
    ]
)
"""The columns of a shard's documents that the index is made of."""
_BATCH = 100_000
"""Documents whose ids are made Python's at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """The place of a document's scores: rows [start, start + num_tokens) of a shard's positions."""

    document_id: str
    split: Split
    num_tokens: int
    shard: int
    row: int
    start: int


class ScoredIndex(Mapping[str, Entry]):
    """The documents of a scored corpus, by id; or by number, in the corpus's order.

    Legend: D documents, S shards.
    """

    def __init__(self, shards: Sequence[pa.Table]) -> None:
        """Makes the index of the documents of each shard, with the columns of `SCHEMA`."""
        self._table = pa.concat_tables(shards).combine_chunks()
        self._first = np.cumsum([0, *map(len, shards)])  # [S + 1] number of a shard's first one
        tokens = values_of(self._table["num_tokens"].combine_chunks())
        self._tokens_before = np.concatenate([[0], np.cumsum(tokens)])  # [D + 1]
        self._splits, self._split_codes = _coded(self._table["split"])
        self._kinds, self._kind_codes = _coded(self._table["kind"])
        self._table = self._table.select(["document_id"])

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[str]:
        for batch in self._table.to_batches(max_chunksize=_BATCH):
            yield from batch.column(0).to_pylist()

    def __getitem__(self, document_id: str) -> Entry:
        return self.entry(self.number(document_id))

    @property
    def shards(self) -> int:
        """The number of shards, S."""
        return len(self._first) - 1

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """Tokens of each document: [D]."""
        return np.diff(self._tokens_before)

    def of_shard(self, shard: int) -> range:
        """Returns the numbers of a shard's documents."""
        return range(*self._first[shard : shard + 2].tolist())

    def at(self, place: int) -> tuple[int, int]:
        """Returns (the document, the token in it) of a token, counted over all documents."""
        number = int(np.searchsorted(self._tokens_before, place, side="right")) - 1
        return number, place - int(self._tokens_before[number])

    def numbers(self, split: Split) -> NDArray[np.int64]:
        """Returns the numbers of a split's documents, ascending."""
        if split not in self._splits:
            return np.empty(0, np.int64)
        return np.flatnonzero(self._split_codes == self._splits.index(split))

    def ids(self, numbers: NDArray[np.int64]) -> list[str]:
        """Returns the ids of documents by number."""
        index = pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])
        return self._table["document_id"].take(index).to_pylist()

    def kind(self, number: int) -> str:
        """Returns a document's kind."""
        return self._kinds[self._kind_codes[number]]

    def entry(self, number: int) -> Entry:
        """Returns the place of a document by number."""
        shard = int(np.searchsorted(self._first, number, side="right")) - 1
        first = int(self._first[shard])
        before, after = self._tokens_before[number : number + 2].tolist()
        return Entry(
            document_id=self._table["document_id"][number].as_py(),
            split=self._splits[self._split_codes[number]],  # type: ignore[arg-type]
            num_tokens=after - before,
            shard=shard,
            row=number - first,
            start=before - int(self._tokens_before[first]),
        )

    def number(self, document_id: str) -> int:
        """Returns a document's number. Raises KeyError for one that is not there."""
        hashes, order = self._by_hash
        wanted = hash(document_id)
        for place in range(int(np.searchsorted(hashes, wanted)), len(hashes)):
            if hashes[place] != wanted:
                break
            number = int(order[place])
            if self._table["document_id"][number].as_py() == document_id:
                return number
        raise KeyError(document_id)

    @cached_property
    def _by_hash(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The hashes of all ids, ascending, and the number of each one's document: 16 bytes a
        document, where a dictionary takes 170."""
        hashes = np.fromiter(map(hash, self), np.int64, len(self))
        order = np.argsort(hashes)
        return hashes[order], order


def _coded(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """Returns the values of a column, once each, and which of them each row has: a byte a row where
    they are few."""
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):  # a column of no rows has no chunk
        encoded = encoded.combine_chunks()
    values = encoded.dictionary.to_pylist()
    codes = values_of(encoded.indices)
    return values, codes.astype(np.min_scalar_type(max(len(values) - 1, 0)))
