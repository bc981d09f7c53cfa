r"""Parts of an answer as `openrpt.math_spelling` spells it: a value and its unit; the members of a
list, set, tuple or interval.
"""

import re

from openrpt.math_spelling import THOUSANDS, is_word

# ---- units --------------------------------------------------------------------------------------

_SHORT_UNITS = (
    "sq|cu|cm|mm|km|nm|kg|mg|ml|mL|ft|lb|lbs|oz|mi|hr|hrs|mph|kph|kmh|Hz|kHz|kJ|kW|Pa|kPa|rad"
)
_SAID = rf"(?:‹[^‹›]*›|(?:(?<=\d)|\s)(?:{_SHORT_UNITS})(?![A-Za-z])|\s[A-Za-z]{{3,}}\.?)"
_MORE = (
    r"(?:\s*(?:/|\\cdot)\s*[A-Za-z]+|\s?\^\s*\{?-?\d\}?|\s+[A-Za-z]+(?=\s|$|\^|/)|(?<=›)\s*[CF]$)"
)
_UNIT = re.compile(rf"(?<=[\d}})\]A-Za-z])\s*({_SAID}(?:{_MORE}|{_SAID})*)$")
_NAMES = {
    "square": "sq",
    "cubic": "cu",
    "per": "/",
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
    "mph": "mi/h",
    "kmh": "km/h",
    "kph": "km/h",
}


def split_unit(text: str) -> tuple[str, str]:
    r"""(the value, its unit): `("5", "cm^2")` of `5\text{ square cm}`; no unit is "".

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


def _unit_name(said: str) -> str:
    names = []
    plain = re.sub(r"[‹›{}.]|\\cdot", " ", said).replace("/", " / ")
    for word in re.findall(r"[^\s^]+|\^\s*-?\d", plain):
        name = word.casefold() if len(word) > 2 else word
        name = _NAMES.get(name) or name
        if len(name) > 3 and name.endswith("s"):
            name = name[:-1]
        names.append(_NAMES.get(name, name).replace(" ", ""))
    for power, mark in (("sq", "^2"), ("cu", "^3")):
        if names[:1] == [power] and len(names) > 1:
            names = [names[1], mark, *names[2:]]
    return "".join(names)


# ---- lists --------------------------------------------------------------------------------------

_OPEN = {"(": "(", "[": "[", r"\{": "{", "{": "{", r"\langle": "("}
_CLOSE = {")": ")", "]": "]", r"\}": "}", "}": "}", r"\rangle": ")"}
_BRACKET = re.compile(r"\\[{}]|\\[lr]angle|[()\[\]{}]|[,;]")


def split_list(text: str) -> tuple[str, list[str]] | None:
    r"""(its brackets, its members): `("()", ["1", "2"])`; without brackets `("", ["1", "2"])`.

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
