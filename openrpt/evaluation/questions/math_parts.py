r"""Parts of an answer as `math_spelling.py` spells it: a value and its unit; the members of a
list, set, tuple or interval; unions.
"""

import re
from collections import Counter

from openrpt.evaluation.questions.math_numbers import THOUSANDS
from openrpt.evaluation.questions.math_spelling import DRESSING
from openrpt.evaluation.questions.math_words import is_word

# ---- units --------------------------------------------------------------------------------------
_SHORT_UNITS = (
    "sq|cu|cm|mm|km|nm|kg|mg|ml|mL|ft|lb|lbs|oz|mi|hr|hrs|mph|kph|kmh|Hz|kHz|kJ|kW|Pa|kPa|rad"
)
_SAID = rf"(?:‹[^‹›]*›|(?:(?<=\d)|\s)(?:{_SHORT_UNITS})(?![A-Za-z])|\s[A-Za-z]{{3,}}\.?)"
_MORE = (
    r"(?:\s*(?:/|\\cdot)\s*(?:[A-Za-z]+|‹[^›]*›)|\s?\^\s*\{?-?\d\}?"
    r"|\s+[A-Za-z]+(?=\s|$|\^|/)|(?<=›)\s*[CF]$)"
)
_BARE_UNIT = re.compile(r"(?<=[\d}])\s+((?:\\cdot|[A-Za-z\s/^{}\d-])+)$")
_FACTOR = re.compile(r"(/)?\s*(?:(sq|cu)\s+)?([^\s^/]+)(?:\s*\^\s*(-?\d+))?")
_DIMENSIONS = {"": 1, "sq": 2, "cu": 3}
_UNIT = re.compile(rf"(?<=[\d}})\]A-Za-z])\s*({_SAID}(?:{_MORE}|{_SAID})*)$")
_NAMES = {
    "square": "sq",
    "cubic": "cu",
    "per": "/",
    "squared": "^2",
    "cubed": "^3",
    "usd": "dollar",
    "deg": "degree",
    **dict.fromkeys(("centimeter", "centimetre"), "cm"),
    **dict.fromkeys(("millimeter", "millimetre"), "mm"),
    **dict.fromkeys(("kilometer", "kilometre"), "km"),
    **dict.fromkeys(("meter", "metre"), "m"),
    **dict.fromkeys(("feet", "foot"), "ft"),
    **dict.fromkeys(("inches", "inch"), "in"),
    **dict.fromkeys(("second", "sec"), "s"),
    **dict.fromkeys(("minute", "minutes"), "min"),
    **dict.fromkeys(("hour", "hr"), "h"),
    **dict.fromkeys(("liter", "litre"), "l"),
    **dict.fromkeys(("pound", "lbs"), "lb"),
    "kilogram": "kg",
    "gram": "g",
    "mile": "mi",
    "yard": "yd",
    "ounce": "oz",
    "mph": "mi / h",
    "kmh": "km / h",
    "kph": "km / h",
}


def split_unit(text: str) -> tuple[str, str]:
    r"""Splits an answer into (the value, its unit): `("5", "cm^2")` of `5\text{ square cm}`; no
    unit is "".

    A unit is what stands in `\text{}`, or a word, behind a value; `\%`, degrees and currencies
    are units as well.

    >>> split_unit("5‹ square centimeters›"), split_unit("‹dollar›12.50"), split_unit("2x+1")
    (('5', 'cm^2'), ('12.50', 'dollar'), ('2x+1', ''))
    """
    if money := re.match(r"(-?)\s*‹(dollar|euro|pound)›\s*(?=[\d.])", text):
        return money[1] + text[money.end() :], money[2]
    if text.endswith(r"\%"):
        return text[:-2].strip(), "%"
    match = _UNIT.search(text)
    if not match or not re.search(r"\d|\\pi", text[: match.start()]):
        return text, ""
    bare = re.findall(r"[A-Za-z]+", re.sub(r"‹[^›]*›", "", match[1]))
    if "‹" not in match[1] and not (is_word(bare[0]) or bare[0] in _SHORT_UNITS.split("|")):
        return text, ""
    return text[: match.start()].strip(), _unit_name(match[1])


_SYMBOLS = frozenset(
    [
        "m",
        "km",
        "cm",
        "mm",
        "nm",
        "s",
        "ms",
        "min",
        "h",
        "hr",
        "g",
        "kg",
        "mg",
        "l",
        "L",
        "ml",
        "mL",
        "N",
        "kN",
        "J",
        "kJ",
        "W",
        "kW",
        "V",
        "A",
        "K",
        "C",
        "Pa",
        "kPa",
        "Hz",
        "mol",
        "rad",
    ]
)
_QUOTIENT = re.compile(
    r"(?<=[\d})])\s*((?:[A-Za-z]+(?:\s*\^\s*\{?\d\}?)?(?:\s*\\cdot\s*)?)+/[A-Za-z/^{}\d\s]+)$"
)


def without_quotient_unit(text: str) -> str:
    r"""Returns the value of `12 m/s`, where the other answer has no letters: units one over
    another are no variables; a letter alone may be one.

    >>> without_quotient_unit("12 m/s^2"), without_quotient_unit("12 x/s")
    ('12', '12 x/s')
    """
    match = _QUOTIENT.search(text)
    if not match or not set(re.findall(r"[A-Za-z]+", match[1].replace("\\cdot", " "))) <= _SYMBOLS:
        return text
    return text[: match.start()].strip()


