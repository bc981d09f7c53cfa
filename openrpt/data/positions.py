"""Where predictions start: scored documents, their windows, and difficulty.

Pure functions over scores, on NumPy: no model, no torch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openrpt.errors import UserError
from openrpt.types import Split

DIFFICULTIES = {"easy": 0.5, "medium": 1.0, "hard": 1.5}
"""Nested difficulties: full entropy of the scorer above so many nats (arXiv 2506.08007, section
4)."""

_BANDS = {
    "<=0.5": (-np.inf, 0.5),
    "0.5-1.0": (0.5, 1.0),
    "1.0-1.5": (1.0, 1.5),
    ">1.5": (1.5, np.inf),
}
"""Disjoint bands: full entropy in (low, high], in nats. Together they hold every scored
position."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ScoredDocument:
    """A document's tokens and the scorer's scores for each, from its prefix alone.

    A position without a score (nothing stands before it, or the scorer's tokens have no boundary at
    it) is NaN, its ntp_token_id -1, its ntp_correct False. ntp_token_id is also -1 where the scorer
    has another tokenizer and its prediction is no single token of the policy's.
    """

    document_id: str
    key: str
    split: Split
    source: str
    text: str
    kind: str = ""
    """The document's kind by `corpus.kind`; empty for none."""
    token_ids: NDArray[np.int64]  # [T]
    byte_offsets: NDArray[np.int64]  # [T] where each token begins, in bytes of the text
    negative_log_likelihood: NDArray[np.float32]  # [T] nats
    entropy: NDArray[np.float32]  # [T] nats: the difficulty
    entropy_top16: NDArray[np.float32]  # [T] nats, over the 16 most probable, renormalised
    ntp_token_id: NDArray[np.int64]  # [T] argmax, special tokens masked
    ntp_correct: NDArray[np.bool_]  # [T] that argmax is exact: by bytes, as the reward judges
    offsets: tuple[int, ...] = ()
    """Places by `corpus.offsets`, in bytes of the text."""

    @property
    def num_tokens(self) -> int:
        """The number of tokens, T."""
        return len(self.token_ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A stretch of a document that is run at once, from token `start` up to `end`.

    Its positions are [first, end). A position's prefix is tokens [start, position).

    >>> Window(start=0, end=120, first=16)
    Window(start=0, end=120, first=16)
    """

    start: int
    end: int
    first: int


def check_window(window: int, min_context: int) -> None:
    """Checks that windows can overlap by half and keep the least context. Raises UserError."""
    if window < 2 * min_context:
        raise UserError(
            f"prompt.window = {window} is less than twice prompt.min_context = {min_context}; "
            "raise the window or lower the context"
        )


def windows(num_tokens: int, *, window: int, min_context: int) -> list[Window]:
    """Returns the windows of a document of so many tokens; they depend on nothing else but the two
    lengths.

    Every position ≥ min_context is in exactly one window, with at least min_context tokens of
    prefix and at most `window`. Where the document is longer than a window, all windows are full,
    neighbours overlap by at least half, and a position is in the earliest that reaches it, so its
    prefix is more than half a window (but for the document's beginning). Raises UserError if window
    < 2 · min_context.
    """
    check_window(window, min_context)
    if num_tokens <= min_context:
        return []
    beyond = max(0, num_tokens - 1 - window)  # the last position's prefix is full, too
    steps = -(-beyond // (window - window // 2))
    starts = [step * beyond // max(steps, 1) for step in range(steps + 1)]
    ends = [min(start + window + 1, num_tokens) for start in starts]
    firsts = [min_context, *ends[:-1]]
    return [
        Window(start=start, end=end, first=first)
        for start, end, first in zip(starts, ends, firsts, strict=True)
    ]


def difficulty(entropy: NDArray[np.floating]) -> dict[str, NDArray[np.bool_]]:
    """Returns masks [n] of the easy, medium and hard positions: nested, by full entropy [n] in
    nats.

    >>> {name: flags.tolist() for name, flags in difficulty(np.array([0.5, 1.2])).items()}
    {'easy': [False, True], 'medium': [False, True], 'hard': [False, False]}
    """
    return {name: entropy > least for name, least in DIFFICULTIES.items()}


def bands(entropy: NDArray[np.floating]) -> dict[str, NDArray[np.bool_]]:
    """Returns masks [n] of the positions in each disjoint band, by full entropy [n] in nats.

    >>> {name: flags.tolist() for name, flags in bands(np.array([0.5, 1.2])).items()}
    {'<=0.5': [True, False], '0.5-1.0': [False, False], '1.0-1.5': [False, True], '>1.5': [False, False]}
    """  # noqa: E501 (a doctest's output)
    return {name: (entropy > low) & (entropy <= high) for name, (low, high) in _BANDS.items()}


def slices(entropy: NDArray[np.floating]) -> dict[str, NDArray[np.bool_]]:
    """Returns masks [n]: all positions, then by difficulty (nested), then by band (disjoint).

    >>> [name for name, flags in slices(np.array([0.7])).items() if flags.all()]
    ['all', 'easy', '0.5-1.0']
    """
    return {"all": np.full(len(entropy), True)} | difficulty(entropy) | bands(entropy)
