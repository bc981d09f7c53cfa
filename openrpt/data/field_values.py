"""What a field of a record holds: which values are text, and how numbers are written."""

import math
from decimal import Decimal
from typing import Any

_NARROW = {"halffloat": "f2", "float": "f4"}
"""Arrow's floats of fewer than 64 bits, and NumPy's names for them."""


class WrittenFloat(float):
    """A JSON number with a point or an exponent, whose text is the one that stood in the file.

    >>> str(WrittenFloat("1e22")), float(WrittenFloat("1e22")) == 1e22
    ('1e22', True)
    """

    text: str

    def __new__(cls, text: str) -> "WrittenFloat":
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text


def text_of(value: Any) -> str | None:
    """Returns a field's value as text: a string as it is, a number in plain digits; None for all
    else.

    A JSON number is the text that stood in its file. NaN and infinity are no numbers, and true and
    false are none either.

    >>> text_of("a"), text_of(2.5), text_of(1e-7), text_of(True), text_of(float("nan"))
    ('a', '2.5', '0.0000001', None, None)
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    if isinstance(value, float) and not isinstance(value, WrittenFloat):
        value = Decimal(repr(value))
    if isinstance(value, Decimal):
        return f"{value:f}" if value.is_finite() else None
    return str(value)


def type_of(value: Any) -> str:
    """Returns a value's type for a message: null, NaN and infinity by name, all others by their
    type."""
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity"
    return "null" if value is None else type(value).__name__


def arrow_value(scalar: Any) -> Any:
    """Returns Arrow's value as Python's: a float of fewer than 64 bits has its own few digits
    (0.1), and bytes in UTF-8 are text, which some writers do not mark as such."""
    value = scalar.as_py()
    if isinstance(value, float) and str(scalar.type) in _NARROW:
        import numpy as np

        return float(str(np.dtype(_NARROW[str(scalar.type)]).type(value)))
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value
