"""What kind of token stands at a position: a pure function of bytes."""

import re
import unicodedata
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from openrpt.config.prompt import COMPUTED as COMPUTED
from openrpt.config.prompt import TOKEN_CLASSES as TOKEN_CLASSES
from openrpt.data.calculator.find import find_computed
from openrpt.data.places import token_at

CLASS_NAMES: Mapping[str, str] = {name: name.lower().replace(" ", "_") for name in TOKEN_CLASSES}
"""Token class → how a metric's key has it."""

CONTEXT = 32
"""Bytes before a token that are enough to tell: a LaTeX command is not longer."""

_COMMAND_BEFORE = re.compile(r"\\[A-Za-z]*$")
_OPERATORS = set("+-*/=<>^_&|~%")
_APOSTROPHES = set("'’")


def token_class(token: bytes, before: bytes) -> str:
    r"""Returns the class of a token by its first character that is not a space; one of
    TOKEN_CLASSES.

    `before`: the text before it, at least its last CONTEXT bytes. Letters behind a letter are
    inside a word (`don` + `'t` too), letters behind a backslash part of a LaTeX command. A token
    that begins in the middle of a UTF-8 character is "other".

    >>> [token_class(token, b"we fin") for token in (b"d", b" the", b" 12", b" \\frac", b" =")]
    ['inside a word', 'word start', 'number', 'LaTeX command', 'operator']
    """
    text = token.decode("utf-8", errors="surrogateescape")
    content = text.lstrip()
    if not content:
        return "whitespace" if text else "other"
    left = before[-CONTEXT:].decode("utf-8", errors="ignore") if content == text else " "
    first, in_word = content[0], left[-1:].isalpha()
    category = unicodedata.category(first)
    if first == "\\" or (first.isalpha() and first.isascii() and _COMMAND_BEFORE.search(left)):
        return "LaTeX command"
    if first.isalpha() or (in_word and category[0] == "M"):
        return "inside a word" if in_word else "word start"
    if first in _APOSTROPHES and in_word and content[1:2].isalpha():
        return "inside a word"
    if category[0] == "N":
        return "number"
    if first in _OPERATORS or category == "Sm":
        return "operator"
    # Sc: the dollar that opens a formula; Sk: the backquote.
    return "punctuation" if category[0] == "P" or category in ("Sc", "Sk") else "other"


def computed_tokens(text: str, starts: NDArray[np.int64]) -> list[int]:
    """The tokens in which the computed numbers of a document begin, in order; `starts` [T]: where
    its tokens begin, in bytes. A number that begins within a token, behind more than white space
    and currency, has none.

    >>> computed_tokens("2 + 3 = 5.", np.array([0, 1, 3, 5, 7, 9]))
    [4]
    """
    data = text.encode()
    places = (token_at(found.start, starts, data) for found in find_computed(text))
    return sorted({place for place in places if place is not None})
