"""A process that only compares answers (`openrpt.worker`, asked by `checks.MathChecker`): an answer
and the truth in, a verdict out.

It is a process of its own because symbolic algebra can hang where no signal reaches it
(`9^{9^{9^9}}` is one long call into C), uses signals that belong to the main thread, and writes
warnings. A check that takes too long or too much memory ends the process and is wrong.
"""

import re
from decimal import Decimal
from functools import lru_cache
from typing import Any

from openrpt.evaluation.questions.math_numbers import THOUSANDS, endless, exact
from openrpt.evaluation.questions.math_parts import (
    as_union,
    split_list,
    split_unit,
    without_quotient_unit,
    without_unit,
)
from openrpt.evaluation.questions.math_spelling import DOTS, is_balanced, spelled
from openrpt.evaluation.questions.math_words import is_words, labelled, letters_only
from openrpt.worker import serve

MEMORY = 4 << 30
"""The worker's address space, in bytes."""
DIGITS = 6
"""A decimal of so many significant digits stands for every endless number that rounds to it."""
PRECISION = 400
"""Decimal digits to which expressions are compared: differences below 1e-400 are lost."""

_NAME = r"(?:[A-Za-z]|\\(?!pi|infty)[a-z]+)(?:_\{?\w+\}?)?(?:\([A-Za-z](?:,[A-Za-z])*\))?"
_NAMED = re.compile(rf"^{_NAME}\s*=\s*(?=[^=]+$)")
_NAMED_LAST = re.compile(rf"(?!{_NAME}\s*=)([^=<>]*[^=<>\s])\s*=\s*({_NAME})")
"""An equation whose right side is a name and whose left side is none, `5 = x`."""
_BASE = re.compile(r"(\d[\dA-F]*)_\{?\(?(\d+)\)?\}?")
_PLAIN = re.compile(
    r"[+-]?(?:\d{1,400}(?:/[1-9]\d{0,400}|\.\d{0,400})?|\.\d{1,400})(?:(?<!/)[eE][+-]?\d{1,3})?",
    re.ASCII,
)
_DECIMAL = re.compile(r"-?\d*\.\d{1,400}", re.ASCII)
_SPACED_DIGITS = re.compile(r"\d\s+\d")
_BROKEN_NUMBER = re.compile(r"\d\.(?!\d)|\.\d*\.")


def agrees(answer: str, truth: str) -> bool:
    """Returns whether two answers mean the same number, expression, set, relation or words."""
    if any(r"\cup" in spelled(text) for text in (answer, truth)):
        answer, truth = as_union(answer), as_union(truth)
    answer, truth = _name_first(spelled(answer)), _name_first(spelled(truth))
    if "=" not in truth:  # `x = 100_2` says what x is
        answer = _NAMED.sub("", answer)
    if re.fullmatch("[A-Z]", truth) and labelled(answer) == truth:
        return True
    if letters_only(answer) == letters_only(truth) != "":
        return True
    (value, unit), (true_value, true_unit) = split_unit(answer), split_unit(truth)
    if is_words(value) or is_words(true_value):
        return False
    if "%" in (unit, true_unit) and unit != true_unit:
        return (unit or true_unit) == "%" and _percent_agrees(value, true_value, unit == "%")
    if unit and true_unit and unit != true_unit:
        return False
    if true_unit and not unit:  # `5 m` is five metres where the truth is in metres
        value = without_unit(value, true_unit)
    elif unit and not true_unit:
        true_value = without_unit(true_value, unit)
    elif not unit:
        if not _has_letters(true_value):
            value = without_quotient_unit(value)
        elif not _has_letters(value):
            true_value = without_quotient_unit(true_value)
    return _same(value, true_value)


def _name_first(text: str) -> str:
    """Returns `x = 5` of `5 = x`; all else as it is."""
    match = _NAMED_LAST.fullmatch(text)
    return f"{match[2]} = {match[1]}" if match else text


def _has_letters(text: str) -> bool:
    """Returns whether an answer has variables, units or words; the names of commands are none."""
    return bool(re.search("[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", text)))


def _percent_agrees(value: str, true_value: str, is_percent: bool) -> bool:
    """Returns whether two answers agree, one of them in per cent: `50\\%` is 0.5, and it is 50
    unless 50 is below 1."""
    if is_percent:
        number = _number(true_value)
        above_one = number is not None and number > 1 and _same(value, true_value)
        return above_one or _same(rf"({value})/100", true_value)
    return _same(value, true_value) or _same(value, rf"({true_value})/100")


def _same(answer: str, truth: str) -> bool:
    said, true = split_list(answer), split_list(truth)
    if said is None or true is None:
        return _same_mathematics(answer, truth)
    (brackets, members), (true_brackets, true_members) = said, true
    if len(members) != len(true_members):
        return False
    kinds = {brackets, true_brackets}
    if kinds <= {"", "{}"}:
        return _same_in_any_order(members, true_members)
    if len(kinds) == 1 or kinds == {"", "()"}:
        return all(map(_same, members, true_members))
    return False


