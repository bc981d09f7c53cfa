"""The token at which a prediction of what stands at a byte of the text has to start."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_PASSED_OVER = set(" \t\n\r\u00a0\u202f$£€¥₹\\")
"""Bytes that a token may hold before the bytes that are looked for: white space and signs of
currency."""


def token_starts(pieces: Sequence[bytes]) -> NDArray[np.int64]:
    """Returns where each token begins [T], in bytes of the text that the tokens give."""
    return np.cumsum([0, *map(len, pieces)], dtype=np.int64)[:-1]


def token_at(offset: int, starts: NDArray[np.int64], text: bytes) -> int | None:
    """Returns the token from which on a prediction says what stands at `offset` of the text.

    That is the token that begins there, or the one that this byte is in, where only white space
    and currency stand before it (` 24`). None where anything else does, and outside of the text.

    >>> starts = np.array([0, 2, 5])
    >>> [token_at(offset, starts, b"a = 24") for offset in (0, 2, 4, 5, 6)]
    [0, 1, None, 2, None]
    """
    if not 0 <= offset < len(text):
        return None
    index = int(np.searchsorted(starts, offset, side="right")) - 1
    passed = text[int(starts[index]) : offset].decode(errors="replace")
    return index if set(passed) <= _PASSED_OVER else None
