"""The examples in docstrings give what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

import openrpt

_PACKAGE = Path(openrpt.__file__).parent
_MODULES = sorted(
    ".".join(path.relative_to(_PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in _PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", _MODULES)
def test_examples_hold(name: str) -> None:
    done = doctest.testmod(importlib.import_module(name))  # what fails is printed
    assert done.attempted and not done.failed