def without_unit(text: str, unit: str) -> str:
    """Returns the value of `5 m/s`, where the other answer says that these letters are a unit."""
    match = _BARE_UNIT.search(text)
    return text[: match.start()] if match and _unit_name(match[1]) == unit else text


def _unit_name(said: str) -> str:
    """Returns a unit's name: its factors, sorted, each with its power: `m s^-2` for metres per
    second squared."""
    words = re.findall(r"[^\s^/]+|/|\^\s*-?\d+", re.sub(r"[‹›{}.]|\\cdot", " ", said))
    powers: Counter[str] = Counter()
    for over, dimension, name, power in _FACTOR.findall(" ".join(map(_plain_name, words))):
        powers[name] += int(power or _DIMENSIONS[dimension]) * (-1 if over else 1)
    return " ".join(name if n == 1 else f"{name}^{n}" for name, n in sorted(powers.items()))


def _plain_name(word: str) -> str:
    name = word.casefold() if len(word) > 2 else word
    name = _NAMES.get(name) or name
    if len(name) > 3 and name.endswith("s"):
        name = name[:-1]
    return _NAMES.get(name, name).replace("^ ", "^")


# ---- lists --------------------------------------------------------------------------------------

_OPEN = {"(": "(", "[": "[", r"\{": "{", "{": "{", r"\langle": "("}
_CLOSE = {")": ")", "]": "]", r"\}": "}", "}": "}", r"\rangle": ")"}
_BRACKET = re.compile(r"\\[{}]|\\[lr]angle|[()\[\]{}]|[,;]")


def split_list(text: str) -> tuple[str, list[str]] | None:
    r"""Splits a list into (its brackets, its members): `("()", ["1", "2"])`; without brackets
    `("", ["1", "2"])`.

    None where no comma stands outside of inner brackets. `\pm` makes two members.

    >>> split_list(r"\{1,(2,3)\}"), split_list("1,-1"), split_list(r"\pm 3"), split_list("f(1,2)")
    (('{}', ['1', '(2,3)']), ('', ['1', '-1']), ('', ['+ 3', '- 3']), None)
    """
    text = text.strip()
    if THOUSANDS.fullmatch(text):
        return None  # 1,234
    marks = list(_BRACKET.finditer(text))
    depth, commas, around = 0, [], True
    for mark in marks:
        depth += (mark[0] in _OPEN) - (mark[0] in _CLOSE)
        around = around and (depth > 0 or mark is marks[-1])
        if mark[0] in ",;":
            commas.append((depth, mark.start()))
    outside = [place for level, place in commas if level == 0]
    inside = [place for level, place in commas if level == 1]
    if outside:
        found = _cut(text, outside, 0, len(text))
        return "", [one for member in found for one in _both_signs(member)]
    if inside and around and marks[0].start() == 0 and marks[-1].end() == len(text):
        brackets = _OPEN[marks[0][0]] + _CLOSE[marks[-1][0]]
        found = _cut(text, inside, marks[0].end(), marks[-1].start())
        return brackets, [one for member in found for one in _both_signs(member)]
    signs = _both_signs(text)
    return ("", signs) if len(signs) == 2 else None


def _cut(text: str, places: list[int], start: int, end: int) -> list[str]:
    edges = [start, *(edge for place in places for edge in (place, place + 1)), end]
    return [text[a:b].strip() for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _both_signs(member: str) -> list[str]:
    if member.count(r"\pm") != 1:
        return [member]
    return [member.replace(r"\pm", "+"), member.replace(r"\pm", "-")]


# ---- unions -------------------------------------------------------------------------------------

_OR = re.compile(r"[\s$]*(?:\\(?:text|mbox)\{\s*or\s*\}|\bor\b|\\(?:lor|vee)(?![A-Za-z]))[\s$]*")
_LESS, _GREATER = r"(<|≤|<=|\\leq?(?:slant)?(?![A-Za-z]))", r"(>|≥|>=|\\geq?(?:slant)?(?![A-Za-z]))"
_ONE_SIDED = re.compile(rf"([A-Za-z])\s*(?:{_LESS}|{_GREATER})\s*([^<>≤≥=,]+)")
_INTERVAL = re.compile(r"[(\[][^()\[\],]+,[^()\[\],]+[)\]]")
_TWO_SIDED = re.compile(rf"([^<>≤≥=,]+?)\s*{_LESS}\s*([A-Za-z])\s*{_LESS}\s*([^<>≤≥=,]+)")


def as_union(text: str) -> str:
    r"""Returns intervals, and relations of one letter, that `or` joins, as a union; all else as it
    is.

    >>> as_union("x<-1 or 1<x<=2"), as_union("x<1 or y>2")
    ('(-\\infty,-1)\\cup (1,2]', 'x<1 or y>2')
    """
    letters, intervals = set(), []
    for relation in _OR.split(DRESSING.sub("", text).strip()):
        if match := _ONE_SIDED.fullmatch(relation):
            letter, less, more, edge = match.groups()
            closed = (less or more) not in ("<", ">")
            up_to = rf"(-\infty,{edge}{'])'[not closed]}"
            intervals.append(up_to if less else rf"{'[('[not closed]}{edge},\infty)")
        elif match := _TWO_SIDED.fullmatch(relation):
            low, above, letter, below, high = match.groups()
            intervals.append(f"{'[('[above == '<']}{low},{high}{'])'[below == '<']}")
        elif _INTERVAL.fullmatch(relation):
            intervals.append(relation)
            continue
        else:
            return text
        letters.add(letter)
    return r"\cup ".join(intervals) if len(intervals) > 1 and len(letters) < 2 else text
