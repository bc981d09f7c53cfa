"""Positions by rule (`selection.where`): by what precedes them, by class, or by a field."""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from openrpt.data.places import token_at
from openrpt.data.token_classes import COMPUTED, CONTEXT, computed_tokens, token_class

_BEFORE = 256
"""Bytes before a position that a regular expression sees."""


def passes_rule(
    rule: str,
    index: NDArray[np.int64],
    *,
    text: str,
    starts: NDArray[np.int64],
    offsets: Sequence[int],
) -> NDArray[np.bool_]:
    """Returns [n] which of the positions `index` [n] `selection.where` allows; all, where it is
    empty.

    `starts` [T]: where the document's tokens begin, in bytes; `offsets`: the document's
    `corpus.offsets`, in bytes. The rule is one that the configuration has accepted.
    """
    if not rule:
        return np.full(len(index), True)
    kind, _, value = rule.partition(":")
    if kind == "before":
        return _before(value, index, text, starts)
    if kind == "offsets":
        data = text.encode()
        allowed = [token_at(offset, starts, data) for offset in offsets]
        return np.isin(index, [place for place in allowed if place is not None])
    if value == COMPUTED:
        return np.isin(index, _computed(text, tuple(starts.tolist())))
    data, ends = text.encode(), [*starts[1:].tolist(), len(text.encode())]
    return np.array(
        [
            token_class(data[starts[i] : ends[i]], data[max(0, starts[i] - CONTEXT) : starts[i]])
            == value
            for i in index.tolist()
        ],
        dtype=bool,
    )


def _before(
    pattern: str, index: NDArray[np.int64], text: str, starts: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Returns [n] whether the text up to each position of `index` [n] ends with the expression."""
    ends_so, data = re.compile(rf"(?:{pattern})\Z"), text.encode()
    seen = (data[max(0, start - _BEFORE) : start] for start in starts[index].tolist())
    found = [ends_so.search(before.decode(errors="ignore")) is not None for before in seen]
    return np.array(found, dtype=bool)


@lru_cache(maxsize=64)
def _computed(text: str, starts: tuple[int, ...]) -> list[int]:
    """Returns the computed numbers of a document. Kept, since a document is drawn from many times,
    and its windows one by one."""
    return computed_tokens(text, np.array(starts, dtype=np.int64))
