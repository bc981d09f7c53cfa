"""The kinds of documents (`corpus.kind`) in order: numbers ascending, else the commonest first."""

from collections import Counter
from collections.abc import Iterable


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
