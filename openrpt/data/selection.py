"""The positions that are trained on: which are eligible, and which of those a step draws.

Pure functions over scores, on NumPy: no model, no torch.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from openrpt.config.prompt import SelectionConfig
from openrpt.data.own_selection import load_selection, own_weights
from openrpt.data.positions import ScoredDocument, Window
from openrpt.data.where import passes_rule


def eligible_positions(
    document: ScoredDocument,
    config: SelectionConfig,
    *,
    window: Window,
    pass_rates: Mapping[int, float] | None = None,
) -> NDArray[np.int64]:
    """Returns the window's positions that pass the selection strategy and its rule, in order: [n].

    `pass_rates`: what is measured so far, by position; elsewhere the scorer's probability of the
    true token stands in. Of a strategy of the user's own they are those with a weight above 0.
    Positions without a score pass only at random or by such a strategy, and only if none of the
    document has one (`score.tokens_only`). Raises UserError as `own_weights` does.
    """
    return _weighted(document, config, window, pass_rates)[0]


def select_positions(
    document: ScoredDocument,
    config: SelectionConfig,
    *,
    window: Window,
    count: int,
    rng: np.random.Generator,
    pass_rates: Mapping[int, float] | None = None,
) -> list[int]:
    """Draws `count` eligible positions without replacement (all, where there are fewer), sorted.

    With `pass_rate` each of them is, with probability `measure_again`, one whose measured rate was
    outside the band, as long as there are such. By a strategy of the user's own each is drawn, of
    those that are left, in proportion to its weight. Raises UserError as `own_weights` does.
    """
    eligible, weights = _weighted(document, config, window, pass_rates)
    if weights is not None:
        return sorted(_draw(eligible, weights, count, rng).tolist())
    chosen: list[int] = []
    if config.strategy == "pass_rate" and pass_rates and config.measure_again:
        inside = [i for i in sorted(pass_rates) if window.first <= i < window.end]
        left = np.setdiff1d(np.array(inside, dtype=np.int64), eligible)
        again = min(len(left), int(rng.binomial(count, config.measure_again)))
        chosen = rng.choice(left, size=again, replace=False).tolist()
    size = min(count - len(chosen), len(eligible))
    return sorted([*chosen, *rng.choice(eligible, size=size, replace=False).tolist()])


def _weighted(
    document: ScoredDocument,
    config: SelectionConfig,
    window: Window,
    pass_rates: Mapping[int, float] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Returns the eligible positions [n], and their weights [n] by a strategy of the user's own;
    None where it is one of OpenRPT's."""
    index = np.arange(window.first, min(window.end, document.num_tokens))
    own = load_selection(config)
    known = ~np.isnan(document.entropy)
    if known.any() or not (own or config.strategy == "random"):
        index = index[known[index]]
    passes = np.full(len(index), True)
    match config.strategy:
        case "entropy":
            passes = document.entropy_top16[index] >= config.min_entropy
        case "pass_rate":
            rates = np.exp(-document.negative_log_likelihood[index].astype(np.float64))
            if pass_rates:
                pairs = zip(index.tolist(), rates.tolist(), strict=True)
                rates = np.array([pass_rates.get(i, rate) for i, rate in pairs])
            passes = (rates >= config.pass_rate_low) & (rates <= config.pass_rate_high)
    index = index[passes]
    allowed = passes_rule(
        config.where,
        index,
        text=document.text,
        starts=document.byte_offsets,
        offsets=document.offsets,
    )
    index = index[allowed]
    if own is None:
        return index, None
    weights = own_weights(own, document, index, window=window, pass_rates=pass_rates or {})
    return index[weights > 0], weights[weights > 0]


def _draw(
    eligible: NDArray[np.int64],
    weights: NDArray[np.float64],
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draws up to `count` positions, one after another of those that are left, in proportion to
    their weights [n]; equal weights make the draws of `random`."""
    size = min(count, len(eligible))
    if not len(weights) or weights.min() == weights.max():
        return rng.choice(eligible, size=size, replace=False)
    # The greatest log(weight) + Gumbel noise are such draws; no sum of weights may overflow.
    order = np.argsort(-(np.log(weights) + rng.gumbel(size=len(weights))))
    return eligible[order[:size]]


def advice(config: SelectionConfig) -> str:
    """Returns what to do where no position is eligible."""
    match config.strategy:
        case "entropy":
            return f"lower selection.min_entropy ({config.min_entropy:g} nats)"
        case "pass_rate":
            return (
                "widen the band from selection.pass_rate_low to selection.pass_rate_high"
                f" ({config.pass_rate_low:g} to {config.pass_rate_high:g})"
            )
        case "random":
            return "score longer documents, lower prompt.min_context, or widen selection.where"
    return "give more positions a weight above 0"
