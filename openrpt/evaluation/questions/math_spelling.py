r"""One spelling of answers for what people and models write in many.

Text in, text out: `spelled` gives LaTeX that math-verify reads. Words in `\text{…}` stand between
‹ and › until they are known to be a unit or not (`openrpt.evaluation.questions.math_parts`).
"""

import re
import unicodedata
from functools import lru_cache

_FUNCTIONS = (
    "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|frac|cdot|times|"
    "pi|theta|alpha|beta|gamma|delta|lambda|mu|phi|omega|sigma|infty|binom|leq|geq|neq|pm"
)
_SIGNS = {
    **dict.fromkeys("−–", "-"),
    **dict.fromkeys("·⋅∙", r"\cdot "),
    "×": r"\times ",
    "∗": "*",
    "÷": "/",
    "π": r"\pi ",
    "θ": r"\theta ",
    "√": "sqrt",
    "∞": r"\infty ",
    "≈": r"\approx ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\neq ",
    "±": r"\pm ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∅": r"\emptyset ",
    "∈": r"\in ",
    "°": r"^\circ ",
    "€": "‹euro›",
    "£": "‹pound›",
    "¢": "‹cent›",
    "%": r"\%",
    r"\%": r"\%",
    "<=": r"\le ",
    ">=": r"\ge ",
    "!=": r"\neq ",
    "**": "^",
    "{,}": ",",
    "{:}": ":",
    r"\leqslant": r"\le ",
    r"\geqslant": r"\ge ",
    r"\varnothing": r"\emptyset",
    r"\lbrace": r"\{",
    r"\rbrace": r"\}",
    r"\$": "‹dollar›",
}
_SIGN = re.compile("|".join(re.escape(sign) for sign in sorted(_SIGNS, key=len, reverse=True)))
DRESSING = re.compile(
    r"\$|(?<!\\)\\[()\[\]!]|\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![A-Za-z])"
)
_SPACE = re.compile(r"(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])|\s+")
_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|normal|sf)?|math(?:rm|bf|it|sf)|mbox|operatorname)\s*"
    r"\{((?:[^{}]|\^\s*\{[^{}]*\})*)\}"
)
_RAISED, _LOWERED = re.compile("[²³¹⁰⁴-⁹⁺⁻]+"), re.compile("[₀-₉]+")
_FRACTION = re.compile("[¼-¾⅐-⅞]")
_INTRODUCTION = (
    r"(?:(?:the\s+)?(?:final\s+)?answer(?:\s+is|\s*:)|approximately|approx\.?|about|roughly)"
    r"(?![a-z])"
)
_INTRODUCED = re.compile(
    rf"^‹\s*{_INTRODUCTION}\s*›|^(‹?)\s*{_INTRODUCTION}(?=[\s:])\s*:?", re.IGNORECASE
)
_RATIO = re.compile(r"(?<!\d)(\d+)\s*(?:‹\s*to\s*›|\bto\b)\s*(\d+)")
_BUILT_SET = re.compile(
    r"\\\{\s*([A-Za-z])\s*(?:\\in\s*(?:\\mathbb\s*\{?R\}?|ℝ)\s*)?(?:\\mid|\||:)([^|:]*[<>][^|:]*)\\\}"
)
"""A set by its condition, `\\{x | x > 1\\}`"""
_REALS = re.compile(r"‹?\s*(?:all|the)(?: of the)? real(?: number)?s\s*›?|ℝ|\\mathbb\s*R")
_AND = re.compile(
    r"\s*,?\s*(?:‹\s*,?\s*(?:and|or)\s*,?\s*›|(?<![A-Za-z])(?:and|or)(?![A-Za-z]))\s*"
)
_BARE_FUNCTION = re.compile(rf"(?<![\\A-Za-z])(?:{_FUNCTIONS})(?![A-Za-z])")
_MATRIX = re.compile(r"\\(begin|end)\{(?:array|small|b|B)(?:matrix)?\}(?:\{[clr|]*\})?")
_IN_BRACKETS = re.compile(r"[\[(]\s*(\\begin\{pmatrix\}(?:(?!\\begin).)*\\end\{pmatrix\})\s*[\])]")
_ROWS = re.compile(r"\[\s*\[[^\[\]]*\](?:,\[[^\[\]]*\])*\s*\]")
"""A matrix by its rows, `[[1,2],[3,4]]`"""
_MIXED = re.compile(r"(?<![\d.^_/}])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])")
_ROOT = re.compile(r"(∛|∜|(?<![A-Za-z\\])cbrt(?=\s*\())\s*(\d+|[A-Za-z])?")
_COMBINATIONS = re.compile(r"(?<![A-Za-z\\])(?:C|nCr)\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)")
_ORDINAL = re.compile(r"‹?\s*(\d+)\s*(?:\^\s*)?\{?\s*‹?\s*(st|nd|rd|th)\s*›?\s*\}?\s*›?")
_ORDINALS = {1: "st", 2: "nd", 3: "rd"}
DOTS = r"\ldots"
"""The dots behind a decimal that goes on without end, or behind a list that does."""
_DOTS = re.compile(r"(\.\d+|,)\s*(?:\.{3,}|…|\\[lc]?dots(?![A-Za-z]))")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?")
_DEGREES_IN_FUNCTION = re.compile(rf"(\d+(?:\.\d+)?)\s*{_DEGREES.pattern}")


