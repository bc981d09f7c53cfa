r"""Spans: how far what begins at a position goes, as a reader sees it, in bytes.

A span is the white space at the position and then a whole number (with its sign, currency,
separators and point), a word, a LaTeX command, or one other character. So a prediction of one
token can be compared with one of a whole number: both are cut where the span ends.
"""

import re

from openrpt.data.calculator.lexer import CURRENCY
from openrpt.data.calculator.numbers import NUMBER

_SPAN = re.compile(
    rf"""
    \s*
    (?: (?: [-−–]?{CURRENCY}[-−–]? | [-−–] )? {NUMBER}
      | [^\W\d_] (?: [^\W\d_] | ['’](?=[^\W\d_]) )*
      | \\[A-Za-z]+
      | .
    )
    """,
    re.VERBOSE | re.DOTALL,
)
_MAY_GROW = re.compile(r"\s* [-−–]? (?: \\?\$? | [£€¥₹] ) [-−–]? \.? \Z", re.VERBOSE)
"""Text that may begin a number or a command, and is none yet."""
_MAY_JOIN_DIGITS = re.compile(
    r"(?: [.,{\\] | \{,\}? | ,\\!? | (?:,|\{,\}|,\\!)[0-9]{1,2} )? \Z", re.VERBOSE
)
"""Between digits and more of them: a point, a separator, or a part of one."""
_MAY_JOIN_LETTERS = re.compile(r"['’]?\Z")


def span_length(text: bytes) -> int:
    """Returns the bytes of the span that the text begins with; all of them where it has white
    space alone.

    >>> [text[: span_length(text)] for text in (b" 1,200.50, so", b" 12.", b"don't go", b"-$5 x")]
    [b' 1,200.50', b' 12', b"don't", b'-$5']
    >>> [text[: span_length(text)] for text in (rb"\\frac{1}{2}", b" = 4", b"3,4", b"\\n", b"")]
    [b'\\\\frac', b' =', b'3', b'\\n', b'']
    """
    return len(_span(text).encode(errors="surrogateescape"))


def _span(text: bytes) -> str:
    decoded = text.decode(errors="surrogateescape")  # half a character is one for itself
    match = _SPAN.match(decoded)
    return match[0] if match else decoded


def is_whole(text: bytes) -> bool:
    """Returns whether the text's first span has ended, so that decoding can stop: what comes next,
    be it what it may, is no part of it.

    >>> [is_whole(text) for text in (b" 12", b" 12.", b" 12. T", b"word", b"word.", b"= ", b"")]
    [False, False, True, False, True, True, False]
    """
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":  # half a letter may become one
            text = text[: error.start]
        decoded = text.decode(errors="surrogateescape")
    span = _span(text)
    if not span.strip():
        return False
    if span[-1].isalnum():
        joins = _MAY_JOIN_DIGITS if span[-1].isdecimal() else _MAY_JOIN_LETTERS
        return not joins.match(decoded[len(span) :])
    return not _MAY_GROW.match(decoded)


def may_be_span(text: bytes, span: bytes) -> bool:
    """Returns whether a text that goes on has not ended its first span, and may yet say this one.

    >>> [may_be_span(text, b" 24") for text in (b" ", b" 2", b" 24", b" 24.", b" 24 ", b" 3")]
    [True, True, True, True, False, False]
    """
    agrees = text.startswith(span) or span.startswith(text)
    return agrees and not is_whole(text)


def same_span(prediction: bytes, continuation: bytes) -> bool:
    """Returns whether a prediction, cut where its span ends, is the continuation's whole first
    span.

    >>> same_span(b" 24 clips", b" 24."), same_span(b" 2", b" 24."), same_span(b"24", b" 24.")
    (True, False, False)
    """
    said = prediction[: span_length(prediction)]
    return bool(said.strip()) and said == continuation[: span_length(continuation)]
