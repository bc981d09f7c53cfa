"""Hashes of files, read once a process."""

import hashlib
import time
from functools import lru_cache
from pathlib import Path

_SETTLED_SECONDS = 2
"""Seconds after a file's last change from which on the same times mean the same content: a change
within the file system's tick leaves them as they are."""


def file_hash(path: Path) -> str:
    """Returns the SHA-256 in hex; read once a process, as long as the file stays as it is."""
    return _settled_hash(path, file_stamp(path)) if is_settled(path) else _hash(path)


def is_settled(path: Path) -> bool:
    """Returns whether another content of the file would have another stamp."""
    stat = path.stat()
    changed = max(stat.st_mtime_ns, stat.st_ctime_ns)
    return time.time_ns() - changed >= _SETTLED_SECONDS * 10**9


def file_stamp(path: Path) -> str:
    """Returns size and times, which change whenever the file does: anybody can set the time of its
    last change of content back, but not that of its last change of any kind."""
    stat = path.stat()
    return f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


@lru_cache(maxsize=1024)
def _settled_hash(path: Path, stamp: str) -> str:
    """Returns the SHA-256 in hex; `stamp` is part of the cache's key only."""
    return _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
