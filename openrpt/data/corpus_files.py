"""Which files a corpus has: their kinds, their order, and what of a folder is left out."""

import gzip
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from openrpt.errors import UserError

_KINDS = (".txt", ".jsonl", ".parquet", ".txt.gz", ".jsonl.gz")
_COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz", ".zip")


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusFiles:
    """The files of a corpus."""

    found: list[tuple[Path, str]]
    """The files, each with its name: relative to the folder, sorted by it."""
    left_out: list[tuple[str, str]]
    """Name and ending of the folder's other files, but for hidden ones."""


def list_files(path: Path) -> CorpusFiles:
    """Returns the files of a corpus that is one file or a folder.

    Raises UserError where there is no such file, where it is no regular file, and where a folder
    has no file of a known kind.
    """
    try:
        if path.is_file():
            if ending_of(path) not in _KINDS:
                raise UserError(f"{path}: unknown kind of file; a corpus is {', '.join(_KINDS)}")
            return CorpusFiles(found=[(path, path.name)], left_out=[])
        if path.is_dir():
            return _list_folder(path)
        if path.exists():
            raise UserError(
                f"{path}: a pipe or device; a corpus is read more than once, so write it to a file"
                f" ({', '.join(_KINDS)}) and give that"
            )
    except OSError as error:
        raise unreadable(Path(error.filename or path), error) from None
    raise UserError(f"{path}: no such file or folder (a dataset's name is 'datasets:NAME')")


def _list_folder(folder: Path) -> CorpusFiles:
    found: list[tuple[Path, str]] = []
    left_out: list[tuple[str, str]] = []
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in _walk(folder)):
        if path.is_file() and ending_of(path) in _KINDS:
            found.append((path, name))
        else:
            left_out.append((name, _what(path)))
    if not found:
        only = f"; there are: {listed(ending for _, ending in left_out)}" if left_out else ""
        raise UserError(f"{folder}: the folder holds no {', '.join(_KINDS)} file{only}")
    return CorpusFiles(found=found, left_out=left_out)


def _walk(folder: Path) -> Iterator[Path]:
    """Yields everything in a folder but folders and hidden files; links to folders are not
    followed."""

    def refuse(error: OSError) -> None:  # os.walk passes over what it can't read
        raise error

    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = (name for name in folders if os.path.islink(os.path.join(root, name)))
        yield from (Path(root, name) for name in [*files, *links] if not name.startswith("."))


def ending_of(path: Path) -> str:
    """Returns a name's ending in lower case, with the one before it where it names a compression;
    "" for none.

    >>> ending_of(Path("data/Part.1.JSONL.gz")), ending_of(Path("Makefile"))
    ('.jsonl.gz', '')
    """
    ending = path.suffix.lower()
    return Path(path.stem).suffix.lower() + ending if ending in _COMPRESSIONS else ending


def listed(endings: Iterable[str]) -> str:
    """Returns a few of the names, each once, as a list for a message.

    >>> listed([".md", ".csv", ".md"])
    '.csv, .md'
    """
    different = sorted(set(endings))
    return ", ".join(different[:5]) + (", …" if len(different) > 5 else "")


def _what(path: Path) -> str:
    if path.is_dir():
        return "linked folder"
    if not path.exists():
        return "broken link"
    if not path.is_file():
        return "pipe or device"
    return ending_of(path) or "no ending"


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Opens a file of a corpus, unpacked.

    What can't be read or unpacked raises OSError, EOFError or zlib.error.
    """
    if path.suffix.lower() == ".gz":
        with gzip.open(path, "rb") as unpacked:
            yield cast(BinaryIO, unpacked)
    else:
        with path.open("rb") as file:
            yield file


def unreadable(path: Path, error: Exception) -> UserError:
    """Returns the error for a file that can't be read or unpacked, with the reason."""
    reason = error.strerror if isinstance(error, OSError) else None
    return UserError(f"{path}: cannot be read: {reason or one_line(error)}")


def one_line(error: Exception) -> str:
    """Returns an exception's text on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
