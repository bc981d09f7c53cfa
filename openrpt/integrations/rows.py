"""A position as other frameworks take it: its prompt as token ids, and what truly follows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from openrpt.data.prompts import Layout
from openrpt.data.work import Work, document_bytes
from openrpt.rl.grading import continuation_at
from openrpt.types import Position


@dataclass(frozen=True, kw_only=True, slots=True)
class PositionRow:
    """A position with its prompt and what truly follows."""

    position: Position
    prompt_ids: list[int]
    """The ids of head ⊕ prefix ⊕ tail."""
    prefix: bytes
    """The bytes of the prefix alone."""
    continuation: Sequence[bytes]
    """The bytes of the true tokens from the position on, as far as a prediction is compared."""


def position_rows(work: Work, layout: Layout, tokenizer: Any) -> Iterator[PositionRow]:
    """Yields a row a position of the work."""
    pieces = document_bytes(tokenizer, work.document)
    ids = work.prefix_ids(layout, whole=False)
    for position, length in zip(work.positions, work.prefix_lengths(layout), strict=True):
        yield PositionRow(
            position=position,
            prompt_ids=[*ids[:length], *layout.tail_ids],
            prefix=b"".join(pieces[position.window_start : position.index]),
            continuation=continuation_at(pieces, position.index),
        )
