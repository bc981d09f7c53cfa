"""Which documents say the same: an index of 13-word grams on disk, so memory stays the same.

Two documents that share a gram stand on one side of the split. Words that many different
documents have, such as a licence's header or a template, say nothing about that: once a gram
has been met in more than 10 documents, and in more than one in 50, it is *common* for good. It
draws no further document, and neither does a gram that shares more than half of its words with
common ones. A document two thirds of which were met before is a *copy*: it makes no gram common,
so that any number of copies of one text stay together.
"""

import json
import re
import sqlite3
import tempfile
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from openrpt.errors import UserError
from openrpt.types import Split

GRAM_WORDS = 13
"""Words in a row that two documents share only if one took them from the other."""
_MIN_WORDS = 5
"""A document with fewer words than this is like many others: it overlaps with none."""
_COMMON_DOCUMENTS = 10
"""Different documents up to which a gram is not common."""
_COMMON_SHARE = 50
"""A gram that at most one different document in so many has is not common either."""
_COPY_SHARE = 2 / 3
"""Share of its words met before from which on a document is a copy."""
_CACHE_KIB = 128 * 1024
"""Pages of the index held in memory, in KiB; the rest stays on disk."""

# Scripts without spaces between words; of the others, Korean included, a word is a word.
_IDEOGRAPHS = "\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf"
_IDEOGRAPHS += "\u4e00-\u9fff\ua000-\ua48f\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
_LETTERS = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf"
_LETTERS += "\u1b00-\u1b7f\ua980-\ua9df\ua9e0-\ua9ff\uaa60-\uaadf"
_WORD = re.compile(rf"[^\W_{_IDEOGRAPHS}{_LETTERS}]+|(?![\W_])[{_IDEOGRAPHS}{_LETTERS}]")
_SPACELESS = re.compile(rf"[{_IDEOGRAPHS}{_LETTERS}]")
_LETTER = re.compile(rf"[{_LETTERS}]")
# A word has about 2 ideographs or kana, or 4 letters of Thai, Lao, Khmer, Burmese and the like.
_WORD_PARTS, _IDEOGRAPH_PARTS, _LETTER_PARTS = 4, 2, 1
_SOFT_HYPHEN = "\u00ad"
_FIRST_SPACELESS = "\u0e00"
_SIDES: tuple[Split, ...] = ("train", "development", "heldout")


class _Gram(NamedTuple):
    """Thirteen words in a row, from word `start` up to word `end` of a text's words."""

    hash: int
    """Signed, 64 bits."""
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """A document's side of the split, and why."""

    side: Split | None
    """None: it overlaps with documents of two sides."""
    shared: str
    """Words that an earlier document has, too, where they decided."""


def folded_words(text: str) -> list[str]:
    """Returns a text's alphanumeric words, in lower case and compatibility forms (NFKC).

    Where a script puts no spaces between words, each character is one.

    >>> folded_words("Ａ Café, 数学 is π!")
    ['a', 'café', '数', '学', 'is', 'π']
    """
    plain = unicodedata.normalize("NFKC", text).replace(_SOFT_HYPHEN, "")
    return _WORD.findall(plain.lower())


def _grams_of(words: list[str]) -> list[_Gram]:
    """Returns every 13 words in a row, in order; 2 ideographs, or 4 letters of Thai, count as one
    word.

    A text of 5 to 12 words is one gram; a shorter one has none.
    """
    parts = [0, *accumulate(map(_parts, words))]  # [W + 1], before each word and at the end
    if parts[-1] < _MIN_WORDS * _WORD_PARTS:
        return []
    needed = min(GRAM_WORDS * _WORD_PARTS, parts[-1])
    grams, start = [], 0
    for end in range(1, len(words) + 1):
        while parts[end] - parts[start] >= needed:  # as many starts as have their end here
            grams.append(_Gram(_hash(" ".join(words[start:end])), start, end))
            start += 1
    return grams


