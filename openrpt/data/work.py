"""A window of a document with the positions to predict at, whoever chose them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from openrpt.data.places import token_starts
from openrpt.data.positions import ScoredDocument, Window
from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.data.spans import span_length
from openrpt.data.tokens import encode_document, token_bytes
from openrpt.types import Position

_LONGEST_SPAN = 1024
"""Bytes of the text in which a span is looked for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """A window of a document, with the positions to predict at."""

    document: ScoredDocument
    window: Window
    positions: tuple[Position, ...]

    def prefix_ids(self, layout: Layout, *, whole: bool) -> tuple[int, ...]:
        """Returns the ids of head ⊕ window: to the last position, or the whole window where a loss
        reads it."""
        last = self.positions[-1].index if self.positions else self.window.end
        end = self.window.end if whole else last
        ids = self.document.token_ids[self.window.start : end].tolist()
        return layout.head_ids + tuple(ids)

    def prefix_lengths(self, layout: Layout) -> tuple[int, ...]:
        """Returns the length of the prefix at each position, head included, in tokens."""
        head = len(layout.head_ids)
        return tuple(head + position.index - self.window.start for position in self.positions)

    def request(
        self,
        layout: Layout,
        keys: Sequence[tuple[int, ...]] | None = None,
        *,
        rows: Sequence[int] | None = None,
        openings: Sequence[tuple[int, ...]] | None = None,
        spans: Sequence[bytes] = (),
    ) -> Request:
        """Returns the request for rollouts at the work's positions, or at those that `rows` names.

        `keys`: [rows][rollouts], the key of each rollout's draws; None = no rollout, so that only
        standard prediction and the candidates are found. `openings`: forced tokens that each row's
        thoughts begin with, in place of the candidates. `spans`: what standard prediction is
        decoded against.
        """
        lengths = self.prefix_lengths(layout)
        chosen = lengths if rows is None else tuple(lengths[row] for row in rows)
        return Request(
            prefix_ids=self.prefix_ids(layout, whole=False),
            prefix_lengths=chosen,
            keys=tuple(() for _ in chosen) if keys is None else tuple(keys),
            openings=None if openings is None else tuple(openings),
            spans=tuple(spans),
        )

    def true_spans(self) -> list[bytes]:
        """Returns the text's span at each position."""
        text = self.document.text.encode()
        starts = [int(self.document.byte_offsets[position.index]) for position in self.positions]
        behind = [text[start : start + _LONGEST_SPAN] for start in starts]
        return [one[: span_length(one)] for one in behind]


def work_at(document: ScoredDocument, window: Window, indices: Sequence[int]) -> Work:
    """Returns the work of predicting at these tokens of a document's window, in ascending order."""
    positions = tuple(
        Position(
            document_id=document.document_id,
            index=index,
            window_start=window.start,
            entropy=float(document.entropy[index]),
        )
        for index in indices
    )
    return Work(document=document, window=window, positions=positions)


def document_bytes(tokenizer: Any, document: ScoredDocument) -> list[bytes]:
    """Returns the bytes of the document's tokens, in the policy's tokenizer."""
    return token_bytes(tokenizer, document.token_ids.tolist())


def retokenized(work: Work, tokenizer: Any) -> Work:
    """Returns the work at the same places of the same text in the tokens of another tokenizer.

    Positions on a boundary that both tokenizers share are kept (there may be none), with the
    scorer's entropy; the prefix begins at the first boundary in the window.
    """
    byte_offsets = work.document.byte_offsets
    ids, pieces = encode_document(tokenizer, work.document.text)
    starts = token_starts(pieces)

    def place(index: int) -> int:
        """The first token that begins at or after the old token of this index."""
        whole = index >= len(byte_offsets)
        return len(ids) if whole else int(np.searchsorted(starts, byte_offsets[index]))

    window = Window(
        start=place(work.window.start), end=place(work.window.end), first=place(work.window.first)
    )
    kept = {
        place(old.index): old
        for old in work.positions
        if place(old.index) < len(ids) and starts[place(old.index)] == byte_offsets[old.index]
    }
    unknown = np.full(len(ids), np.nan, np.float32)
    entropy = unknown.copy()
    for index, old in kept.items():
        entropy[index] = old.entropy
    document = replace(
        work.document,
        token_ids=np.array(ids, dtype=np.int64),
        byte_offsets=starts,
        negative_log_likelihood=unknown,
        entropy=entropy,
        entropy_top16=unknown,
        ntp_token_id=np.full(len(ids), -1, np.int64),
        ntp_correct=np.full(len(ids), False),
    )
    positions = tuple(
        replace(old, index=index, window_start=window.start) for index, old in kept.items()
    )
    return Work(document=document, window=window, positions=positions)


def works_key(works: Sequence[Work]) -> str:
    """SHA-256 in hex of documents, windows and positions: what is measured there depends on it."""
    digest = hashlib.sha256()
    for work in works:
        places = [(position.index, float(position.entropy)) for position in work.positions]
        about = [work.document.document_id, work.document.text, asdict(work.window), places]
        digest.update(json.dumps(about).encode())
        digest.update(work.document.ntp_token_id.tobytes())
    return digest.hexdigest()
