"""What was scored, in words: how much, how hard, and whether it is enough to tell models apart."""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from openrpt.amounts import count
from openrpt.config.sections import Config
from openrpt.data.evaluation_work import evaluation_work
from openrpt.data.positions import DIFFICULTIES, ScoredDocument
from openrpt.data.scored import ScoredCorpus
from openrpt.errors import UserError
from openrpt.evaluation.statistics import Estimate, mean_by_document, ratio_by_document
from openrpt.runs.show import visible
from openrpt.sheets import percent

_POWER = 1.96 + 0.84
"""Standard errors of a difference that is told in four of five tries, at 5 %, two-sided."""
_WANTED = 0.02
"""A difference worth having: half of what the paper's models gain over standard prediction."""
_HARDEST = 6
_LEAST = 5
"""Occurrences of a token whose surprise is told."""


class _Surprise:
    """The mean surprise of every token of the vocabulary, document by document.

    Legend: V tokens of the vocabulary, up to the last that was met.
    """

    def __init__(self) -> None:
        self.sums = np.zeros(0)  # [V] nats
        self.counts = np.zeros(0, np.int64)  # [V]
        self.places: dict[int, bytes] = {}
        """The bytes of each token, as it first occurs."""

    def add(self, document: ScoredDocument) -> None:
        """Adds a document's tokens, those without a score left out."""
        known = np.flatnonzero(~np.isnan(document.negative_log_likelihood))
        if not len(known):
            return
        ids, first, index = np.unique(
            document.token_ids[known], return_index=True, return_inverse=True
        )
        if (more := int(ids[-1]) + 1 - len(self.sums)) > 0:
            self.sums = np.pad(self.sums, (0, more))
            self.counts = np.pad(self.counts, (0, more))
        new = self.counts[ids] == 0
        if new.any():
            data = document.text.encode()
            ends = np.append(document.byte_offsets, len(data))
            for token, place in zip(ids[new].tolist(), known[first][new].tolist(), strict=True):
                self.places[token] = data[ends[place] : ends[place + 1]]
        self.sums[ids] += np.bincount(index, weights=document.negative_log_likelihood[known])
        self.counts[ids] += np.bincount(index)

    def hardest(self) -> list[str]:
        """Returns the tokens of the greatest mean surprise among those that occur often enough,
        with it."""
        often = np.flatnonzero(self.counts >= _LEAST)
        found = (self.sums[often] / self.counts[often]).tolist()
        means = dict(zip(often.tolist(), found, strict=True))
        order = sorted(means, key=lambda token: (-means[token], token))[:_HARDEST]
        times = self.counts.tolist()
        return [
            f"'{visible(self.places[token])}' {means[token]:.1f} (n {count(times[token])})"
            for token in order
        ]


def score_lines(corpus: ScoredCorpus, config: Config) -> Iterator[str]:
    """Yields a line a split, one on what the evaluated split can tell, one on the hardest tokens.
    Holds a document at a time."""
    surprise = _Surprise()
    for split in config.score.splits:
        numbers = corpus.numbers(split).tolist()
        if numbers:
            yield f"{split}: {_described(map(corpus.numbered, numbers), surprise)}"
    split = config.evaluate.split
    if len(corpus.numbers(split)) and split not in config.score.tokens_only:
        yield f"{split}, for openrpt evaluate: {_evaluable(corpus, config)}"
    if hardest := surprise.hardest():
        yield f"hardest tokens, by mean surprise in nats: {', '.join(hardest)}"


def _described(documents: Iterable[ScoredDocument], surprise: _Surprise) -> str:
    """Returns a split's size, how many tokens are how hard, and how often standard prediction is
    right."""
    tokens = 0
    above = dict.fromkeys(DIFFICULTIES.values(), 0)
    right, known = [], []
    for document in documents:
        surprise.add(document)
        tokens += document.num_tokens
        for least in above:
            above[least] += int((document.entropy > least).sum())
        scored = ~np.isnan(document.entropy)
        right.append(float(document.ntp_correct[scored].sum()))
        known.append(float(scored.sum()))
    size = f"{count(len(known))} documents, {count(tokens)} tokens"
    if not sum(known):
        return size
    hard = ", ".join(f"{count(number)} above {least}" for least, number in above.items())
    accuracy = ratio_by_document(np.array(right), np.array(known), np.arange(len(known)))
    right_at = percent(accuracy.as_dict())
    return f"{size}; {hard} nats; standard prediction right at {right_at}"


def _evaluable(corpus: ScoredCorpus, config: Config) -> str:
    """Returns which difference of two models the evaluation's positions can tell, and how many
    documents a smaller one takes."""
    asked = config.evaluate
    try:
        works = evaluation_work(
            corpus,
            config,
            split=asked.split,
            positions=asked.positions,
            positions_per_document=asked.positions_per_document,
            min_entropy=asked.min_entropy,
            where=asked.where,
        )
    except UserError as error:
        return str(error)
    right = np.concatenate(
        [work.document.ntp_correct[[one.index for one in work.positions]] for work in works]
    )
    names = np.repeat(
        [work.document.document_id for work in works], [len(work.positions) for work in works]
    )
    found = mean_by_document(right.astype(float), names)
    size = f"{count(found.n)} positions of {count(found.documents)} documents"
    if found.documents < 2 or not found.standard_error:
        return f"{size}: too few to tell any difference"
    least = _POWER * found.standard_error
    return (
        f"{size} tell differences of {100 * least:.1f} points or more;"
        f" {100 * _WANTED:.0f} points take about {count(documents_for(found, _WANTED))} documents"
        " with as many positions each"
    )


def documents_for(found: Estimate, difference: float) -> int:
    """Returns how many documents tell a difference of two models in four of five tries.

    The standard error of a paired difference is taken to be that of standard prediction's
    accuracy: so it is where the outcomes of the two correlate by a half; where they agree more,
    fewer documents do.
    """
    return math.ceil(found.documents * (_POWER * found.standard_error / difference) ** 2)
