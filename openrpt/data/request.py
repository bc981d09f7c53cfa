"""What a sampler is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to generate for one window of one document; `Work.request` makes it.

    >>> Request(prefix_ids=(5, 6, 7), prefix_lengths=(2, 3), keys=((11, 12), (13, 14))).keys
    ((11, 12), (13, 14))
    """

    prefix_ids: tuple[int, ...]
    """head ⊕ window, as far as the last position."""
    prefix_lengths: tuple[int, ...]
    """A position: the length of its prefix, head included."""
    keys: tuple[tuple[int, ...], ...]
    """A position, a rollout: the key of its random draws. Also gives the group size."""
    openings: tuple[tuple[int, ...], ...] | None = None
    """A position: forced tokens that its thoughts begin with, in place of the candidates."""

    def is_short(self, new_tokens: int) -> bool:
        """Whether a rollout may become as long as all that it could share: one position's prefix.
        Repeated for each rollout, that at most doubles the keys."""
        return len(self.keys) == 1 and len(self.prefix_ids) <= new_tokens

    @classmethod
    def at_end(cls, ids: Sequence[int], keys: Sequence[int]) -> "Request":
        """One position, at the end of these ids, with a rollout a key.

        >>> Request.at_end([5, 6], [11]).prefix_lengths
        (2,)
        """
        return cls(prefix_ids=tuple(ids), prefix_lengths=(len(ids),), keys=(tuple(keys),))
