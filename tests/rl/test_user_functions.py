"""A user's function: found by its import path, checked before the run, and named when it fails."""

import math
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from openrpt.errors import UserError
from openrpt.rl.rewards.user import UserFunction, load_function

KNOWN = ("prediction", "continuation")
MODULE = """
import math

def closeness(prediction, continuation, scale=2.0):
    return scale * len(continuation)

def everything(**values):
    return len(values)

class Strict:
    def __init__(self, prediction):
        self.prediction = prediction

def asks(prediction, continuations): ...
def positional(prediction, /): ...
def nothing(scale=1.0): ...

value = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, which is not on the path."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(MODULE)
    return "mine"


def load(path: str) -> UserFunction:
    return load_function(path, key="reward.terms", known=KNOWN)


def called(function, prediction: object = b"a", on_error: str = "stop") -> float:
    own = UserFunction(path="mine:own", function=function, reads=("prediction",))
    return own({"prediction": prediction, "other": 1}, where="document d", on_error=on_error)


def test_it_is_called_with_what_it_reads(module: str) -> None:
    values = {"prediction": b"a", "continuation": [b"a", b"b"]}
    function = load(f"{module}:closeness")
    assert function.reads == KNOWN
    assert function(values, where="", on_error="stop") == 4.0
    assert load(f"{module}:everything")(values, where="", on_error="stop") == 2.0


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("mine:", "'mine:' is no import path; it has the form module:function"),
        ("absent.module:f", "'absent.module:f' can't be imported: No module named 'absent'"),
        ("mine:closenes", "module 'mine' has no function 'closenes'; nearest: 'closeness'"),
        ("mine:value", "has no function 'value'"),
        ("mine:asks", "'continuations', which is unknown: .*nearest: 'continuation'"),
        ("mine:positional", "'prediction', which is positional-only"),
        ("mine:nothing", "reads nothing: it may read prediction, continuation"),
        ("builtins:min", "no signature that can be read|'min'"),
    ],
)
def test_what_can_not_be_used_is_refused(module: str, path: str, words: str) -> None:
    with pytest.raises(UserError, match=rf"^reward\.terms: .*({words})") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_a_module_that_does_not_parse_is_refused(module: str, tmp_path: Path) -> None:
    (tmp_path / "torn.py").write_text("def f(:\n")
    with pytest.raises(UserError, match="'torn:f' can't be imported: invalid syntax"):
        load("torn:f")


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys; sys.exit(1)", r"it raised SystemExit \(1\)"),
        ("1 / 0", r"it raised ZeroDivisionError \(division by zero\)"),
        ("raise BaseException", "it raised BaseException"),
    ],
)
def test_a_module_may_raise_anything(module: str, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / f"broken{abs(hash(text))}.py").write_text(text + "\n")
    with pytest.raises(UserError, match=f"^reward.terms: 'broken.*' can't be imported: {said}$"):
        load(f"broken{abs(hash(text))}:f")


def test_an_interrupt_is_no_failure() -> None:
    def interrupted(prediction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        called(interrupted, on_error="zero")
