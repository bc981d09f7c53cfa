"""The scored documents of a run as the inspector shows them: text, token boundaries, scores.

Read from the scores' own files, for those documents that are asked for; a corpus whose scoring
has not finished is read as far as it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from openrpt.data.scored_shards import complete_shards, shard_paths
from openrpt.errors import UserError
from openrpt.parquet import not_readable, read_table, reading_errors
from openrpt.report.chunks import as_text

_NOTHING = -1
"""The mark in place of a score that is absent."""
HUNDREDTHS = 100.0
"""Entropies and log-probabilities are kept as whole hundredths of a nat."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ScoredText:
    """A document and what the scorer says of each of its T tokens."""

    document_id: str
    source: str
    split: str
    text: bytes
    offsets: NDArray[np.int64]  # [T + 1] of the tokens in the text's bytes
    token_ids: NDArray[np.int64]  # [T]
    entropy: NDArray[np.float32]  # [T] nats; NaN = not scored
    surprise: NDArray[np.float32]  # [T] nats: the negative log-likelihood
    ntp_token_ids: NDArray[np.int64]  # [T]; -1 = none
    ntp_right: NDArray[np.bool_]  # [T]

    @property
    def tokens(self) -> list[bytes]:
        """The bytes of each token."""
        ends = self.offsets.tolist()
        return [self.text[a:b] for a, b in pairwise(ends)]

    def encode(self, vocabulary: dict[int, bytes]) -> dict[str, Any]:
        """Returns the text as the page has it. `vocabulary`: the bytes of those token ids that are
        known."""
        ids, places = np.unique(self.ntp_token_ids, return_inverse=True)
        known = [vocabulary.get(i) for i in ids.tolist()]
        scored = ~np.isnan(self.entropy)
        right = np.where(scored, self.ntp_right.astype(np.uint8) + ord("0"), ord("?"))
        return {
            "text": as_text(self.text),
            "lengths": np.diff(self.offsets).tolist(),
            "entropy": _hundredths(self.entropy),
            "surprise": _hundredths(self.surprise),
            "ntp_words": [None if word is None else as_text(word) for word in known],
            "ntp": places.tolist(),
            "ntp_right": right.astype(np.uint8).tobytes().decode("ascii"),
        }


def _hundredths(values: NDArray[np.floating]) -> list[int]:
    """Returns whole hundredths; _NOTHING for what is no number."""
    return (
        np.where(np.isfinite(values), np.rint(HUNDREDTHS * values), _NOTHING).astype(int).tolist()
    )


def document_sizes(folder: Path) -> dict[str, int]:
    """Returns the number of tokens of every scored document, in the corpus's order. Raises
    UserError."""
    sizes: dict[str, int] = {}
    for shard in range(complete_shards(folder)):
        table = _read(shard_paths(folder, shard)[1], ["document_id", "num_tokens"])
        sizes |= zip(table["document_id"].to_pylist(), table["num_tokens"].to_pylist(), strict=True)
    return sizes


def read_texts(folder: Path, wanted: set[str]) -> Iterator[ScoredText]:
    """Reads those of the documents that are there, in the corpus's order. Raises UserError."""
    for shard in range(complete_shards(folder)):
        positions_path, documents_path = shard_paths(folder, shard)
        documents = _read(documents_path, _DOCUMENT).to_pylist()
        if wanted.isdisjoint(row["document_id"] for row in documents):
            continue
        positions = _read(positions_path, _POSITION)
        start = 0
        for row in documents:
            if row["document_id"] in wanted:
                yield _scored_text(row, positions.slice(start, row["num_tokens"]))
            start += row["num_tokens"]


_DOCUMENT = ["document_id", "split", "source", "text", "num_tokens"]
_POSITION = [
    "token_id",
    "byte_offset",
    "entropy",
    "negative_log_likelihood",
    "ntp_token_id",
    "ntp_correct",
]


def _scored_text(row: dict[str, Any], scores: pa.Table) -> ScoredText:
    text = row["text"].encode()

    def column(name: str, otherwise: Any = float("nan")) -> Any:
        values = scores[name].combine_chunks()
        return values.fill_null(otherwise).to_numpy(zero_copy_only=False)

    return ScoredText(
        document_id=row["document_id"],
        source=row["source"],
        split=row["split"],
        text=text,
        offsets=np.append(column("byte_offset", 0), len(text)),
        token_ids=column("token_id", _NOTHING),
        entropy=column("entropy"),
        surprise=column("negative_log_likelihood"),
        ntp_token_ids=column("ntp_token_id", _NOTHING),
        ntp_right=column("ntp_correct", False),
    )


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        return read_table(path, columns=columns)
    except reading_errors() as error:
        raise UserError(not_readable(path, error)) from None


def vocabulary_of(texts: list[ScoredText]) -> dict[int, bytes]:
    """Returns the bytes of every token id that occurs in the texts: enough to name most predictions
    without a tokenizer."""
    found: dict[int, bytes] = {}
    for text in texts:
        ids, first = np.unique(text.token_ids, return_index=True)
        for i, place in zip(ids.tolist(), first.tolist(), strict=True):
            if i not in found:
                found[i] = text.text[text.offsets[place] : text.offsets[place + 1]]
    return found
