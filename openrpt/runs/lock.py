"""One process at a time writes in a run folder. The system frees the lock when the process ends,
however it ends; the file `.lock` stays, and says who holds it."""

import errno
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from openrpt.errors import UserError
from openrpt.files import reason_of, writing
from openrpt.terminal import say_error

LOCK = ".lock"
_LOCKED_BYTE = 1 << 30
"""On Windows, where nobody else can read what is locked: far behind the text."""
_IS_LOCKED = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}

_held: set[tuple[int, int]] = set()
"""The folders that this process holds, by device and inode: a folder may get another name."""


@contextmanager
def sole_process(folder: Path) -> Iterator[bool]:
    """Keeps other processes out of `folder` meanwhile; this one may enter again. Gives whether this
    is the first time. Raises UserError that names the process that works there."""
    stat = folder.stat()
    key = (stat.st_dev, stat.st_ino)
    if key in _held:
        yield False
        return
    path = folder / LOCK
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        locked = _lock(descriptor, folder)
        if locked:
            with writing(path):
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.write(descriptor, _about_us().encode())
        _held.add(key)
        try:
            yield True
        finally:
            _held.discard(key)
            if locked:
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> bool:
    """Returns whether the file system has locks; where not, that is said."""
    path = folder / LOCK
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            say_error(
                f"{folder}: its file system has no locks ({error.strerror}): see to it yourself"
                " that no other process works in this run"
            )
            return False
        if error.errno not in _IS_LOCKED:
            raise UserError(f"{path}: cannot be locked {reason_of(error)}") from None
        raise UserError(
            f"{folder}: another process works in this run ({_holder(path)}); wait until it has"
            " ended, or choose another --run"
        ) from None
    return True


def _about_us() -> str:
    command = shlex.join(["openrpt", *sys.argv[1:]])[:200]
    since = datetime.now().isoformat(" ", "seconds")
    return f"pid {os.getpid()} on {socket.gethostname()}: {command}, since {since}\n"


def _holder(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    return "".join(c if c.isprintable() else "?" for c in text) or "just begun"
