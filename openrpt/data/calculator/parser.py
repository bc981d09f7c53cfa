"""The parser: tokens as an operation tree with exact values; a tree knows how the text spells
it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from openrpt.data.calculator.lexer import Token

Measure = Literal["", "money", "percent"]
_MOST_BITS = 4096
"""The most bits that a power's numerator or denominator may have."""
_DEEPEST = 20
"""The most brackets in one another."""
_BINDS = {"+": 1, "-": 1, "*": 2, "/": 2}


class NoExpression(ValueError):
    """Raised where tokens are no arithmetic, or its value can't be had."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Operand:
    """A number as the text spells it, currency and percent sign included, unit left out."""

    spelled: str
    value: Fraction
    measure: Measure = ""
    currency: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """Two operands and what is written before, between and behind them.

    `4(7)` has the middle `(` and the end `)`; `\\frac{12}{4}` begins with `\\frac{`.
    """

    symbol: str
    """One of + - * / ^."""
    left: "Node"
    right: "Node"
    value: Fraction
    begin: str = ""
    middle: str
    end: str = ""
    in_brackets: bool = False


Node = Operand | Operation


def parse(tokens: Sequence[Token], text: str) -> Node:
    """Returns the tree of all these tokens, which were cut from `text`. Raises NoExpression."""
    parser = _Parser(tokens, text)
    node = parser.sum(1)
    if parser.at < len(tokens):
        raise NoExpression
    return node


def operations(node: Node) -> list[str]:
    """Returns the symbols of a tree's operations, in the order in which they are worked out."""
    if isinstance(node, Operand):
        return []
    return [*operations(node.left), *operations(node.right), node.symbol]


def apply(symbol: str, left: Fraction, right: Fraction) -> Fraction:
    """Returns the result of one operation. Raises NoExpression for a division by zero, and for
    powers that are no number or too big."""
    match symbol:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            if right == 0:
                raise NoExpression
            return left / right
    bits = max(left.numerator.bit_length(), left.denominator.bit_length())
    if right.denominator != 1 or bits * abs(right) > _MOST_BITS or (left == 0 and right <= 0):
        raise NoExpression
    return Fraction(left ** int(right))


class _Parser:
    """Recursive descent by precedence: sums, products (side by side, too), powers, operands."""

    def __init__(self, tokens: Sequence[Token], text: str) -> None:
        self.tokens, self.text = tokens, text
        self.at = self.depth = 0

    def sum(self, least: int) -> Node:
        """Parses operators that bind at least so tightly, from left to right."""
        left = self.power()
        while (token := self._peek()) is not None:
            side_by_side = token.kind == "opens" and self.tokens[self.at - 1].end == token.start
            binds = _BINDS["*"] if side_by_side else _BINDS.get(token.symbol, 0)
            if binds < least:
                return left
            if side_by_side:  # 4(7)
                left = self._operation(
                    "*", left, self._enclosed("opens", "closes"), middle="(", end=")"
                )
                continue
            self.at += 1
            left = self._operation(
                token.symbol, left, self.sum(binds + 1), middle=self._spelled(token)
            )
        return left

    def power(self) -> Node:
        base = self.operand()
        token = self._peek()
        if token is None or token.symbol != "^":
            return base
        if base.value < 0 and isinstance(base, Operand):  # -2^2: whose is the sign?
            raise NoExpression
        self.at += 1
        following = self._peek()
        if following is None or following.kind != "brace":
            return self._operation("^", base, self.power(), middle=self._spelled(token))
        exponent = self.braced()
        middle = _token_text(token, self.text) + "{"
        return self._operation("^", base, exponent, middle=middle, end="}")

    def operand(self) -> Node:
        token = self._next()
        found: Node
        if token.kind == "operator" and token.symbol == "-":
            number = self._next()
            if number.kind != "number" or number.start != token.end:
                raise NoExpression
            found = self._number(number, sign="-")
        elif token.kind == "number":
            found = self._number(token)
        elif token.kind == "frac":
            over, under = self.braced(), self.braced()
            begin = _token_text(token, self.text) + "{"
            found = self._operation("/", over, under, begin=begin, middle="}{", end="}")
        elif token.kind == "opens":
            self.at -= 1
            inner = self._enclosed("opens", "closes")
            if isinstance(inner, Operation):
                found = replace(inner, in_brackets=True)
            else:
                found = replace(inner, spelled=f"({inner.spelled})")
        else:
            raise NoExpression
        unit = self._peek()
        if unit is not None and unit.kind == "unit":
            self.at += 1
        return found

    def braced(self) -> Node:
        return self._enclosed("brace", "ends")

    def _enclosed(self, opens: str, closes: str) -> Node:
        self.depth += 1
        if self._next().kind != opens or self.depth > _DEEPEST:
            raise NoExpression
        inner = self.sum(1)
        if self._next().kind != closes:
            raise NoExpression
        self.depth -= 1
        return inner

    def _number(self, token: Token, sign: str = "") -> Operand:
        spelled = sign + _token_text(token, self.text)
        value = -token.value if sign else token.value
        if "%" in token.suffix:
            return Operand(spelled=spelled, value=value, measure="percent")
        if token.currency or token.suffix:
            return Operand(spelled=spelled, value=value, measure="money", currency=token.currency)
        return Operand(spelled=spelled, value=value)

    def _operation(
        self, symbol: str, left: Node, right: Node, *, middle: str, begin: str = "", end: str = ""
    ) -> Operation:
        value = apply(symbol, left.value, right.value)
        return Operation(
            symbol=symbol, left=left, right=right, value=value, begin=begin, middle=middle, end=end
        )

    def _spelled(self, token: Token) -> str:
        """Returns the operator with the white space around it."""
        left = " " if self.text[max(0, token.start - 1) : token.start].isspace() else ""
        right = " " if self.text[token.end : token.end + 1].isspace() else ""
        return f"{left}{_token_text(token, self.text)}{right}"

    def _peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def _next(self) -> Token:
        token = self._peek()
        if token is None:
            raise NoExpression
        self.at += 1
        return token


def _token_text(token: Token, text: str) -> str:
    return text[token.start : token.end]
