"""The working of a computed number: what a thought writes before it says the number."""

import re
from dataclasses import replace
from typing import Literal

from openrpt.data.calculator.columns import in_columns
from openrpt.data.calculator.find import Computed
from openrpt.data.calculator.numbers import decimal_text, is_grouped
from openrpt.data.calculator.parser import Measure, Node, Operand, Operation

Style = Literal["lines", "whole", "bare", "columns"]
"""The style of a working. lines: an operation a line, as the text spells. whole: the expression
once more, on one line. bare: an operation a line, without spaces, currency and other signs:
`12*13=156`. columns: bare, with operations on whole numbers worked digit by digit (`columns.py`):
`58*9: 8*9=72,5*9+7=45+7=52:522`."""


def working(found: Computed, style: Style = "lines") -> str:
    r"""Returns the thought: each line begins with a line break and ends with its result.

    An intermediate result that has no short decimal (1/3) stays as it was written, in the line of
    the operation that it is an operand of.

    >>> from openrpt.data.calculator.find import find_computed
    >>> [working(found) for found in find_computed("He has 40 / 2 + 4 = $24.")]
    ['\n40 / 2 = 20\n20 + 4 = $24']
    """
    if style == "whole":
        return f"\n{_written(found.tree)}{found.equals}{found.result}"
    if style in ("bare", "columns"):
        tree, equals, last_equals, groups = _bare(found.tree), "=", "=", False
        result = _plain_number(found.result)
    else:
        tree, result, last_equals = found.tree, found.result, found.equals
        # A word or ≈ is said of the text's own result alone.
        equals = found.equals if found.equals.strip() in ("=", "==") else " = "
        groups = is_grouped(_written(tree) + result)
    lines: list[str] = []
    last = _worked_out(tree, lines, equals, groups, style)
    return "".join([*lines, _line(last, last_equals, result, style)])


def _worked_out(
    node: Operation, lines: list[str], equals: str, groups: bool, style: Style
) -> Operation:
    """Returns the operation with its operands replaced by their results, whose lines are added."""

    def operand(inner: Node) -> Node:
        if isinstance(inner, Operand):
            return inner
        known = _worked_out(inner, lines, equals, groups, style)
        result = _result(known, groups)
        if result is None:
            return known
        lines.append(_line(known, equals, result.spelled, style))
        return result

    return replace(node, left=operand(node.left), right=operand(node.right))


def _line(node: Operation, equals: str, result: str, style: Style) -> str:
    """Returns an operation and its result, on a line of its own or worked in columns."""
    parts = (_inner(node.left), _inner(node.right), result)
    if style == "columns" and all(part.isdecimal() for part in parts) and int(result) == node.value:
        worked = in_columns(int(parts[0]), node.symbol, int(parts[1]))
        if worked is not None:
            return worked
    return f"\n{_written(node)}{equals}{result}"


def _written(node: Operation) -> str:
    """Returns an operation as the text spells it, without the brackets around it."""
    return f"{node.begin}{_inner(node.left)}{node.middle}{_right(node)}{node.end}"


def _inner(node: Node) -> str:
    if isinstance(node, Operand):
        return node.spelled
    return f"({_written(node)})" if node.in_brackets else _written(node)


def _right(node: Operation) -> str:
    """Returns a right operand's text: a negative number gets brackets, where nothing else encloses
    it."""
    text = _inner(node.right)
    is_open = isinstance(node.right, Operand) and text.startswith(("-", "−", "–")) and not node.end
    return f"({text})" if is_open else text


def _result(node: Operation, groups: bool) -> Operand | None:
    """Returns the intermediate result as the text would spell it; None where it has no short
    decimal."""
    left, right = _measured(node.left), _measured(node.right)
    measure: Measure = ""
    match node.symbol:
        case "+" | "-" if left[0] == right[0]:
            measure = left[0]
        case "+" | "-":
            measure = "money" if "money" in (left[0], right[0]) else ""
        case "*" if (left[0] == "money") != (right[0] == "money"):
            measure = "money"
        case "/" if left[0] == "money" and right[0] != "money":
            measure = "money"
    value = node.value * 100 if measure == "percent" else node.value
    digits = decimal_text(value, grouped=groups)
    if digits is None:
        return None
    currency = (left[1] or right[1]) if measure == "money" else ""
    sign, digits = ("-", digits[1:]) if digits.startswith("-") else ("", digits)
    percent = _percent(node.left) or _percent(node.right) if measure == "percent" else ""
    spelled = f"{sign}{currency}{digits}{percent}"
    return Operand(spelled=spelled, value=node.value, measure=measure, currency=currency)


def _percent(node: Node) -> str:
    """Returns the percent sign as the text spells it."""
    found = re.search(r"\\?%", node.spelled) if isinstance(node, Operand) else None
    return found[0] if found else ""


def _measured(node: Node) -> tuple[Measure, str]:
    return (node.measure, node.currency) if isinstance(node, Operand) else ("", "")


def _bare(node: Operation, *, in_brackets: bool = False) -> Operation:
    """Returns the same operations in plain signs: brackets where LaTeX's braces were."""

    def plain(inner: Node) -> Node:
        if isinstance(inner, Operand):
            return Operand(spelled=_plain_number(inner.spelled), value=inner.value)
        return _bare(inner, in_brackets=inner.in_brackets or bool(node.end + inner.begin))

    return replace(
        node,
        left=plain(node.left),
        right=plain(node.right),
        begin="",
        middle=node.symbol,
        end="",
        in_brackets=in_brackets,
    )


def _plain_number(spelled: str) -> str:
    """Returns `-1250%` of `−1,250 %`: digits, point, minus and percent sign."""
    return re.sub(r"[^0-9.%-]", "", re.sub("[−–]", "-", spelled))
