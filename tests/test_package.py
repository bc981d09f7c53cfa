"""What the package says of itself, and what is optional in it."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

from openrpt import __version__
from openrpt.config.recipes import config_path
from openrpt.errors import UserError
from openrpt.extras import EXTRAS, require

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_extra_is_known() -> None:
    assert [*EXTRAS] == [*PROJECT["optional-dependencies"]]


def test_what_is_missing_says_what_to_type_in_a_checkout_too() -> None:
    with pytest.raises(UserError, match="x needs no_such; install it") as error:
        require("no_such", extra="lora", what="x", otherwise=", or leave x out")
    said = str(error.value)
    assert 'pip install "openrpt[lora]"' in said and 'pip install -e ".[lora]"' in said
    assert said.endswith(", or leave x out")


def test_recipes_lie_in_what_the_wheel_holds() -> None:
    package = Path(importlib.util.find_spec("openrpt").origin).parent
    assert config_path("recipe:demo").is_relative_to(package)


def test_the_citation_is_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in text
