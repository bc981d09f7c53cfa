"""What kind of token stands at a position: a pure function of bytes."""

import re
import unicodedata

TOKEN_CLASSES = (
    "word start",
    "inside a word",
    "number",
    "operator",
    "LaTeX command",
    "punctuation",
    "whitespace",
    "other",
)
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
