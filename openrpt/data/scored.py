"""A scored corpus: an index of its documents over the shards on disk. No torch."""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openrpt.data.positions import ScoredDocument
from openrpt.data.score_summary import read_scored_json
from openrpt.data.scored_index import ScoredIndex
from openrpt.data.scored_shards import (
    SCORE_COLUMNS,
    TEXT_COLUMNS,
    read_index,
    read_keys,
    read_positions,
    read_shard,
)
from openrpt.errors import UserError
from openrpt.types import Split

_SHARDS_HELD = 4
"""Shards that a ScoredCorpus keeps in memory at least (about 4 MB each)."""
_TOKENS_HELD = 4_000_000
"""Tokens of a corpus that it keeps in memory (160 MB): training takes documents in random order, so
that of a corpus that is not held, about every document would have its shard read anew."""


class ScoredCorpus:
    """The scores of a folder: an index of its documents, each loaded when it is asked for."""

    def __init__(self, folder: Path, metadata: dict[str, Any], entries: ScoredIndex) -> None:
        self.folder = folder
        self.metadata = metadata
        """scorer, tokenizer, corpus_hash, settings, summary."""
        self.entries = entries
        tokens = int(entries.num_tokens.sum())
        held = _TOKENS_HELD * entries.shards // max(tokens, 1)
        self._shard = lru_cache(maxsize=max(_SHARDS_HELD, held))(partial(read_shard, folder))

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
        values: dict[str, Any] = {name: arrays[name] for name in SCORE_COLUMNS}
        values |= {name: shard.documents[name][entry.row].as_py() for name in TEXT_COLUMNS}
        return ScoredDocument(
            **values,
            offsets=tuple(shard.documents["offsets"][entry.row].as_py()),
            token_ids=arrays["token_id"],
            byte_offsets=arrays["byte_offset"],
        )

    def columns(self, shard: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Returns columns of a shard's positions, its documents one after another; with what stands
        for a missing score. Raises UserError if it is broken."""
        return read_positions(self.folder, shard, names)

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
            for document_id, key in read_keys(self.folder, shard):
                found.setdefault(key, []).append(document_id)
        return found

    def kinds(self, split: Split) -> dict[str, str]:
        """Returns the kind of each document of a split, in the corpus's order; reads no scores."""
        numbers = self.numbers(split)
        return dict(zip(self.entries.ids(numbers), map(self.entries.kind, numbers), strict=True))


def _copied(values: NDArray[Any]) -> NDArray[Any]:
    """A copy, to be read only: a part of a shard's array would keep the whole shard in memory."""
    found = values.copy()
    found.setflags(write=False)
    return found


def finished_scores(folder: Path) -> dict[str, Any]:
    """Returns what a folder of scores says of itself. Raises UserError for one without scores, or
    with unfinished ones."""
    state = read_scored_json(folder)
    if state is None:
        raise UserError(f"{folder}: no scores here; run 'openrpt score' first")
    if not state.get("finished"):
        raise UserError(f"{folder}: scoring has not finished; run 'openrpt score' again to go on")
    return state


def load_scored(folder: Path) -> ScoredCorpus:
    """Opens what `openrpt.stages.score.score.score_corpus` wrote.

    Raises UserError for a folder without scores, with unfinished ones, or with a broken shard.
    """
    state = finished_scores(folder)
    shards = range(state["summary"]["shards"])
    return ScoredCorpus(folder, state, ScoredIndex([read_index(folder, one) for one in shards]))
