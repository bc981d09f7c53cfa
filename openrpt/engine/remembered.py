"""What the cache folder keeps from one start to the next, about large files and the machine: a
small file a fact, whose name stands for all that it depends on."""

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path

from openrpt.data.assets import cache_dir
from openrpt.errors import UserError
from openrpt.files import replacing

REMEMBERED_BYTES = 1 << 25
"""Size of the files from which on a fact is remembered (32 MiB); for smaller ones it takes
milliseconds."""
_REMEMBERED = 64
"""Most facts of a kind that are remembered."""


def place_of(kind: str, depends_on: Iterable[str]) -> Path:
    """Returns the file that holds a fact of this kind, which depends on these lines alone."""
    digest = hashlib.sha256("\n".join(depends_on).encode()).hexdigest()
    return cache_dir() / kind / digest[:32]


def remember(place: Path, text: str) -> None:
    """Puts a line into the cache; one that can't be written costs the next start the work, no
    more."""
    with contextlib.suppress(UserError, OSError):
        with replacing(place, shared=True) as partial:
            partial.write_text(f"{text}\n", encoding="utf-8")
        newest = sorted(place.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in newest[_REMEMBERED:]:
            old.unlink(missing_ok=True)


def recall(place: Path) -> str:
    """Returns the line that is remembered; empty where there is none that can be read."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return place.read_text(encoding="utf-8").strip()
    return ""
