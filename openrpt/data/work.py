"""Which documents and positions a step takes: pure functions of the seed and a cursor."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openrpt.config.sections import Config
from openrpt.data.places import token_starts
from openrpt.data.positions import (
    ScoredDocument,
    Window,
    eligible_positions,
    select_positions,
    windows,
)
from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.data.scored import ScoredCorpus
from openrpt.data.spans import span_length
from openrpt.data.tokens import encode_document, token_bytes
from openrpt.data.where import passes_rule
from openrpt.errors import UserError
from openrpt.seeding import generator
from openrpt.types import Position, Split

_LONGEST_SPAN = 1024
"""Bytes of the text in which a span is looked for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """A window of a document, with the positions to predict at."""

    document: ScoredDocument
    window: Window
    positions: tuple[Position, ...]

    def prefix_ids(self, layout: Layout, *, whole: bool) -> tuple[int, ...]:
        """Returns the ids of head ⊕ window: to the last position, or the whole window where a loss
        reads it."""
        last = self.positions[-1].index if self.positions else self.window.end
        end = self.window.end if whole else last
        ids = self.document.token_ids[self.window.start : end].tolist()
        return layout.head_ids + tuple(ids)

    def prefix_lengths(self, layout: Layout) -> tuple[int, ...]:
        """Returns the length of the prefix at each position, head included, in tokens."""
        head = len(layout.head_ids)
        return tuple(head + position.index - self.window.start for position in self.positions)

    def request(
        self,
        layout: Layout,
        keys: Sequence[tuple[int, ...]] | None = None,
        *,
        rows: Sequence[int] | None = None,
        openings: Sequence[tuple[int, ...]] | None = None,
        spans: Sequence[bytes] = (),
    ) -> Request:
        """Returns the request for rollouts at the work's positions, or at those that `rows` names.

        `keys`: [rows][rollouts], the key of each rollout's draws; None = no rollout, so that only
        standard prediction and the candidates are found. `openings`: forced tokens that each row's
        thoughts begin with, in place of the candidates. `spans`: what standard prediction is
        decoded against.
        """
        lengths = self.prefix_lengths(layout)
        chosen = lengths if rows is None else tuple(lengths[row] for row in rows)
        return Request(
            prefix_ids=self.prefix_ids(layout, whole=False),
            prefix_lengths=chosen,
            keys=tuple(() for _ in chosen) if keys is None else tuple(keys),
            openings=None if openings is None else tuple(openings),
            spans=tuple(spans),
        )

    def true_spans(self) -> list[bytes]:
        """Returns the text's span at each position."""
        text = self.document.text.encode()
        starts = [int(self.document.byte_offsets[position.index]) for position in self.positions]
        behind = [text[start : start + _LONGEST_SPAN] for start in starts]
        return [one[: span_length(one)] for one in behind]


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
                f"{_rule(config)}{_open(kinds)} in any of {len(numbers)} training documents; lower"
                f" selection.min_entropy ({config.selection.min_entropy:g} nats) or widen the"
                " pass-rate band"
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


def work_at(document: ScoredDocument, window: Window, indices: Sequence[int]) -> Work:
    """Returns the work of predicting at these tokens of a document's window, in ascending order."""
    positions = tuple(
        Position(
            document_id=document.document_id,
            index=index,
            window_start=window.start,
            entropy=float(document.entropy[index]),
        )
        for index in indices
    )
    return Work(document=document, window=window, positions=positions)


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


def document_bytes(tokenizer: Any, document: ScoredDocument) -> list[bytes]:
    """Returns the bytes of the document's tokens, in the policy's tokenizer."""
    return token_bytes(tokenizer, document.token_ids.tolist())


def retokenized(work: Work, tokenizer: Any) -> Work:
    """Returns the work at the same places of the same text in the tokens of another tokenizer.

    Positions on a boundary that both tokenizers share are kept (there may be none), with the
    scorer's entropy; the prefix begins at the first boundary in the window.
    """
    byte_offsets = work.document.byte_offsets
    ids, pieces = encode_document(tokenizer, work.document.text)
    starts = token_starts(pieces)

    def place(index: int) -> int:
        """The first token that begins at or after the old token of this index."""
        whole = index >= len(byte_offsets)
        return len(ids) if whole else int(np.searchsorted(starts, byte_offsets[index]))

    window = Window(
        start=place(work.window.start), end=place(work.window.end), first=place(work.window.first)
    )
    kept = {
        place(old.index): old
        for old in work.positions
        if place(old.index) < len(ids) and starts[place(old.index)] == byte_offsets[old.index]
    }
    unknown = np.full(len(ids), np.nan, np.float32)
    entropy = unknown.copy()
    for index, old in kept.items():
        entropy[index] = old.entropy
    document = replace(
        work.document,
        token_ids=np.array(ids, dtype=np.int64),
        byte_offsets=starts,
        negative_log_likelihood=unknown,
        entropy=entropy,
        entropy_top16=unknown,
        ntp_token_id=np.full(len(ids), -1, np.int64),
        ntp_correct=np.full(len(ids), False),
    )
    positions = tuple(
        replace(old, index=index, window_start=window.start) for index, old in kept.items()
    )
    return Work(document=document, window=window, positions=positions)


def works_key(works: Sequence[Work]) -> str:
    """SHA-256 in hex of documents, windows and positions: what is measured there depends on it."""
    digest = hashlib.sha256()
    for work in works:
        places = [(position.index, float(position.entropy)) for position in work.positions]
        about = [work.document.document_id, work.document.text, asdict(work.window), places]
        digest.update(json.dumps(about).encode())
        digest.update(work.document.ntp_token_id.tobytes())
    return digest.hexdigest()
