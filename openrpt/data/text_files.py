"""How a .txt file is cut into documents: at a separator, or into blocks."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from openrpt.data.corpus_files import open_bytes

BOM = "\ufeff"

_READ_CHARACTERS = 1 << 16
_BOUNDARIES = (
    re.compile(r"\r?\n(?:[ \t]*\r?\n)+"),  # a paragraph's end
    re.compile(r"\n"),
    re.compile(r"[^\S\r\n]"),  # never between \r and \n
)


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Opens a file in UTF-8 with its own line breaks."""
    with open_bytes(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
        yield text


def cut_at_separator(file: TextIO, separator: str) -> Iterator[str]:
    r"""Yields what `file.read().split(separator)` gives, holding one piece at a time.

    A line break in the separator, `\n` or `\r\n`, stands for both; all else of the file, its line
    breaks included, stays as it is. Byte order marks are left out.
    """
    breaks = re.split("\r?\n", separator)
    pattern = re.compile("\r?\n".join(re.escape(literal) for literal in breaks))
    longest = len("\r\n".join(breaks))
    buffer = ""
    for chunk in _chunks(file):
        searched = max(0, len(buffer) - longest + 1)  # before it, there is none
        buffer += chunk
        if pattern.search(buffer, searched):
            *pieces, buffer = pattern.split(buffer)
            yield from pieces
    yield buffer


def cut_blocks(file: TextIO, block_characters: int) -> Iterator[str]:
    """Yields contiguous blocks of `block_characters` ± a quarter (the last may be shorter).

    They end at a paragraph's end, else a line's, else a space, whichever is nearest to
    `block_characters`, else exactly there. Joined they are the file, but for byte order marks.
    """
    low, high = block_characters - block_characters // 4, block_characters + block_characters // 4
    buffer = ""
    for chunk in _chunks(file):
        buffer += chunk
        start = 0
        while len(buffer) - start > high:
            end = start + _block_end(buffer[start : start + high], low, block_characters)
            yield buffer[start:end]
            start = end
        buffer = buffer[start:]
    if buffer:
        yield buffer


def _chunks(file: TextIO) -> Iterator[str]:
    """Yields the file's text, in which files that were joined may have left byte order marks."""
    while chunk := file.read(_READ_CHARACTERS):
        yield chunk.replace(BOM, "")


def _block_end(window: str, low: int, target: int) -> int:
    for boundary in _BOUNDARIES:
        ends = [match.end() for match in boundary.finditer(window, low - 1)]
        if ends:
            return min(ends, key=lambda end: abs(end - target))
    return target
