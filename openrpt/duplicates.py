"""Which documents say the same: an index of 13-word grams on disk, so memory stays the same."""

import json
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path

from openrpt.errors import UserError
from openrpt.types import Split

GRAM_WORDS = 13
"""Words in a row that two documents share only if one took them from the other."""
MIN_WORDS = 5
"""A document with fewer words than this is like many others: it overlaps with none."""
CACHE_KIB = 128 * 1024
"""Pages of the index held in memory, in KiB; the rest stays on disk."""

_WORD = re.compile(r"[^\W_]+")
_SIDES: tuple[Split, ...] = ("train", "development", "heldout")


def gram_hashes(text: str) -> set[int]:
    """Signed 64-bit hashes of a text's 13-grams, after lower-casing, of alphanumeric words only.

    A text of 5 to 12 words is one gram; a shorter one has none.

    >>> gram_hashes("One, two; THREE four -- five!") == gram_hashes("one two three four five")
    True
    >>> gram_hashes("too short")
    set()
    """
    words = _WORD.findall(text.lower())
    if len(words) < MIN_WORDS:
        return set()
    starts = range(max(1, len(words) - GRAM_WORDS + 1))
    return {_hash(" ".join(words[start : start + GRAM_WORDS])) for start in starts}


class DuplicateIndex:
    """The ids of all documents so far, and the side of the split on which each gram stands.

    Opened by `open_index`, which also removes the file again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = sqlite3.connect(path, isolation_level=None)
        # The file outlives no crash: no journal and no sync. One transaction from start to end,
        # since SQLite itself writes pages out when its cache is full.
        self.database.execute("PRAGMA journal_mode = OFF")
        self.database.execute("PRAGMA synchronous = OFF")
        self.database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self.database.execute("CREATE TABLE ids (id INTEGER PRIMARY KEY)")
        self.database.execute("CREATE TABLE grams (hash INTEGER PRIMARY KEY, side INTEGER)")
        self.database.execute("BEGIN")

    def add_id(self, document_id: str) -> bool:
        """Notes a document's id (16 hex digits); False where it was there already."""
        number = int.from_bytes(bytes.fromhex(document_id), "big", signed=True)
        return self._run("INSERT OR IGNORE INTO ids VALUES (?)", number).rowcount == 1

    def place(self, text: str, key: str, split: Split) -> Split | None:
        """The side on which a document stands: that of earlier ones with a common gram or key.

        `split` where nothing overlaps; None where it overlaps with two sides, and then nothing
        of it is noted. The key counts as a gram, so that documents of one key stay together
        when one of them is drawn to the other side.
        """
        # Sorted, because neighbours share the index's pages. No word holds the "\0".
        hashes = json.dumps(sorted(gram_hashes(text) | {_hash("\0" + key)}))
        sides = self._sides(hashes)
        if len(sides) > 1:
            return None
        side = sides[0] if sides else split
        self._run(
            "INSERT OR IGNORE INTO grams SELECT value, ? FROM json_each(?)",
            _SIDES.index(side),
            hashes,
        )
        return side

    def _sides(self, hashes: str) -> list[Split]:
        rows = self._run(
            "SELECT DISTINCT side FROM json_each(?) CROSS JOIN grams ON grams.hash = value",
            hashes,
        )
        return [_SIDES[side] for (side,) in rows]

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
    """An empty index at `path`, or in a temporary folder; its file is gone afterwards.

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


def _hash(words: str) -> int:
    digest = blake2b(words.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