def _same_in_any_order(members: list[str], true_members: list[str]) -> bool:
    left = list(true_members)
    for member in members:
        found = next((true for true in left if _same(member, true)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def _same_mathematics(answer: str, truth: str) -> bool:
    based, true_based = (_BASE.fullmatch(text) for text in (answer, truth))
    if based or true_based:  # another base, or none, is not what was asked for
        return bool(based and true_based and based.groups() == true_based.groups())
    if _SPACED_DIGITS.search(answer + "|" + truth):
        return False
    if answer.replace(" ", "") == truth.replace(" ", ""):
        return bool(answer)
    if DOTS in answer or DOTS in truth:
        return _endless_agrees(answer, truth) or _endless_agrees(truth, answer)
    if not (_sides_agree(answer, truth) and _sides_agree(truth, answer)):
        return False
    if max(len(answer), len(truth)) == 1:  # I and i, E and e are one number each to sympy
        return False
    from math_verify import verify
    from sympy import Rational, Symbol

    value, true_value = _parsed(answer), _parsed(truth)
    if value is None or true_value is None:
        return False
    plain = Rational | Symbol  # math-verify takes \Delta for \delta
    if isinstance(value, plain) and isinstance(true_value, plain):
        same = bool(value == true_value)
    else:
        same = verify(
            true_value,
            value,
            numeric_precision=PRECISION,
            allow_set_relation_comp=True,
            timeout_seconds=None,  # the worker's watchdog also reaches into C
        )
    return same or _rounds_to(true_value, answer) or _rounds_to(value, truth)


def _sides_agree(equation: str, value: str) -> bool:
    """Returns whether each side that is a number is the value. `x = 5` and `2+3 = 5` say 5, `5 =
    6` says nothing. A value that is an equation itself is compared as one."""
    if "=" not in equation or "=" in value:
        return True
    sides = [side.strip() for side in equation.split("=")]
    return all(_same_mathematics(side, value) for side in sides if side and not _has_letters(side))


def _endless_agrees(text: str, other: str) -> bool:
    """Returns whether a decimal that dots follow is the beginning of the other one, which does not
    end. Either its digits repeat, or they are DIGITS or more."""
    from sympy import Expr, Rational

    found = endless(text)
    if found is None:
        return False
    decimal, repeating = found
    if repeating and _same_mathematics(repeating, other):
        return True
    value = None if DOTS in other else _parsed(other)
    if len(Decimal(decimal).as_tuple().digits) < DIGITS or not isinstance(value, Expr):
        return False
    if not _is_endless(value):
        return False
    _, digits, exponent = Decimal(decimal).as_tuple()
    further = (value - Rational(decimal)).evalf(len(digits) + 20)
    if decimal.startswith("-"):
        further = -further
    return bool(0 <= further < Rational(10) ** int(exponent))


def _number(text: str) -> Any:
    """Returns a plain number or fraction as sympy's Rational; None for all else."""
    from sympy import Rational

    plain = text.replace(",", "") if THOUSANDS.fullmatch(text) else text
    return Rational(plain) if _PLAIN.fullmatch(plain) else None


@lru_cache(maxsize=1024)  # a truth is compared with a group of answers
def _parsed(text: str) -> Any:
    """Returns the sympy expression; None for what is no mathematics."""
    from latex2sympy2_extended import NormalizationConfig, latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from sympy import Expr, I, Symbol

    if (number := _number(text)) is not None:
        return number
    text = exact(text)
    if _BROKEN_NUMBER.search(text) or not is_balanced(text):
        return None
    # math-verify's own `parse` takes the first part that it can read, R for r, and `5t` for 5.
    try:
        value = latex2sympy(
            text,
            is_real=True,
            normalization_config=NormalizationConfig(malformed_operators=True, boxed="none"),
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
    except Exception:  # its parser raises plain Exception, its converter whatever comes
        return None
    has_index = r"\sum" in text or r"\prod" in text
    if isinstance(value, Expr) and not has_index:
        return value.xreplace({Symbol("i", real=True): I})
    return value


def _rounds_to(value: Any, text: str) -> bool:
    """Returns whether the text is a decimal of DIGITS digits or more, and the value an endless one
    (1/3, π) that rounds to it."""
    from sympy import Expr, Rational

    if not _DECIMAL.fullmatch(text) or not isinstance(value, Expr):
        return False
    if not _is_endless(value):
        return False
    _, digits, exponent = Decimal(text).as_tuple()
    if len(digits) < DIGITS or not isinstance(exponent, int):
        return False
    error = (value - Rational(text)).evalf(len(digits) + 20)
    return bool(abs(error) <= Rational(10) ** exponent / 2)


def _is_endless(value: Any) -> bool:
    """Returns whether a value is a real number whose decimals do not end; where they do, they are
    compared exactly."""
    from sympy import Rational

    if not (value.is_number and value.is_real):
        return False
    return not (isinstance(value, Rational) and 10**PRECISION % value.q == 0)


def compares() -> bool:
    """Returns whether the worker can compare two forms of one number."""
    return agrees(r"\sqrt{8}", "2*sqrt(2)")


if __name__ == "__main__":
    serve(lambda pair: agrees(*pair), ready=compares, memory=MEMORY)
