"""Is a file text in UTF-8? UTF-16, UTF-32 and binary files are refused by name."""

import codecs
import shlex
import unicodedata
from collections import Counter
from pathlib import Path

from openrpt.data.corpus_files import ending_of, open_bytes
from openrpt.errors import UserError

_SAMPLE_BYTES = 1 << 16
_MIN_CHARACTERS = 16
"""Least characters to tell an encoding by: fewer, without a NUL or a control, can be anything."""
_MAX_CONTROLS = 0.05
"""Share of control bytes that text in UTF-8 does not reach."""

# UTF-32's mark begins with UTF-16's.
_MARKS = {
    "UTF-32LE": codecs.BOM_UTF32_LE,
    "UTF-32BE": codecs.BOM_UTF32_BE,
    "UTF-16LE": codecs.BOM_UTF16_LE,
    "UTF-16BE": codecs.BOM_UTF16_BE,
}
_NO_TEXT = ("Cc", "Cn", "Co", "Cs")
# Those that terminals and printers are sent stand in text, too.
_CONTROLS = bytes(sorted({*range(1, 32), 127} - set(b"\t\n\v\f\r\b\x1b")))
_ALPHANUMERIC = bytes(byte for byte in range(128) if chr(byte).isalnum())
_EAST_ASIAN = ("gb2312", "big5", "shift_jis")
"""Each has the characters that are frequent in one language; Unicode has ten times as many."""


def check_encoding(path: Path) -> None:
    """Checks that a file's beginning is text in UTF-8 (with or without a mark). Another encoding of
    bytes, such as Latin-1, is invalid UTF-8 and passes here. Raises UserError."""
    with open_bytes(path) as file:
        sample = file.read(_SAMPLE_BYTES)
    encoding = foreign_encoding(sample)
    if encoding:
        file_name = shlex.quote(str(path))
        is_packed = path.suffix.lower() == ".gz"
        text, new = (f"zcat {file_name} | ", "") if is_packed else ("", f" {file_name}")
        new += f" > NEW{ending_of(path).removesuffix('.gz')}"
        raise UserError(
            f"{path}: a binary file, or not in UTF-8: it looks like {encoding}; convert it:"
            f" {text}iconv -f {encoding} -t UTF-8{new}"
        )
    if b"\0" in sample or _controls(sample) > _MAX_CONTROLS * len(sample):
        raise _binary(path)


def is_utf8(path: Path) -> bool:
    """Reads the whole file. Raises UserError where it has bytes that no text has."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    size = controls = 0
    with open_bytes(path) as file:
        try:
            while chunk := file.read(1 << 20):
                decoder.decode(chunk)
                if b"\0" in chunk:
                    raise _binary(path, f" (byte {size + chunk.index(0):,} is NUL)")
                size += len(chunk)
                controls += _controls(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    if controls > _MAX_CONTROLS * size:
        raise _binary(path, f" ({controls:,} of {size:,} bytes are control characters)")
    return True


def foreign_encoding(sample: bytes) -> str | None:
    """Returns "UTF-16…" or "UTF-32…" for text in it, by its mark or by its bytes; None for all
    else.

    >>> foreign_encoding("naïve".encode("utf-16-be")), foreign_encoding("naïve".encode())
    ('UTF-16BE', None)
    """
    for encoding, mark in _MARKS.items():
        if sample.startswith(mark):
            return encoding
    encodings = tuple(_MARKS)
    if b"\0" not in sample and _controls(sample) <= _MAX_CONTROLS * len(sample):
        # Han and kana without a space or line break have neither: then each byte may be a letter.
        if len(sample) < 2 * _MIN_CHARACTERS or not _is_strange(sample):
            return None
        encodings = ("UTF-16LE", "UTF-16BE")
    # The wrong byte order scatters an alphabet over many blocks and makes Han of rare ones.
    read = {one: _decoded(sample, one) for one in encodings}
    plausible = [one for one in encodings if _is_text(read[one], is_alphabet=len(encodings) > 2)]
    order = {one: (_blocks(read[one]), -sum(_known(read[one]))) for one in plausible}
    return min(plausible, key=lambda one: order[one], default=None)


def _is_strange(sample: bytes) -> bool:
    """Returns whether a text is unlike words in ASCII: by many signs, or kana's `0` in every other
    place. A few signs over and over, such as a line or brackets, are nothing strange."""
    signs = len(sample.translate(None, _ALPHANUMERIC))
    is_strange = signs * 16 >= len(sample) or {ord("0")} in (set(sample[::2]), set(sample[1::2]))
    frequent = Counter(sample).most_common(1)[0][1]
    return is_strange and len(set(sample)) > 2 and 2 * frequent <= len(sample)


def _decoded(sample: bytes, encoding: str) -> str:
    """Returns the text without a character that was cut off at the end; "" where it is not in this
    encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        return decoder.decode(sample)
    except UnicodeDecodeError:
        return ""


def _is_text(text: str, *, is_alphabet: bool) -> bool:
    """Returns whether 19 in 20 characters are frequent in Chinese or in Japanese. Where
    `is_alphabet`, letters of few blocks are text, too, and so is Hangul."""
    if not text:
        return False
    bad = sum(unicodedata.category(one) in _NO_TEXT and not one.isspace() for one in text)
    known = _known(text)
    if is_alphabet:
        known.append(sum("\uac00" <= one <= "\ud7a3" or one.isascii() for one in text))  # Korean
        if _blocks(text) <= min(8, len(text) / 4):
            known.append(len(text))
    return bad * 50 <= len(text) and max(known) * 20 >= len(text) * 19


def _blocks(text: str) -> int:
    """Returns how many blocks of 256 characters it is from."""
    return len({ord(one) >> 8 for one in text})


def _known(text: str) -> list[int]:
    """Returns how many of its characters each East Asian charset has."""
    unknown = (text.encode(one, "replace").count(b"?") - text.count("?") for one in _EAST_ASIAN)
    return [len(text) - number for number in unknown]


def _controls(piece: bytes) -> int:
    return len(piece) - len(piece.translate(None, _CONTROLS))


def _binary(path: Path, why: str = "") -> UserError:
    return UserError(f"{path}: a binary file, or not in UTF-8{why}; a corpus is plain text")
