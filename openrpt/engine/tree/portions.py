"""How many tails, and how many completions, run in one pass."""

from collections.abc import Iterator, Sequence

from openrpt.engine.branches import Branch, CompletionIndex

_PASS_TOKENS = 256
"""Padding that may be worth a pass of its own: to read all weights, and to add up the gradient of
each, takes as long as this many tokens of SmolLM2."""


def portions(branches: Sequence[Branch], tokens: int) -> Iterator[tuple[int, Sequence[Branch]]]:
    """Yields branches in order with the number of the first, as many at a time as have tails within
    `tokens` when padded (at least one). Those with a tail and those without are apart."""
    start = longest = 0
    for b, branch in enumerate(branches):
        longest = max(longest, len(branch.tail_ids))
        full = longest * (b + 1 - start) > tokens
        if b > start and (full or (not branch.tail_ids) != (not branches[start].tail_ids)):
            yield start, branches[start:b]
            start, longest = b, len(branch.tail_ids)
    if branches:
        yield start, branches[start:]


def micro_batches(branches: Sequence[Branch], tokens: int) -> list[list[CompletionIndex]]:
    """Returns all completions, as many at a time as stay within `tokens` when padded, and need
    little padding (at least one): those of like length together, in order within a micro-batch.

    >>> long, short = tuple(range(300)), (1, 2)
    >>> branch = Branch(prefix_length=5, tail_ids=(), completions=(short, long, short))
    >>> micro_batches([branch], 1000)
    [[(0, 0), (0, 2)], [(0, 1)]]
    """
    places = [(b, c) for b, branch in enumerate(branches) for c in range(len(branch.completions))]
    places.sort(key=lambda at: len(branches[at[0]].completions[at[1]]))
    batches: list[list[CompletionIndex]] = []
    filled = 0
    for b, c in places:
        length = len(branches[b].completions[c])  # the longest so far
        padded = length * (len(batches[-1]) + 1) if batches else tokens + 1
        padding = padded - filled - length
        if padded <= tokens and padding <= max(_PASS_TOKENS, filled // 2):
            batches[-1].append((b, c))
            filled += length
        else:
            batches.append([(b, c)])
            filled = length
    return [sorted(batch) for batch in batches]
