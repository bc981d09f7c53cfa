"""What of a corpus was not read, or not as it stood: in lines for whoever waits."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from openrpt.data.corpus_counts import FIRST, CorpusCounts
from openrpt.data.corpus_files import listed
from openrpt.data.score_summary import ScoreSummary

_DOCUMENTS = {
    "skipped_not_text": "skipped, not text",
    "skipped_empty": "skipped, empty",
    "skipped_invalid_utf8": "skipped, invalid UTF-8",
    "exact_duplicates": "skipped, the same word for word",
    "near_duplicates_dropped": "skipped, near-duplicates of documents on two sides of the split",
    "near_duplicates_moved": "moved to the side of a near-duplicate",
    "skipped_short": "skipped, too short",
    "skipped_unencodable": "skipped, not encodable",
}
"""The words for each count of CorpusCounts and of ScoreSummary."""
_MANY = 0.1
"""Share of documents that are dropped as near-duplicates from which on it is said what to do."""


def skipped_lines(state: Mapping[str, Any]) -> list[str]:
    """Returns a line for each kind of document that was skipped or moved, and for files left out.

    Each has its number and the names of the first documents. `state`: what scored.json says of a
    corpus that was scored to its end.
    """
    counts = CorpusCounts(**state["corpus"])
    lines = _lines(counts, ScoreSummary(**state["summary"]))
    return [*lines, *_one_sided(counts), *_mostly_dropped(counts)]


def unread_lines(counts: CorpusCounts) -> list[str]:
    """Returns the same lines for a corpus that is no run's own: all sides of its split are read, so
    a document that was moved is none of these."""
    return list(_lines(replace(counts, near_duplicates_moved=0), ScoreSummary()))


def _lines(counts: CorpusCounts, summary: ScoreSummary) -> Iterator[str]:
    if counts.files_left_out:
        files = _number(counts.files_left_out, "file")
        yield f"left out: {files} ({listed(counts.endings_left_out)})"
    numbers, first = vars(counts) | vars(summary), counts.first | summary.first
    for count, said in _DOCUMENTS.items():
        if number := numbers[count]:
            names = ", ".join(first.get(count, []))
            names += ", …" if names and number > FIRST else ""
            shared = counts.shared_words if count.startswith("near_duplicates") else ""
            such = f"; they share words such as '{shared}'" if shared else ""
            known = f" ({names}{such})" if names else ""
            yield f"{said}: {_number(number, 'document')}{known}"


def _one_sided(counts: CorpusCounts) -> Iterator[str]:
    if counts.shared_words and counts.train in (0, counts.documents):
        amount = "all" if counts.train else "none"
        yield (
            f"warning: {amount} of {_number(counts.documents, 'document')} on the train side, as"
            f" they share words with one another, such as '{counts.shared_words}'; take such words"
            " out of the corpus and score it under another --run"
        )


def _mostly_dropped(counts: CorpusCounts) -> Iterator[str]:
    dropped = counts.near_duplicates_dropped
    whole = counts.documents + dropped
    if dropped > _MANY * whole:
        yield (
            f"warning: {dropped:,} of {_number(whole, 'document')} are not used, as they share"
            f" words with documents of two sides of the split, such as '{counts.shared_words}';"
            " take words that all have out of the corpus (headers, templates), join lines that"
            " belong together into one document (corpus.separator), or give texts that differ as"
            " held-out ones (corpus.heldout_path); then score under another --run"
        )


def _number(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
