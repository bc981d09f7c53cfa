"""The positions of an evaluation: the same for every model, spread over all documents."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from openrpt.config.sections import Config
from openrpt.data.positions import ScoredDocument, windows
from openrpt.data.scored import ScoredCorpus
from openrpt.data.where import passes_rule
from openrpt.data.work import Work, work_at
from openrpt.errors import UserError
from openrpt.seeding import generator
from openrpt.types import Split


def asked_evaluation_work(
    corpus: ScoredCorpus,
    config: Config,
    *,
    split: Split | None = None,
    positions: int | None = None,
) -> list[Work]:
    """Returns the positions that [evaluate] asks for; `split`, `positions`: in place of its own.
    Raises UserError as `evaluation_work`."""
    asked = config.evaluate
    return evaluation_work(
        corpus,
        config,
        split=split or asked.split,
        positions=positions or asked.positions,
        positions_per_document=asked.positions_per_document,
        min_entropy=asked.min_entropy,
        where=asked.where,
    )


def evaluation_work(
    corpus: ScoredCorpus,
    config: Config,
    *,
    split: Split,
    positions: int,
    positions_per_document: int,
    min_entropy: float,
    where: str = "",
) -> list[Work]:
    """Returns the positions of an evaluation: the same for every model, spread over all documents.

    Documents and their positions in a keyed order, one of each document in turn, at most
    `positions_per_document` of each, until there are `positions`. `where`: the rule that positions
    pass, too. Raises UserError if there is none.
    """
    numbers = corpus.numbers(split)
    ordered = numbers[generator(config.seed, "evaluation", split).permutation(len(numbers))]

    def found_in(number: int) -> tuple[ScoredDocument, np.ndarray]:
        document = corpus.numbered(number)
        found = _above(document, config, min_entropy, where)
        rng = generator(config.seed, "evaluation", document.document_id)
        return document, rng.permutation(found)[:positions_per_document]

    if where:  # many documents may have no position that passes
        passing = (pair for pair in map(found_in, ordered.tolist()) if len(pair[1]))
        eligible = list(islice(passing, positions))
    else:  # nearly every one has: these are known, and read shard by shard
        first = ordered[:positions].tolist()
        read = {number: found_in(number) for number in sorted(first)}
        eligible = [read[number] for number in first]
    works: list[Work] = []
    for (document, found), taken in zip(eligible, _shares(eligible, positions), strict=True):
        if taken:
            works += _works(document, config, found[:taken].tolist())
    if not works:
        passes = f" and passes the rule '{where}'" if where else ""
        raise UserError(
            f"no position of the {split} split has an entropy above {min_entropy:g} nats{passes};"
            " score more documents, or lower evaluate.min_entropy"
        )
    return works


def _above(document: ScoredDocument, config: Config, min_entropy: float, where: str) -> np.ndarray:
    """Returns the positions of more than this entropy that pass the rule: [n]. Those without a
    score never pass."""
    index = np.arange(min(config.prompt.min_context, document.num_tokens), document.num_tokens)
    index = index[document.entropy[index] > min_entropy]
    passes = passes_rule(
        where,
        index,
        text=document.text,
        starts=document.byte_offsets,
        offsets=document.offsets,
    )
    return index[passes]


def _shares(eligible: Sequence[tuple[Any, np.ndarray]], positions: int) -> list[int]:
    """Returns how many of each document's positions are taken: one more of each in turn,
    `positions` in all."""
    taken = [0] * len(eligible)
    left = positions
    while left and any(n < len(found) for n, (_, found) in zip(taken, eligible, strict=True)):
        for i, (_, found) in enumerate(eligible):
            if left and taken[i] < len(found):
                taken[i] += 1
                left -= 1
    return taken


def _works(document: ScoredDocument, config: Config, indices: list[int]) -> list[Work]:
    """Returns the windows that these positions are in."""
    found = windows(
        document.num_tokens, window=config.prompt.window, min_context=config.prompt.min_context
    )
    works = []
    for window in found:
        inside = sorted(index for index in indices if window.first <= index < window.end)
        if inside:
            works.append(work_at(document, window, inside))
    return works
