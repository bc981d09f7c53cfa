"""The pages say what is: keys that there are, and the code's own messages."""

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

from openrpt.config.loading import config_keys

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCE = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "openrpt").rglob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_keys_that_a_page_types_are_there(page: Path) -> None:
    typed = re.findall(r"--(?:no-)?([a-z]+\.[a-z_0-9]+)\b", page.read_text(encoding="utf-8"))
    assert {key for key in typed if key not in config_keys()} == set()


def test_the_functions_on_the_way_of_a_prediction_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    way = text.partition("## The way of one prediction")[2].partition("\n## ")[0]
    packages = "|".join(path.name for path in (ROOT / "openrpt").iterdir() if path.is_dir())
    named = [
        name
        for name in re.findall(rf"`((?:{packages})(?:\.\w+)+)`", way)
        if name != "engine.model"  # an engine's own
    ]
    assert len(named) > 20
    for name in named:
        resolve_name(f"openrpt.{name}")  # raises for what is nowhere


def test_the_messages_that_troubleshooting_quotes_are_the_codes() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    said = re.sub(r'"\s*\n\s*f?"', "", SOURCE)
    rows = re.findall(r'^(?:\| |- |)(".*?")(?: \||:|\.)', text, re.MULTILINE)
    quoted = [quote for row in rows for quote in re.findall(r'"([^"]+)"', row)]
    parts = [
        part.strip() for quote in quoted for part in re.split(r"[…;]|KEY|\b[AB]\b|\d+%?", quote)
    ]
    missing = [part for part in parts if len(part) > 4 and part.strip(" ,:()") not in said]
    assert len(parts) > 20 and missing == []
