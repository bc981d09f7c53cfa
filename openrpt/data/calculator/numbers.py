"""Numbers as texts write them, read exactly: `1,250.50`, `.5`, `1{,}000`; rational, never a
float."""

import re
from fractions import Fraction

_SEPARATORS = r"(?:,\\!|\{,\}|,)"
_GROUPED = rf"[0-9]{{1,3}}(?:{_SEPARATORS}[0-9]{{3}})+"
NUMBER_RUN = r"(?:[0-9](?:(?:[.,]|\{,\}|,\\!)?[0-9])*|\.[0-9]+)"
"""Digits with all the points and commas among them: a number, or something else (1.2.3, 12,5)."""
NUMBER = rf"(?:(?:{_GROUPED}(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
"""Digits, in groups of three or not, and their decimals."""
_NUMBER = re.compile(NUMBER)
_SEPARATOR = re.compile(_SEPARATORS)
_LONGEST = 30
"""The most characters of a number."""
_MOST_DECIMALS = 6
"""Decimals of an intermediate result at most; one that needs more is not written as a number."""


def number_value(text: str) -> Fraction | None:
    r"""Returns the value of a number without sign; None for what is none, or is longer than
    _LONGEST.

    >>> number_value("1,250.50"), number_value("1{,}000"), number_value(".5")
    (Fraction(2501, 2), Fraction(1000, 1), Fraction(1, 2))
    >>> number_value("1.2.3"), number_value("12,5"), number_value("1,2,3")
    (None, None, None)
    """
    if text.isdecimal() and text.isascii() and len(text) <= _LONGEST:
        return Fraction(int(text))
    if len(text) > _LONGEST or not _NUMBER.fullmatch(text):
        return None
    return Fraction(_SEPARATOR.sub("", text))


def decimals_of(text: str) -> int:
    """Returns the number of digits behind the point of a number in a text."""
    return len(text.partition(".")[2])


def decimal_text(value: Fraction, *, grouped: bool = False) -> str | None:
    """Returns a value in plain digits, with a comma before each third where `grouped`; None where
    more than _MOST_DECIMALS digits would stand behind the point.

    >>> decimal_text(Fraction(-1, 8)), decimal_text(Fraction(12500), grouped=True)
    ('-0.125', '12,500')
    >>> decimal_text(Fraction(1, 3)) is None
    True
    """
    for digits in range(_MOST_DECIMALS + 1):
        scaled = abs(value) * 10**digits
        if scaled.denominator == 1:
            whole, behind = divmod(scaled.numerator, 10**digits)
            point = f".{behind:0{digits}}" if digits else ""
            sign = "-" if value < 0 else ""
            return f"{sign}{whole:,}{point}" if grouped else f"{sign}{whole}{point}"
    return None


def is_grouped(text: str) -> bool:
    """Returns whether numbers of this text separate thousands."""
    return _SEPARATOR.search(text) is not None


def agrees_to_digits(
    value: Fraction, said: Fraction, decimals: int, *, approximately: bool
) -> bool | None:
    """Returns how a text that says `said`, with so many digits behind its point, agrees with
    `value`.

    True: exactly. False: rounded, that is, no further off than half of the last digit, which must
    stand behind the point, or the text says "about" (`approximately`). A value other than 0 is
    never rounded to 0. None: it says something else.
    """
    if value == said:
        return True
    if not (decimals or approximately) or said == 0:
        return None
    return False if 2 * abs(value - said) * 10**decimals <= 1 else None
