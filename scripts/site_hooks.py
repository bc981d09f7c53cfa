"""What the site adds to docs/: the first page, pages of the notebooks, formulas, and links that
leave the folder.

mkdocs calls these functions by their names (mkdocs.yml, `hooks`).
"""

import html
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).parent.parent
sys.path.append(str(_ROOT))

from scripts.notebook_page import notebook_page  # noqa: E402

_CELL = re.compile(r"(?<=<td><code>)[^<]+(?=</code></td>)")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
"""What arithmatex makes of a formula: a span in a line, a div of its own."""
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the first page, README.md with links as they are from docs/, and a page a notebook."""
    readme = (_ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=readme))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        content = notebook_page(notebook.content_string)
        files.append(File.generated(config, _page_of(notebook.src_uri), content=content))
    return files


def _page_of(notebook: str) -> str:
    return notebook.removesuffix(".ipynb") + ".md"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Leaves only the text of a link to a file of the repository that is no page of the site; a
    link to a notebook leads to its page.

    Whether such a file is there is what tests/test_links.py sees to. Links to nothing, and all
    within docs/, stay, and mkdocs says what is wrong with them.
    """
    folder = _ROOT if page.file.src_uri == "index.md" else _ROOT / "docs" / page.file.src_uri / ".."

    def text_or_link(found: re.Match[str]) -> str:
        text, name = found[1], found[2]
        if not name or ":" in name:
            return found[0]
        target = (folder / name).resolve()
        inside = target.is_relative_to(_ROOT / "docs") and target.is_file()
        if inside and name.endswith(".ipynb"):
            return f"[{text}]({_page_of(name)})"
        return text if target.exists() and not inside else found[0]

    return _LINK.sub(text_or_link, markdown)


def on_page_content(content: str, page: Any, config: Any, files: Files) -> str:
    """Lets a key in a table be broken behind the signs that join its words, and writes formulas as
    MathML, which browsers draw without a script."""
    content = _CELL.sub(lambda cell: re.sub(r"(?<=[/_.])(?=\w)", "<wbr>", cell[0]), content)
    return _FORMULA.sub(_as_mathml, content)


def _as_mathml(found: re.Match[str]) -> str:
    display = {"span": "inline", "div": "block"}[found[1]]
    return convert(html.unescape(found[2]), display=display)
