"""Every relative link in the repository's pages leads to a file that is there, and to a heading of
it."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for where in ("*", "benchmarks/**/*", "docs/**/*", "openrpt/**/*", "recipes/**/*", "tests/**/*")
    for path in ROOT.glob(where)
    if path.suffix in (".md", ".ipynb")
)
MARKDOWN = MarkdownIt("commonmark").enable("table")


def text_of(page: Path) -> str:
    """The page's markdown; of a notebook, that of its cells."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
    return "\n\n".join("".join(cell["source"]) for cell in cells)


def tokens_of(page: Path) -> list[Token]:
    return MARKDOWN.parse(text_of(page))


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: small letters, no signs but hyphens,
    and a number behind those that came before."""
    tokens, found, seen = tokens_of(page), set(), Counter[str]()
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            title = "".join(part.content for part in inline.children or [])
            anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
            seen[anchor] += 1
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', text_of(page)))


def links(page: Path) -> Iterator[str]:
    for token in tokens_of(page):
        for part in (token, *(token.children or [])):
            yield from (str(part.attrs[name]) for name in ("href", "src") if name in part.attrs)
            if part.type.startswith("html"):
                yield from re.findall(r'(?:href|src)="([^"]+)"', part.content)


def broken(page: Path) -> Iterator[str]:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists():
            yield f"{link}: no such file"
        elif anchor and anchor not in anchors(target):
            yield f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken(page)) == []


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# One\n\n## The `a_b` of C\n\n## One\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](there.md#the-a_b-of-c) [c](there.md#one-1) [d](#here) [e](gone.md)\n\n"
        "# Here\n\n| t |\n|---|\n| [f](there.md#two) |\n\n`[g](code.md)` <https://x.y/z>\n\n"
        '<img src="gone.png">\n\n```\n[h](code.md)\n# No heading\n```\n\n[i](#no-heading)\n',
        encoding="utf-8",
    )
    assert list(broken(page)) == [
        "gone.md: no such file",
        "there.md#two: no such heading",
        "gone.png: no such file",
        "#no-heading: no such heading",
    ]
