"""The counts of what a corpus's reader has met."""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from openrpt.data.readers import Unusable
from openrpt.types import Document

_SKIPS_NAMED = 20
"""Most skipped documents that `CorpusCounts.skipped` names."""
FIRST = 3
"""Most documents that `CorpusCounts.first` names of each kind."""


@dataclass(kw_only=True)
class CorpusCounts:
    """The counts of what `read_corpus` has met so far, in documents (for a .txt in invalid UTF-8:
    files)."""

    documents: int = 0
    train: int = 0
    development: int = 0
    heldout: int = 0
    skipped_invalid_utf8: int = 0
    skipped_empty: int = 0
    skipped_not_text: int = 0
    exact_duplicates: int = 0
    near_duplicates_moved: int = 0
    """Documents on another side than their key's hash said, because of an earlier document."""
    near_duplicates_dropped: int = 0
    """Documents that overlapped with documents of two sides."""
    shared_words: str = ""
    """Words that the first document that was moved or dropped shares with an earlier one."""
    files_left_out: int = 0
    """Files of a folder that were left out, because a corpus has no files of their kind."""
    endings_left_out: list[str] = field(default_factory=list)
    """Endings of those files, each once."""
    skipped: list[str] = field(default_factory=list)
    """Name and reason of the first 20 that were skipped."""
    first: dict[str, list[str]] = field(default_factory=dict)
    """Names of the first 3 documents of each kind, by the names of these counts."""
    _hash: Any = field(default_factory=sha256, repr=False, compare=False)

    def corpus_hash(self) -> str:
        """Returns the hex SHA-256 over the documents so far, in order: their ids and splits."""
        return self._hash.hexdigest()

    def add(self, document: Document) -> None:
        """Counts a document that is used."""
        self.documents += 1
        self.train += document.split == "train"
        self.development += document.split == "development"
        self.heldout += document.split == "heldout"
        self._hash.update(f"{document.document_id} {document.split}\n".encode())

    def skip(self, unusable: Unusable) -> None:
        """Counts what is skipped, and keeps its name and reason, if it is among the first."""
        if unusable.reason == "left_out":
            self.files_left_out += 1
            if unusable.message not in self.endings_left_out:
                self.endings_left_out.append(unusable.message)
            return
        self.skipped_invalid_utf8 += unusable.reason == "invalid_utf8"
        self.skipped_empty += unusable.reason == "empty"
        self.skipped_not_text += unusable.reason == "not_text"
        keep_first(self.first, f"skipped_{unusable.reason}", unusable.source)
        if len(self.skipped) < _SKIPS_NAMED:
            self.skipped.append(str(unusable))


def keep_first(first: dict[str, list[str]], count: str, name: str) -> None:
    """Adds the name of a document, unless there are 3 already."""
    names = first.setdefault(count, [])
    if len(names) < FIRST:
        names.append(name)
