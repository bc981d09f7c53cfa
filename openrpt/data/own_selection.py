"""A user's own selection: `selection.strategy` by import path, which gives positions weights."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openrpt.config.prompt import SelectionConfig
from openrpt.data.positions import ScoredDocument, Window
from openrpt.user_code import UserFunction, is_import_path, load_function, shown, users_code

_KEY = "selection.strategy"
_READABLE = (
    "entropy",
    "entropy_top16",
    "nats",
    "correct",
    "pass_rates",
    "index",
    "tokens",
    "prefixes",
)
"""What a user's selection may read (docs/own_parts.md)."""


def load_selection(config: SelectionConfig) -> UserFunction | None:
    """Returns the user's function; None where the strategy is one of OpenRPT's. Raises UserError
    for one that can't be had or asks for what there is not."""
    path = config.strategy
    return load_function(path, key=_KEY, known=_READABLE) if is_import_path(path) else None


def own_weights(
    function: UserFunction,
    document: ScoredDocument,
    index: NDArray[np.int64],
    *,
    window: Window,
    pass_rates: Mapping[int, float],
) -> NDArray[np.float64]:
    """Returns the weight that a user's function gives each of the positions `index` [n] of a
    window: [n], at least 0. It is not asked where there are none.

    Raises UserError, which names document and window, where it raises or gives anything else, and
    which names the position where a weight is below 0 or no finite number.
    """
    if not len(index):
        return np.zeros(0)
    facts = _facts(document, index, window, pass_rates)
    place = f"document {document.document_id}"
    where = f"for tokens {window.first} to {window.end} of {place} ({_KEY})"
    found = function.result({name: facts[name]() for name in function.reads}, where=where)
    weights = None
    with users_code():  # a list of the user's own objects, say
        weights = np.asarray(found, dtype=np.float64)
    if weights is None or weights.shape != index.shape:
        problem = f"returned {shown(found)}, which is no list of {len(index)} weights,"
        raise function.error(problem, where=where)
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        problem = f"returned the weight {weights[bad][0]:g}, which is no finite number from 0 on,"
        raise function.error(problem, where=f"for {place}, position {index[bad][0]} ({_KEY})")
    return weights


def _facts(
    document: ScoredDocument,
    index: NDArray[np.int64],
    window: Window,
    pass_rates: Mapping[int, float],
) -> dict[str, Callable[[], Any]]:
    """Returns what makes each of the values that a function may read, of the positions `index`
    [n]."""
    data = document.text.encode()
    bounds = [*document.byte_offsets.tolist(), len(data)]
    places = index.tolist()

    def floats(scores: NDArray[np.float32]) -> NDArray[np.float64]:
        return scores[index].astype(np.float64)

    return {
        "entropy": lambda: floats(document.entropy),
        "entropy_top16": lambda: floats(document.entropy_top16),
        "nats": lambda: floats(document.negative_log_likelihood),
        "correct": lambda: document.ntp_correct[index],
        "pass_rates": lambda: np.array([pass_rates.get(i, np.nan) for i in places]),
        "index": lambda: index.copy(),
        "tokens": lambda: [data[bounds[i] : bounds[i + 1]] for i in places],
        "prefixes": lambda: [data[bounds[window.start] : bounds[i]] for i in places],
    }
