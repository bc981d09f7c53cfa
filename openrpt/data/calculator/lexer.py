"""The lexer: the text before an equals sign as tokens: numbers, operators, brackets, units."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from openrpt.data.calculator.numbers import NUMBER_RUN, number_value

CURRENCY = r"(?:\\?\$|[£€¥₹])"
_GLUED_UNITS = frozenset(
    [
        "cm",
        "mm",
        "km",
        "ft",
        "mg",
        "kg",
        "lb",
        "lbs",
        "oz",
        "ml",
        "mL",
        "hr",
        "hrs",
        "min",
        "sec",
        "mph",
        "kph",
        "am",
        "pm",
    ]
)
_LONG_WORD = 4
"""Letters of a word that is no product of variables."""
_SPACED_UNITS = frozenset("mgLlhs")
_MOST_UNIT_WORDS = 6

_LETTER = r"[^\W\d_]"
_OPERAND = rf"(?=\s*(?:[0-9(]|\.[0-9]|[-−][0-9]|{CURRENCY}|\\[dt]?frac|\\left))"
_TOKEN = re.compile(
    rf"""
      (?P<space>  (?: [ \t\u00a0\u2009\u202f&~] | \\[,;:!\ ] )+ )
    | (?P<number> (?P<currency>{CURRENCY}[ ]?)? (?P<digits>{NUMBER_RUN})
                  (?P<suffix>[ ]?\\?%|[€¢])? )
    | (?P<power>  \*\* | \^ )
    | (?P<times>  [*×·⋅∗∙] | \\times\b | \\cdot\b | (?:[xX]|times\b|multiplied[ ]by\b){_OPERAND} )
    | (?P<of>     of\b{_OPERAND} )
    | (?P<per>    (?: /[ ]? | -)(?={_LETTER}{{2}}) (?:{_LETTER}|['’])+ )
    | (?P<over>   [/÷] | \\div\b | divided[ ]by\b )
    | (?P<plus>   \+ | plus\b{_OPERAND} )
    | (?P<minus>  [-−–] | minus\b{_OPERAND} )
    | (?P<frac>   \\[dt]?frac(?=\{{) )
    | (?P<opens>  (?:\\left)?\( )
    | (?P<closes> (?:\\right)?\) )
    | (?P<brace>  \{{ )
    | (?P<ends>   \}} )
    | (?P<word>   {_LETTER}(?: [\w'’] | -(?={_LETTER}) )* )
    | (?P<break>  \\[A-Za-z]+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_SYMBOLS = {"power": "^", "times": "*", "of": "*", "over": "/", "plus": "+", "minus": "-"}
ENDS_OPERAND = ("number", "closes", "unit", "ends")


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A piece of an expression, at [start, end) of the text that was cut into tokens."""

    kind: str
    """The kind: number, operator, frac, opens, closes, brace, ends, unit; break: in no
    expression."""
    start: int
    end: int
    symbol: str = ""
    """The sign of an operator: one of + - * / ^."""
    value: Fraction = Fraction(0)
    """The value of a number; a percentage's is its hundredth."""
    currency: str = ""
    """The sign before the digits, a space included."""
    suffix: str = ""
    """The sign behind the digits: a percent sign, `€`, `¢`."""


def lex(text: str) -> list[Token]:
    """Returns the tokens of a text, white space left out."""
    tokens: list[Token] = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup  # the outer one: groups inside it end before it does
        if kind is None or kind == "space":
            continue
        before = tokens[-1] if tokens else None
        token = _MAKERS.get(kind, _plain)(match, kind, before)
        if token.kind == "unit" and before is not None and before.kind == "unit":
            tokens[-1] = Token(kind="unit", start=before.start, end=token.end)
        else:
            tokens.append(token)
    return tokens


def is_glued_unit(word: str) -> bool:
    """Returns whether letters right behind a number are its unit (5cm, 16marbles), no variables
    (2x, 3ab)."""
    return word in _GLUED_UNITS or len(word) >= _LONG_WORD


def _plain(match: re.Match[str], kind: str, before: Token | None) -> Token:
    return Token(kind=kind, start=match.start(), end=match.end())


def _number(match: re.Match[str], kind: str, before: Token | None) -> Token:
    value, suffix = number_value(match["digits"]), match["suffix"] or ""
    if value is None or match.string[match.end() : match.end() + 1] == "_":  # 101_2
        return _plain(match, "break", before)
    return Token(
        kind="number",
        start=match.start(),
        end=match.end(),
        value=value / 100 if "%" in suffix else value,
        currency=match["currency"] or "",
        suffix=suffix,
    )


def _operator(match: re.Match[str], kind: str, before: Token | None) -> Token:
    follows = before is not None and before.kind in ENDS_OPERAND
    if match[0][0].isalpha() and not follows:
        return _plain(match, "break", before)
    if kind == "of" and before is not None and before.kind == "unit":  # 3 boxes of 12
        return _plain(match, "unit", before)
    return Token(kind="operator", start=match.start(), end=match.end(), symbol=_SYMBOLS[kind])


def _per(match: re.Match[str], kind: str, before: Token | None) -> Token:
    """Returns the token of a sign before a word: part of the unit (`6 days/week`,
    `12 cookies / box`, `120-page`), or a break."""
    is_unit = before is not None and before.kind in ("number", "unit", "closes")
    return _plain(match, "unit" if is_unit else "break", before)


def _word(match: re.Match[str], kind: str, before: Token | None) -> Token:
    word = match[0]
    if before is None or before.kind not in ("number", "unit", "closes") or not word.isalpha():
        simple = before is not None and before.kind == "unit" and not re.search(r"\d|_", word)
        return _plain(match, "unit" if simple else "break", before)
    if before.kind == "unit":
        many = match.string.count(" ", before.start, before.end) >= _MOST_UNIT_WORDS
        return _plain(match, "break" if many else "unit", before)
    is_glued = before.end == match.start()
    is_unit = is_glued_unit(word) if is_glued else len(word) > 1 or word in _SPACED_UNITS
    return _plain(match, "unit" if is_unit else "break", before)


_Maker = Callable[[re.Match[str], str, Token | None], Token]
_MAKERS: dict[str, _Maker] = {
    "number": _number,
    "word": _word,
    "per": _per,
    **dict.fromkeys(_SYMBOLS, _operator),
}
