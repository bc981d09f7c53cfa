"""Reading and writing TOML: what a file holds is a table, or one line says what is wrong."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from openrpt.errors import UserError
from openrpt.terminal import is_hidden

_LARGEST = 1 << 20
"""Largest file in bytes: a configuration with every key has a hundredth."""
_MOST_DOTS = 100
"""Most dots in a line, texts and comments aside: the time that tomllib takes for a key grows with
the square of its dots."""
_TEXTS = re.compile(
    r"""
      \#[^\n]*+
    | \"{3} (?: [^"\\]++ | \\. | "(?!"") )*+ (?: "{3,5} )?
    | '{3} (?: [^']++ | '(?!'') )*+ (?: '{3,5} )?
    | " (?: [^"\\\n]++ | \\. )*+ "?
    | ' [^'\n]*+ '?
    """,
    re.VERBOSE | re.DOTALL,
)
"""Comments, and texts in each kind of quotes. One that has no end reaches as far as it can, so that
no character is looked at twice."""


def read_toml(path: Path) -> dict[str, Any]:
    """Returns the table that a file holds. Raises UserError for a file that is missing, not
    readable, too large or no TOML."""
    try:
        if not path.is_file():
            raise UserError(f"{path}: no such configuration file")
        size = path.stat().st_size
        if size > _LARGEST:
            raise UserError(
                f"{path}: too large for a configuration, {size:,} of {_LARGEST:,} bytes"
            )
        text = path.read_text(encoding="utf-8-sig")  # Windows' Notepad marks UTF-8 so
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid TOML: not UTF-8 at byte {error.start}") from None
    return parse_toml(text, source=str(path))


def parse_toml(text: str, *, source: str) -> dict[str, Any]:
    """Returns the table that a text holds. Raises UserError, which begins with the source, for what
    is no TOML."""
    bare = _TEXTS.sub(lambda found: "\n" * found[0].count("\n"), text)
    for number, line in enumerate(bare.split("\n"), 1):
        if line.count(".") > _MOST_DOTS:
            raise UserError(f"{source}:{number}: more than {_MOST_DOTS} dots in a line")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{source}: not valid TOML: brackets are nested too deep") from None
    except ValueError as error:  # tomllib's own, and Python's of an integer that is too long
        raise UserError(f"{source}: not valid TOML: {error}") from None


def toml_text(values: Mapping[str, Any]) -> str:
    r"""Returns the values as TOML, hidden characters in their texts escaped: U+202E as
    `\U0000202E`."""
    text = tomli_w.dumps(values)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(f"\\U{ord(c):08X}" if c != "\n" and is_hidden(c) else c for c in text)
