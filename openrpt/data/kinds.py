"""The kinds of documents (`corpus.kind`): their names, and their order."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from openrpt.data.field_values import text_of

_KIND_CHARACTERS = 80
_LEVEL = re.compile(r" ?(?:->|/|>|::) ?")


def kind_number(kind: str) -> float | None:
    """Reads a kind as a number; None where it is none.

    >>> kind_number("12"), kind_number("algebra"), kind_number("nan")
    (12.0, None, None)
    """
    try:
        value = float(kind)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def ordered_kinds(kinds: Iterable[str]) -> list[str]:
    """Returns the different kinds, without the empty one: by number where all are numbers, else the
    commonest first.

    >>> ordered_kinds(["10", "9", "10"]), ordered_kinds(["b", "10", "b"])
    (['9', '10'], ['b', '10'])
    """
    names = [name for name, _ in Counter(kinds).most_common() if name]
    numbers = {name: kind_number(name) for name in names}
    if any(number is None for number in numbers.values()):
        return names
    return sorted(names, key=lambda name: numbers[name] or 0.0)


def kind_of(value: Any, levels: int) -> str:
    """Returns a field as the name of a kind, at most _KIND_CHARACTERS long; empty for null and NaN.

    >>> kind_of(["Mathematics -> Algebra -> Polynomials", "Mathematics -> Geometry"], levels=2)
    'Mathematics -> Algebra'
    """
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    text = text_of(value) if isinstance(value, float) else value
    kind = "" if text is None else " ".join(str(text).split())
    if levels:
        ends = [match.start() for match in _LEVEL.finditer(kind)]
        kind = kind[: ends[levels - 1]] if len(ends) >= levels else kind
    return kind[:_KIND_CHARACTERS]