@lru_cache(maxsize=1024)  # a truth is compared with a group of answers
def spelled(text: str) -> str:
    r"""Returns an answer in the one spelling that the other functions read.

    >>> spelled("$2*sqrt(2)$."), spelled("1 1/2"), spelled(r"\left(1,\ \text{ and }2\right)")
    ('2*\\sqrt{2}', '1\\frac{1}{2}', '(1,2)')
    """
    text = re.sub(r"\*\*([^*]+)\*\*", r"\1", text.strip())
    while _TEXT.search(text):  # they can stand in one another
        text = _TEXT.sub(lambda match: f"‹{re.sub('[‹›]', '', match[1])}›", text)
    text = re.sub(r"(?<=\d)\s*[xX]\s*(?=10\s*(?:\^|\*\*))", r"\\times ", text)
    text = _ROOT.sub(_root, text)
    text = re.sub(r"√\s*(\d+)", r"\\sqrt{\1}", text)
    text = _COMBINATIONS.sub(r"\\binom{\1}{\2}", text)
    text = _DOTS.sub(lambda match: match[1] + DOTS, text)
    text = _SIGN.sub(lambda match: _SIGNS[match[0]], _plain_digits(text))
    text = re.sub(r"(?<=\d)\\[,;: !](?=\d{3}(?!\d))", "", text)  # 1\,234
    if re.fullmatch(r"[-+]?\d{1,3}(?: \d{3})+", text):
        text = text.replace(" ", "")
    text = _SPACE.sub(" ", DRESSING.sub("", text)).strip().rstrip(".,\\").rstrip()
    text = re.sub(r"^(?:(?:\\approx|=)\s*)+|^[A-Za-z]\s*\\in(?![A-Za-z])\s*", "", text)
    text = _REALS.sub(r"\\mathbb{R}", _RATIO.sub(r"\1:\2", _INTRODUCED.sub(r"\1", text))).strip()
    text = _BUILT_SET.sub(r"\2", text) if _BUILT_SET.fullmatch(text) else text
    text = re.sub(r"\s*,\s*", ",", _AND.sub(",", text)).strip(",")
    text = re.sub(r"(?<![A-Za-z])(?:percent(?:age)?|pct)(?![A-Za-z])|‹\s*percent\s*›", r"\\%", text)
    text = re.sub(r"‹([\d\s./(),-]*|[A-Za-z](?:\s*,\s*[A-Za-z])+|\([A-Za-z]\))›", r"\1", text)
    text = re.sub(r"(^|[,(])‹\s*([A-Za-z])\s*›", r"\1\2", text)
    text = re.sub(r"(?<![A-Za-z\\])infinity(?![A-Za-z])", r"\\infty", text)
    text = _BARE_FUNCTION.sub(r"\\\g<0>", text)
    if _ROWS.fullmatch(text):
        rows = re.findall(r"\[([^\[\]]*)\]", text)
        inside = r"\\".join(row.replace(",", "&") for row in rows)
        text = rf"\begin{{pmatrix}}{inside}\end{{pmatrix}}"
    text = _MATRIX.sub(r"\\\1{pmatrix}", text)
    text = _IN_BRACKETS.sub(r"\1", text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    for command in (r"\sqrt", r"\sqrt[3]", r"\sqrt[4]", "^"):
        text = _in_braces(text, command)
    text = re.sub(r"\^\s*([+-]\s*\d+|\d+\.\d+)", r"^{\1}", text)
    text = re.sub(r"\\log\s*_?(\d+)(?=\s*\()", r"\\log_{\1}", text)
    text = re.sub(r"_(\d+|[A-Za-z]\s)", r"_{\1}", text)
    text = re.sub(r"(?<![\\A-Za-z])abs\(([^()]*)\)", r"|\1|", text)
    if re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", text):
        text = _DEGREES_IN_FUNCTION.sub(r"(\\frac{\1\\pi}{180})", text)
    text = _DEGREES.sub("‹degree›", re.sub(r"‹\s*(\^\\circ)\s*›", r"\1", text))
    text = re.sub(r"^\(\s*(‹[^›]*›|[A-Za-z])\s*\)$", r"\1", text).strip()
    return _without_ordinal(text)


def _root(match: re.Match[str]) -> str:
    """Returns `∛8` and `cbrt(8)` in LaTeX."""
    degree = 4 if match[1] == "∜" else 3
    return rf"\sqrt[{degree}]" + (f"{{{match[2]}}}" if match[2] else "")


def _without_ordinal(text: str) -> str:
    """Returns `7` of `7th`; `7st` stays as it is."""
    match = _ORDINAL.fullmatch(text)
    if match is None:
        return text
    number = int(match[1][-2:])
    fitting = "th" if number in (11, 12, 13) else _ORDINALS.get(number % 10, "th")
    return match[1] if match[2] == fitting else text


def _plain_digits(text: str) -> str:
    """Returns `10⁻⁷`, `x₁` and `⅓` in LaTeX."""

    def plain(match: re.Match[str]) -> str:
        return unicodedata.normalize("NFKC", match[0])

    text = _RAISED.sub(lambda match: f"^{{{plain(match)}}}", text)
    text = _LOWERED.sub(lambda match: f"_{{{plain(match)}}}", text)
    return _FRACTION.sub(lambda match: rf"\frac{{{plain(match).replace('⁄', '}{')}}}", text)


def _in_braces(text: str, command: str) -> str:
    """Returns a text with `\\sqrt(…)` and `^(…)` with braces in place of the brackets that belong
    together."""
    place = 0
    while (place := text.find(command, place)) >= 0:
        place += len(command)
        start = place + (text[place : place + 1] == " ")
        end = _closing(text, start) if text[start : start + 1] == "(" else -1
        if end >= 0:
            text = f"{text[:place]}{{{text[start + 1 : end]}}}{text[end + 1 :]}"
    return text


def _closing(text: str, start: int) -> int:
    """Returns the index of the bracket that closes the one at `start`; -1 if there is none."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        if depth == 0:
            return place
    return -1


def is_balanced(text: str) -> bool:
    """Returns whether every bracket has its other half: `[1,2)` has."""
    return _closing(f"({text})", 0) == len(text) + 1
