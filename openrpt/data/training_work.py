"""The documents and positions that a training step takes: functions of the seed and a cursor."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from openrpt.config.sections import Config
from openrpt.data.positions import ScoredDocument, windows
from openrpt.data.scored import ScoredCorpus
from openrpt.data.selection import advice, eligible_positions, select_positions
from openrpt.data.work import Work, work_at
from openrpt.errors import UserError
from openrpt.seeding import generator


def place_at(count: int, cursor: int, seed: int) -> int:
    """Returns the place, in their order, of that of `count` documents which a cursor stands for:
    every epoch has an order of its own."""
    epoch, place = divmod(cursor, count)
    return int(_order(seed, epoch, count)[place])


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Returns an epoch's order: [count], made once, since it takes 20 ns and 8 bytes a document."""
    return generator(seed, "epoch", epoch).permutation(count)


def take_work(
    corpus: ScoredCorpus,
    config: Config,
    *,
    cursor: int,
    count: int,
    purpose: str,
    pass_rates: Mapping[str, Mapping[str, float]] | None = None,
    kinds: Sequence[str] | None = None,
) -> Iterator[tuple[int, Work]]:
    """Yields (cursor after it, work), without end; documents without a position are passed over.

    `kinds`: those of which documents are taken; None = all. Raises UserError when a whole epoch has
    no document with an eligible position.
    """
    numbers = corpus.numbers("train")
    if not len(numbers):
        raise UserError(f"{corpus.folder}: no training documents were scored")
    empty = 0
    while True:
        number = int(numbers[place_at(len(numbers), cursor, config.seed)])
        rng = generator(config.seed, purpose, cursor)
        cursor += 1
        if kinds is None or corpus.entries.kind(number) in kinds:
            document = corpus.numbered(number)
            measured = (pass_rates or {}).get(document.document_id, {})
            work = _choose(document, config, count, rng, {int(k): v for k, v in measured.items()})
            if work.positions:
                empty = 0
                yield cursor, work
                continue
        empty += 1
        if empty >= len(numbers):
            raise UserError(
                f"no position passes selection.strategy = '{config.selection.strategy}'"
                f"{_rule(config)}{_open(kinds)} in any of {len(numbers)} training documents;"
                f" {advice(config.selection)}"
            )


def _rule(config: Config) -> str:
    where = config.selection.where
    return f" and selection.where = '{where}'" if where else ""


def _open(kinds: Sequence[str] | None) -> str:
    return f" of the kinds {', '.join(kinds)} (selection.curriculum)" if kinds else ""


def _choose(
    document: ScoredDocument,
    config: Config,
    count: int,
    rng: np.random.Generator,
    pass_rates: Mapping[int, float],
) -> Work:
    found = windows(
        len(document.token_ids), window=config.prompt.window, min_context=config.prompt.min_context
    )
    sizes = np.array([window.end - window.first for window in found], dtype=float)
    if config.selection.where:  # most windows may have no such position
        rule = config.selection.model_copy(update={"strategy": "random"})
        passing = [eligible_positions(document, rule, window=window) for window in found]
        sizes = np.array([len(positions) for positions in passing], dtype=float)
        if not sizes.any():
            return work_at(document, found[0], [])
    window = found[int(rng.choice(len(found), p=sizes / sizes.sum()))]
    indices = select_positions(
        document, config.selection, window=window, count=count, rng=rng, pass_rates=pass_rates
    )
    return work_at(document, window, indices)
