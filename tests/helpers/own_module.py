"""A module of a user's own parts, in the working directory."""

import sys
from pathlib import Path

import pytest


def write_module(folder: Path, patch: pytest.MonkeyPatch, text: str, *, name: str = "mine") -> None:
    """Makes the module, which is not on the path, for as long as `patch` holds."""
    patch.setattr(sys, "path", [*sys.path])
    patch.chdir(folder)
    patch.delitem(sys.modules, name, raising=False)
    (folder / f"{name}.py").write_text(text)
