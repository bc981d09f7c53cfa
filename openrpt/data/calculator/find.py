"""Computed numbers: those that a text says to be the result of arithmetic right before them.

What counts: an expression of at least one operation, a sign (`=`, `≈`, or a word such as
`equals`), and a number that the expression evaluates to, exactly in rationals. A number with
digits behind its point may be rounded, correctly at its last digit; a whole number only behind
`≈`. The expression is the longest one that ends at the sign; where it goes on to the left with
something that can't be evaluated (`2y + 3 + 4 = 7`), nothing counts.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from openrpt.data.calculator.lexer import CURRENCY, ENDS_OPERAND, Token, is_glued_unit, lex
from openrpt.data.calculator.numbers import NUMBER_RUN, agrees_to_digits, decimals_of, number_value
from openrpt.data.calculator.parser import (
    Measure,
    NoExpression,
    Operand,
    Operation,
    operations,
    parse,
)

_LONGEST_EXPRESSION = 300
"""The most characters before a sign that are looked at."""
_SEVERAL = "several"
"""The kind of a number that takes more than one operation."""

_SIGN = re.compile(
    rf"""
    (?P<sign> (?<![<>!:+\-*/=~^≠]) ==? | ≈ | \\approx\b
            | \b(?: is\ equal\ to | is\ approximately | equals? | is | makes | gives )\b )
    (?P<behind> (?: [ \t&~] | \\[,;:!\ ] )* )
    (?: \\boxed\{{ )?
    (?P<lead> (?: [-−–]?{CURRENCY}[ ]? | (?:{CURRENCY}[ ]?)?[-−–] )? )
    (?P<digits> {NUMBER_RUN} )
    (?P<percent> [ ]?\\?% )?
    """,
    re.VERBOSE,
)
_ABOUT = ("≈", "\\approx", "is approximately")
_MINUS = re.compile("[-−–]")
_LETTERS = re.compile(r"[^\W\d_]+")
_GOES_ON = re.compile(r"[\d_^(]|[.,:]\d|\\!|\{,\}")
"""Signs behind digits that say: no end of a number (1.2.3, 3:4, 101_2), or an operand (5^2,
5(3))."""
_LINE_END = re.compile(r"[ \t]*(?:\\\\)?[ \t&]*$")
_HARD_BREAK = re.compile(r"(?<!\\)[=<>;?!:|\"“”≈]|[.,](?=\s)")
_MATHS_END = re.compile(r"[^$\n]{0,80}\$(?!\.?\d)")
"""The text behind a result up to a dollar that opens no number, so that it closes a formula."""
_SPACE_BEFORE = re.compile(r"\s&?$")
_NOT_BEFORE = re.compile(r"(?:[\w\\^)\]!}/'’|@#]|\d[.,:])$")
"""The end of a text behind which an expression would be part of something else."""
_MAY_BE_NEGATIVE = re.compile(r"(?:^|[=(:;,≈$]|\bis|equals)\s*$")
"""The end of a text behind which a minus is a sign; elsewhere it may take from something."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Computed:
    """A number that the calculator finds to be the result of what stands before it."""

    start: int
    """Offset in bytes of the text: [start, end) is the number with its minus and separators,
    without currency (but `-$5` is whole) and percent sign."""
    end: int
    text: str
    """The number, as the bytes [start, end) say it."""
    tree: Operation
    equals: str
    """The text between expression and result, as the text spells it: ` = `."""
    result: str
    """The number as the text spells it, with currency and percent sign: `$10`."""
    is_rounded: bool = False

    @property
    def value(self) -> Fraction:
        """The exact value of the expression."""
        return self.tree.value

    @property
    def kind(self) -> str:
        """The kind of working: `+`, `-`, `*`, `/`, `^`; `several` where there is more than one
        operation."""
        symbols = operations(self.tree)
        return symbols[0] if len(symbols) == 1 else _SEVERAL


def find_computed(text: str) -> Iterator[Computed]:
    """Yields all computed numbers of a text, in order.

    >>> [(found.text, found.kind) for found in find_computed("He paid 3 x $4 = $12 in 2019.")]
    [('12', '*')]
    """
    at = offset = 0  # the same place in characters and in bytes
    for match in _SIGN.finditer(text):
        found = _computed(text, match)
        if found is None:
            continue
        tree, is_rounded = found
        minus = _MINUS.search(match["lead"])
        start = match.start("lead") + minus.start() if minus else match.start("digits")
        offset, at = offset + _bytes(text[at:start]), start
        number = text[start : match.end("digits")]
        if "$" not in match["lead"] and _MATHS_END.match(text, match.end()):  # $3 + 4 = 7$
            tree = _without_dollar(tree)
        yield Computed(
            start=offset,
            end=offset + _bytes(number),
            text=number,
            tree=tree,
            equals=_spaced(text, match),
            result=text[match.start("lead") : match.end()],
            is_rounded=is_rounded,
        )


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def _computed(text: str, match: re.Match[str]) -> tuple[Operation, bool] | None:
    """Returns the tree and whether the number is rounded; None where it is no result."""
    said = number_value(match["digits"])
    if said is None or not _is_whole_number(text, match.end("digits")):
        return None
    said = -said if _MINUS.search(match["lead"]) else said
    ahead, is_cut = _ahead(text, match.start())
    tree = _expression_before(ahead, is_cut=is_cut)
    if tree is None:
        return None
    about = match["sign"] in _ABOUT
    decimals = decimals_of(match["digits"])
    is_exact = agrees_to_digits(tree.value, said, decimals, approximately=about)
    if is_exact is None and match["percent"]:  # 5/20 = 25 %; else 100 - 75 = 25 %
        is_exact = agrees_to_digits(tree.value * 100, said, decimals, approximately=about)
    return None if is_exact is None else (tree, not is_exact)


def _is_whole_number(text: str, end: int) -> bool:
    """Returns whether nothing behind the number makes it part of something else: 2x, 5^2, 1.2.3,
    3:4, 101_2."""
    if _GOES_ON.match(text, end):
        return False
    glued = _LETTERS.match(text, end)
    return glued is None or is_glued_unit(glued[0])


def _ahead(text: str, end: int) -> tuple[str, bool]:
    """Returns the text that may hold the expression that ends here, back to the last character
    that is in none, and whether it may begin earlier still: beyond _LONGEST_EXPRESSION characters.

    A line that begins with its sign goes on with the line before.
    """
    line = _line_start(text, end)
    if line and text[line - 1] == "\n" and not text[line:end].strip(" \t&"):
        end, line = line - 1, _line_start(text, line - 1)
    ahead = _LINE_END.sub("", text[line:end])
    breaks = [match.start() for match in _HARD_BREAK.finditer(ahead)]
    if breaks:
        return ahead[max(0, breaks[-1] - 1) :], False
    return ahead, line > 0 and text[line - 1] != "\n"


def _line_start(text: str, end: int) -> int:
    """Returns the offset at which the line begins, at most _LONGEST_EXPRESSION characters back."""
    least = max(0, end - _LONGEST_EXPRESSION)
    return max(least, text.rfind("\n", least, end) + 1)


def _expression_before(text: str, *, is_cut: bool) -> Operation | None:
    """Returns the longest expression that a text ends with; None where there is none, where it is a
    number alone, and where what stands before belongs to it."""
    tokens = lex(text)
    first = len(tokens)
    while first and tokens[first - 1].kind != "break":
        first -= 1
    if not tokens or tokens[-1].kind not in ENDS_OPERAND:
        return None
    for start in range(first, len(tokens)):
        if not _may_start(tokens, start, text):
            continue
        try:
            tree = parse(tokens[start:], text)
        except NoExpression:
            continue
        if start == 0 and is_cut:
            return None
        return None if isinstance(tree, Operand) else tree
    return None


def _may_start(tokens: Sequence[Token], start: int, text: str) -> bool:
    token = tokens[start]
    if token.kind not in ("number", "opens", "frac") and token.symbol != "-":
        return False
    at = token.start
    if _NOT_BEFORE.search(text[max(0, at - 2) : at]):
        return False
    if token.symbol and not _MAY_BE_NEGATIVE.search(text[:at]):
        return False
    before = tokens[start - 1] if start else None
    if before is None or before.kind != "operator":
        return True
    is_bullet = before.symbol in ("-", "*") and before.end < token.start
    return is_bullet and not text[: before.start].strip()  # `- 3 + 4 = 7` in a list


def _spaced(text: str, match: re.Match[str]) -> str:
    """Returns the sign with the white space around it: ` = `."""
    before = " " if _SPACE_BEFORE.search(text, max(0, match.start() - 2), match.start()) else ""
    return f"{before}{match['sign']}{' ' if match['behind'].strip('&') else ''}"


def _without_dollar(node: Operation) -> Operation:
    """Returns the text without a dollar before its first number, which opens a formula."""
    if isinstance(node.left, Operation):
        return replace(node, left=_without_dollar(node.left))
    if not node.left.spelled.startswith("$"):
        return node
    spelled = node.left.spelled.removeprefix("$").lstrip()
    measure: Measure = "percent" if node.left.measure == "percent" else ""
    return replace(node, left=replace(node.left, spelled=spelled, measure=measure, currency=""))
