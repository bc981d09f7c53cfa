"""The one way to the terminal: what is printed moves no cursor, and fits any encoding.

Names and texts come from corpora, run folders, models and foreign libraries. An escape sequence
in one could set the terminal's title or clear its screen, and a mark of writing direction could
make a line read as another.
"""

import io
import os
import sys
import unicodedata
from collections.abc import Mapping

_SYMBOLS = {"\n": "⏎", "\t": "⇥", "\r": "␍"}
"""What stands for these characters in a text on one line."""
KEPT = {"\n": "\n", "\t": "\t"}
"""What stands for them in a text of several lines: they are kept."""
LONGEST_ERROR = 2000
"""Characters of an error; of a longer one the middle is left out, so that its advice stays."""
_ERROR_END = 500
"""Characters of a longer error's end that are kept."""


def printable(text: str, shown: Mapping[str, str] = _SYMBOLS) -> str:
    r"""Returns the text with characters that print nothing named: controls, formats, marks of
    direction, lone surrogates, and bytes that are not UTF-8 (as Python keeps them in a path).

    `shown`: what stands for some of them. By default the text becomes one line.

    >>> printable("a\x1b[31m\u202eb\udcff\n")
    'a⟨U+001B⟩[31m⟨U+202E⟩b⟨FF⟩⏎'
    """
    if text.isprintable():
        return text
    return "".join(shown.get(character) or _named(character) for character in text)


def _named(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that is not UTF-8
        return f"⟨{code - 0xDC00:02X}⟩"
    return f"⟨U+{code:04X}⟩" if is_hidden(character) else character


def is_hidden(character: str) -> bool:
    """Returns whether a character prints nothing, or moves what is printed."""
    return unicodedata.category(character)[0] == "C" or character in "\u2028\u2029"


def say(line: object, *, err: bool = False) -> None:
    """Prints one line; `err`: on stderr."""
    # Not click.echo: to a stream that says it is ASCII, that writes UTF-8.
    print(printable(str(line)), file=sys.stderr if err else sys.stdout, flush=True)


def say_lines(text: str) -> None:
    """Prints a text of several lines."""
    print(printable(text, KEPT), flush=True)


def say_error(message: str) -> None:
    """Prints an error as one line on stderr."""
    line = " ".join(message.split())
    if len(line) > LONGEST_ERROR:
        line = f"{line[: LONGEST_ERROR - _ERROR_END]} … {line[-_ERROR_END:]}"
    say(f"openrpt: {line}", err=True)


def open_streams() -> None:
    """Makes stdin, stdout and stderr usable, whatever the shell has given.

    A closed one (`>&-`) becomes the null device: left closed, the next file that is opened would
    get its number, and hold what is meant for the terminal. What the encoding of stdout or stderr
    lacks is printed as a backslash escape.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(null, mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