class DuplicateIndex:
    """The ids of all documents so far, and the side of the split on which each gram stands.

    Opened by `open_index`, which also removes the file again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.documents = 0
        """That were placed or dropped and differed: copies and a key's further ones left aside."""
        self.database = sqlite3.connect(path, isolation_level=None)
        # The file outlives no crash: no journal and no sync. One transaction from start to end,
        # since SQLite itself writes pages out when its cache is full.
        self.database.execute("PRAGMA journal_mode = OFF")
        self.database.execute("PRAGMA synchronous = OFF")
        self.database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self.database.execute("CREATE TABLE ids (id INTEGER PRIMARY KEY)")
        self.database.execute("CREATE TABLE keys (hash INTEGER PRIMARY KEY, side INTEGER)")
        # documents: how many different ones have the gram; NULL for a common one.
        self.database.execute(
            "CREATE TABLE grams (hash INTEGER PRIMARY KEY, side INTEGER, documents INTEGER)"
        )
        self.database.execute("BEGIN")

    def add_id(self, document_id: str) -> bool:
        """Notes a document's id (16 hex digits); False where it was known already."""
        number = int.from_bytes(bytes.fromhex(document_id), "big", signed=True)
        return self._run("INSERT OR IGNORE INTO ids VALUES (?)", number).rowcount == 1

    def place(self, text: str, key: str, split: Split) -> Placement:
        """Returns the side on which a document stands: that of earlier ones with a common gram or
        key.

        `split` where nothing overlaps; None where it overlaps with two sides, and then none of its
        own words are noted. Documents of one key stay together, also when one of them is drawn to
        the other side.
        """
        words = folded_words(text)
        grams = _grams_of(words)
        # Sorted, because neighbours share the index's pages.
        hashes = json.dumps(sorted({gram.hash for gram in grams}))
        met = {
            gram_hash: (side, documents is None)
            for gram_hash, side, documents in self._run(
                "SELECT hash, side, documents FROM json_each(?) CROSS JOIN grams"
                " ON grams.hash = value",
                hashes,
            )
        }
        is_copy = _share_met(words, grams, met.keys()) >= _COPY_SHARE
        common = {hash_ for hash_, (_, is_common) in met.items() if is_common}
        own = _own_grams(words, grams, common)
        drawn = {hash_: side for hash_, (side, _) in met.items() if hash_ in own}
        if not drawn and is_copy:  # of what many documents quote
            drawn = {hash_: side for hash_, (side, _) in met.items()}
        key_hash = _hash(key)
        keys = [side for (side,) in self._run("SELECT side FROM keys WHERE hash = ?", key_hash)]
        sides = {*drawn.values(), *keys}
        if not is_copy and not keys:  # a key's other documents may repeat what they are about
            self._count([hash_ for hash_, (_, is_common) in met.items() if not is_common])
        first = next((gram for gram in grams if gram.hash in drawn), None)
        shared = " ".join(words[first.start : first.end]) if first else ""
        if len(sides) > 1:
            return Placement(side=None, shared=shared)
        side = _SIDES[sides.pop()] if sides else split
        number = _SIDES.index(side)
        self._run("INSERT OR IGNORE INTO keys VALUES (?, ?)", key_hash, number)
        self._run(
            "INSERT OR IGNORE INTO grams SELECT value, ?, 1 FROM json_each(?)", number, hashes
        )
        return Placement(side=side, shared=shared)

    def _count(self, met: list[int]) -> None:
        """Counts a document that differs from the earlier ones, and its share of their grams."""
        self.documents += 1
        most = max(_COMMON_DOCUMENTS, self.documents // _COMMON_SHARE)
        self._run(
            "UPDATE grams SET documents = CASE WHEN documents < ? THEN documents + 1 END"
            " WHERE hash IN (SELECT value FROM json_each(?))",
            most,
            json.dumps(sorted(met)),
        )

    def _run(self, statement: str, *values: int | str) -> sqlite3.Cursor:
        try:
            return self.database.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise UserError(
                f"{self.path}: the index of near-duplicates cannot be written ({error});"
                " free space there"
            ) from None


@contextmanager
def open_index(path: Path | None) -> Iterator[DuplicateIndex]:
    """Opens an empty index at `path`, or in a temporary folder; its file is gone afterwards.

    What an interrupted run left at `path` is overwritten. Raises UserError where nothing can be
    written there.
    """
    with ExitStack() as stack:
        if path is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="openrpt-"))
            path = Path(folder) / "duplicates.sqlite"
        path.unlink(missing_ok=True)
        stack.callback(path.unlink, missing_ok=True)
        try:
            index = DuplicateIndex(path)
        except sqlite3.OperationalError as error:
            raise UserError(f"{path}: cannot be written ({error})") from None
        stack.callback(index.database.close)
        yield index


def _share_met(words: list[str], grams: list[_Gram], met: Collection[int]) -> float:
    """Returns the share of a document's words that stand in grams that were met before."""
    if not met:
        return 0.0
    covered = end = 0
    for gram in grams:
        if gram.hash in met:
            covered += sum(map(_parts, words[max(gram.start, end) : gram.end]))
            end = gram.end
    return covered / sum(map(_parts, words))


def _own_grams(words: list[str], grams: list[_Gram], common: Collection[int]) -> set[int]:
    """Returns the grams at least half of which stands outside of common ones.

    Behind a header many documents go on with the same word: that, too, says nothing.
    """
    is_own = [1] * len(words)
    for gram in grams:
        if gram.hash in common:
            is_own[gram.start : gram.end] = [0] * (gram.end - gram.start)
    before = [0, *accumulate(is_own)]  # [W + 1] own words before each
    return {
        gram.hash
        for gram in grams
        if 2 * (before[gram.end] - before[gram.start]) >= gram.end - gram.start
    }


def _parts(word: str) -> int:
    if word < _FIRST_SPACELESS or not _SPACELESS.match(word):
        return _WORD_PARTS
    return _LETTER_PARTS if _LETTER.match(word) else _IDEOGRAPH_PARTS


def _hash(words: str) -> int:
    digest = blake2b(words.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
