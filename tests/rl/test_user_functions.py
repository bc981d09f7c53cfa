"""A user's own reward: a number of any kind, and named when it fails."""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest

from openrpt.errors import UserError
from openrpt.rl.rewards.user import number_of
from openrpt.user_code import UserFunction


def called(function, prediction: object = b"a", on_error: str = "stop") -> float:
    own = UserFunction(path="mine:own", function=function, reads=("prediction",))
    values = {"prediction": prediction, "other": 1}
    return number_of(own, values, where="document d", on_error=on_error)


def test_numbers_of_any_kind_become_floats() -> None:
    for value in (True, 2, 0.5, np.float32(0.5), np.int64(1)):
        found = called(lambda prediction, value=value: value)
        assert type(found) is float and found == float(value)
    assert math.isnan(called(lambda prediction: math.nan)), "judged where all terms are"


def test_failures_say_where_or_count_as_nothing() -> None:
    def divides(prediction):
        return 1 / 0

    def speaks(prediction):
        return "good"

    with pytest.raises(
        UserError, match=r"'mine:own' raised ZeroDivisionError \(.*\) for document d;"
    ):
        called(divides)
    with pytest.raises(UserError, match="returned 'good', which is no number, for document d;"):
        called(speaks)
    with pytest.raises(UserError, match="returned None"):
        called(lambda prediction: None)
    assert math.isnan(called(divides, on_error="zero"))
    assert math.isnan(called(speaks, on_error="zero"))


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError


class Text(str):
    __slots__ = ()


class Silent:
    def __repr__(self) -> str:
        raise ValueError


def exits(prediction):
    sys.exit(3)


def exits_in_words(prediction):
    sys.exit("two\nlines")


def generator_exit(prediction):
    raise GeneratorExit


def unspeakable(prediction):
    raise Unspeakable


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda prediction: 10**400, r"raised OverflowError \(.*\)"),
        (lambda prediction: -(10**5000), r"raised OverflowError \(.*\)"),
        (lambda prediction: Fraction(10**400), r"raised OverflowError \(.*\)"),
        (exits, r"raised SystemExit \(3\)"),
        (exits_in_words, r"raised SystemExit \(two lines\)"),
        (generator_exit, "raised GeneratorExit"),
        (unspeakable, "raised Unspeakable"),
        (lambda prediction: Text("1"), "returned '1', which is no number,"),
        (lambda prediction: 1j, "returned 1j, which is no number,"),
        (lambda prediction: [10**5000], "returned a value of type list, which is no number,"),
        (lambda prediction: Silent(), "returned a value of type Silent, which is no number,"),
        (lambda prediction: "a\nb" * 99, r"returned 'a.*, which is no number,"),
    ],
)
def test_whatever_a_function_does_is_one_line(function, said: str) -> None:
    with pytest.raises(UserError, match=f"^'mine:own' {said} for document d; mend it") as error:
        called(function)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    assert math.isnan(called(function, on_error="zero"))


def test_an_interrupt_is_no_failure() -> None:
    def interrupted(prediction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        called(interrupted, on_error="zero")
