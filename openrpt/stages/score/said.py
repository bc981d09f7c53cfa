"""What was scored, in words: how much, how hard, and whether it is enough to tell models apart."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openrpt.amounts import count
from openrpt.config.sections import Config
from openrpt.data.evaluation_work import asked_evaluation_work
from openrpt.data.positions import DIFFICULTIES
from openrpt.data.scored import ScoredCorpus
from openrpt.errors import UserError
from openrpt.evaluation.statistics import Estimate, mean_by_document, ratio_by_document
from openrpt.progress import SILENT, Progress
from openrpt.runs.show import visible
from openrpt.sheets import percent

_POWER = 1.96 + 0.84
"""Standard errors of a difference that is told in four of five tries, at 5 %, two-sided."""
_WANTED = 0.02
"""A difference worth having: half of what the paper's models gain over standard prediction."""
_HARDEST = 6
_LONG = 5_000_000
"""Tokens of a corpus from which on looking through it takes seconds."""
_LEAST = 5
"""Occurrences of a token whose surprise is told."""


class _Surprise:
    """The mean surprise of every token of the vocabulary.

    Legend: V tokens of the vocabulary, up to the last that was met; T tokens of a shard.
    """

    def __init__(self) -> None:
        self.sums = np.zeros(0)  # [V] nats
        self.counts = np.zeros(0, np.int64)  # [V]
        self.first = np.zeros(0, np.int64)  # [V] its first place in the corpus

    def add(self, ids: NDArray[np.int64], surprise: NDArray[np.float32], places: int) -> None:
        """Adds a shard's tokens and their negative log-likelihoods, those without a score left
        out; `places`: the number of tokens before the shard."""
        known = np.flatnonzero(~np.isnan(surprise))
        if not len(known):
            return
        ids = ids[known]
        if (more := int(ids.max()) + 1 - len(self.sums)) > 0:
            self.sums = np.pad(self.sums, (0, more))
            self.counts = np.pad(self.counts, (0, more))
            self.first = np.pad(self.first, (0, more), constant_values=-1)
        size = len(self.sums)
        first = np.full(size, -1)
        first[ids[::-1]] = places + known[::-1]  # the last that is written is the first place
        self.first = np.where(self.first < 0, first, self.first)
        self.sums += np.bincount(ids, weights=surprise[known], minlength=size)
        self.counts += np.bincount(ids, minlength=size)

    def hardest(self) -> list[tuple[int, float, int]]:
        """Returns the first place, the mean surprise and the number of the tokens of the greatest
        mean surprise among those that occur often enough."""
        often = np.flatnonzero(self.counts >= _LEAST)
        means = self.sums[often] / self.counts[often]
        chosen = np.lexsort((often, -means))[:_HARDEST]
        return [
            (int(self.first[often[one]]), float(means[one]), int(self.counts[often[one]]))
            for one in chosen
        ]


@dataclass(kw_only=True, eq=False)
class _Seen:
    """The whole corpus, counted a shard at a time.

    Legend: D documents.
    """

    surprise: _Surprise = field(default_factory=_Surprise)
    above: dict[float, list[NDArray[np.int64]]]
    """Tokens of each document whose entropy is above so many nats: [D], by shard."""
    right: list[NDArray[np.int64]] = field(default_factory=list)
    """Tokens of each document at which standard prediction is right: [D], by shard."""
    known: list[NDArray[np.int64]] = field(default_factory=list)
    """Tokens of each document that have a score: [D], by shard."""

    @classmethod
    def of(cls, corpus: ScoredCorpus, progress: Progress) -> "_Seen":
        """Counts a corpus."""
        seen = cls(above={least: [] for least in DIFFICULTIES.values()})
        entries, places = corpus.entries, 0
        total = int(entries.num_tokens.sum())
        bar = progress if total >= _LONG else SILENT
        bar.begin("look through the scores", total, "tokens")
        for shard in range(entries.shards):
            found = corpus.columns(shard, _READ)
            sizes = entries.num_tokens[entries.of_shard(shard)]
            starts = np.cumsum(sizes) - sizes
            for least, counts in seen.above.items():
                counts.append(_by_document(found["entropy"] > least, starts))
            scored = ~np.isnan(found["entropy"])
            seen.right.append(_by_document(found["ntp_correct"] & scored, starts))
            seen.known.append(_by_document(scored, starts))
            seen.surprise.add(found["token_id"], found["negative_log_likelihood"], places)
            places += len(scored)
            bar.update(places)
        bar.end()
        return seen


_READ = ("token_id", "negative_log_likelihood", "entropy", "ntp_correct")


def _by_document(flags: NDArray[np.bool_], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns [D] the flags that are set in each document; documents have tokens."""
    return np.add.reduceat(flags, starts, dtype=np.int64) if len(starts) else starts


def score_lines(
    corpus: ScoredCorpus, config: Config, *, progress: Progress = SILENT
) -> Iterator[str]:
    """Yields a line a split, one on what the evaluated split can tell, one on the hardest tokens.
    Reads each shard once."""
    seen = _Seen.of(corpus, progress)
    for split in config.score.splits:
        numbers = corpus.numbers(split)
        if len(numbers):
            yield f"{split}: {_described(corpus, numbers, seen)}"
    if config.evaluate.split in config.score.splits:
        yield from _evaluation_lines(corpus, config)
    if hardest := seen.surprise.hardest():
        said = (
            f"'{visible(corpus.token_bytes(place))}' {mean:.1f} (n {count(number)})"
            for place, mean, number in hardest
        )
        yield f"hardest tokens, by mean surprise in nats: {', '.join(said)}"


def _evaluation_lines(corpus: ScoredCorpus, config: Config) -> Iterator[str]:
    """Yields what the evaluated split can tell, where it was scored."""
    split = config.evaluate.split
    if not len(corpus.numbers(split)):
        yield (
            f"{split}: no document, so openrpt evaluate has nothing to measure on: score more or"
            " shorter documents (corpus.separator, corpus.block_characters, score.max_tokens), or"
            " give held-out ones (corpus.heldout_path)"
        )
    elif split not in config.score.tokens_only:
        yield f"{split}, for openrpt evaluate: {_evaluable(corpus, config)}"


def _described(corpus: ScoredCorpus, numbers: NDArray[np.int64], seen: _Seen) -> str:
    """Returns a split's size, how many tokens are how hard, and how often standard prediction is
    right."""
    tokens = int(corpus.entries.num_tokens[numbers].sum())
    right, known = (np.concatenate(counts)[numbers] for counts in (seen.right, seen.known))
    size = f"{count(len(known))} documents, {count(tokens)} tokens"
    if not known.sum():
        return size
    hard = ", ".join(
        f"{count(int(np.concatenate(counts)[numbers].sum()))} above {least}"
        for least, counts in seen.above.items()
    )
    accuracy = ratio_by_document(right.astype(float), known.astype(float), np.arange(len(known)))
    right_at = percent(accuracy.as_dict())
    return f"{size}; {hard} nats; standard prediction right at {right_at}"


def _evaluable(corpus: ScoredCorpus, config: Config) -> str:
    """Returns which difference of two models the evaluation's positions can tell, and how many
    documents a smaller one takes."""
    try:
        works = asked_evaluation_work(corpus, config)
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
