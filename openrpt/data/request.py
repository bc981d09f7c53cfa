"""The request to a sampler: what to generate in a window of a document."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """The work for a sampler in one window of one document; `Work.request` makes it.

    >>> Request(prefix_ids=(5, 6, 7), prefix_lengths=(2, 3), keys=((11, 12), (13, 14))).keys
    ((11, 12), (13, 14))
    """

    prefix_ids: tuple[int, ...]
    """Ids of head ⊕ window, as far as the last position."""
    prefix_lengths: tuple[int, ...]
    """Length of the prefix at each position, head included, in tokens."""
    keys: tuple[tuple[int, ...], ...]
    """[positions][rollouts] Key of each rollout's random draws; gives the group size, too."""
    openings: tuple[tuple[int, ...], ...] | None = None
    """Forced tokens that the thoughts at each position begin with, in place of the candidates."""
    spans: tuple[bytes, ...] = ()
    """The text's true span at each position (`openrpt.data.spans`): standard prediction goes on to
    the end of its own as long as it may be that one. Empty: its first token is all."""

    def is_short(self, new_tokens: int) -> bool:
        """Whether a rollout may become as long as all that it could share: one position's prefix.
        Repeated for each rollout, that at most doubles the keys."""
        return len(self.keys) == 1 and len(self.prefix_ids) <= new_tokens

    @classmethod
    def at_end(cls, ids: Sequence[int], keys: Sequence[int]) -> "Request":
        """Returns the request for one position, at the end of these ids, with a rollout a key.

        >>> Request.at_end([5, 6], [11]).prefix_lengths
        (2,)
        """
        return cls(prefix_ids=tuple(ids), prefix_lengths=(len(ids),), keys=(tuple(keys),))
