"""A user's own part: found by its import path, checked before the run, and named when it fails."""

import sys
from pathlib import Path

import pytest

from openrpt.errors import UserError
from openrpt.user_code import UserFunction, load_function, load_value

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


def test_it_is_called_with_what_it_reads(module: str) -> None:
    values = {"prediction": b"a", "continuation": [b"a", b"b"]}
    function = load(f"{module}:closeness")
    assert function.reads == KNOWN
    assert function(values) == function.result(values, where="") == 4.0
    assert load(f"{module}:everything")(values) == 2.0
    assert load_value(f"{module}:value", key="prompt.template") == 3


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


def test_a_value_that_is_not_there_is_refused(module: str) -> None:
    with pytest.raises(
        UserError,
        match=r"^a\.key: 'mine:valu': module 'mine' has no value 'valu'; nearest: 'value'",
    ):
        load_value("mine:valu", key="a.key")
    with pytest.raises(UserError, match="it has the form module:value"):
        load_value(":value", key="a.key")


def test_what_a_function_raises_is_one_line_that_says_where() -> None:
    def divides(prediction):
        return 1 / 0

    own = UserFunction(path="mine:own", function=divides, reads=("prediction",))
    with pytest.raises(
        UserError, match=r"^'mine:own' raised ZeroDivisionError \(division by zero\) in step 3$"
    ) as error:
        own.result({"prediction": b""}, where="in step 3")
    assert isinstance(error.value.__cause__, ZeroDivisionError)
