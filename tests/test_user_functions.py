"""A user's function: found by its import path, checked before the run, and named when it fails."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from openrpt.errors import UserError
from openrpt.user_functions import UserFunction, load_function

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


def test_an_interrupt_is_no_failure() -> None:
    def interrupted(prediction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        called(interrupted, on_error="zero")
