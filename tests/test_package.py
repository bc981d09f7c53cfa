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


def test_a_folder_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what leaves one where it ran."""
    (tmp_path / "left_behind").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.util.find_spec("left_behind") is not None
    with pytest.raises(UserError, match="x needs left_behind; install it"):
        require("left_behind", extra="ray", what="x")


def test_a_version_that_an_extra_is_not_made_for_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the ranges of the package as it is installed, found as pip leaves them."""
    ranges = PROJECT["optional-dependencies"]["ray"]
    stated = "".join(f"Requires-Dist: {one} ; extra == 'ray'\n" for one in ranges)
    installed = {"openrpt": ("9.9", f"Provides-Extra: ray\n{stated}"), "ray": ("2.64.0", "")}
    for name, (version, more) in installed.items():
        (tmp_path / f"{name}-{version}.dist-info").mkdir()
        about = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{more}"
        (tmp_path / f"{name}-{version}.dist-info" / "METADATA").write_text(about)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "ray.py").touch()
    with pytest.raises(UserError, match=r"x needs ray<2\.64,>=2\.60, and 2\.64\.0 is installed"):
        require("ray", extra="ray", what="x")
    require("ray", extra="lora", what="x")  # states nothing of ray


def test_recipes_lie_in_what_the_wheel_holds() -> None:
    package = Path(importlib.util.find_spec("openrpt").origin).parent
    assert config_path("recipe:demo").is_relative_to(package)


def test_the_citation_is_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in text
