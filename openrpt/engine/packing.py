"""How sequences are put side by side in one pass."""

from collections.abc import Sequence


def packs(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Returns indices of sequences in order, as many at a time as stay within `tokens` (at least
    one).

    >>> packs([3, 2, 4, 9], 6)
    [[0, 1], [2], [3]]
    """
    found: list[list[int]] = []
    filled = 0
    for index, length in enumerate(lengths):
        if found and filled + length <= tokens:
            found[-1].append(index)
            filled += length
        else:
            found.append([index])
            filled = length
    return found
