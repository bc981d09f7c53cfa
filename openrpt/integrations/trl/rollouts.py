"""Rollouts for TRL: its prompts as requests to an engine, its model as an engine reads it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from openrpt.data.request import Request
from openrpt.seeding import key_of

if TYPE_CHECKING:
    from openrpt.engine.model import Model


def requests_of(
    prompts: Sequence[dict[str, Any]], tail: int, step: tuple[int, int], *, first: int
) -> Iterator[Request]:
    """Yields requests that hold the prompts in their order: equal neighbours are a group, and
    groups whose prefix goes on from the one before are positions of one document.

    `tail`: tokens behind the prefix; `step`: seed and step; `first`: number of a group's first
    rollout.
    """
    lengths: list[int] = []
    keys: list[tuple[int, ...]] = []
    prefix: list[int] = []
    for (document_id, index), group in groupby(prompts, itemgetter("document_id", "position")):
        rollouts = list(group)
        ids = rollouts[0]["ids"]
        own = ids[: len(ids) - tail]
        if lengths and own[: len(prefix)] != prefix:
            yield Request(prefix_ids=tuple(prefix), prefix_lengths=tuple(lengths), keys=tuple(keys))
            lengths, keys = [], []
        prefix = own
        lengths.append(len(own))
        numbers = range(first, first + len(rollouts))
        keys.append(tuple(key_of(*step, document_id, index, number) for number in numbers))
    if lengths:
        yield Request(prefix_ids=tuple(prefix), prefix_lengths=tuple(lengths), keys=tuple(keys))


@contextmanager
def only_read(policy: "Model") -> Iterator[None]:
    """Puts the trainer's model into the state in which an engine reads it (no dropout, no
    recomputation), and back."""
    training, attention = policy.network.training, policy.attention
    policy.network.eval()
    try:
        yield
    finally:
        policy.attention = attention
        policy.network.train(training)
