"""What is made by a script and stands in a page between two marks: `<!-- name -->` and
`<!-- /name -->`; in YAML `# name` and `# /name`.
"""

from pathlib import Path

from openrpt.files import write_text


def replaced(text: str, name: str, body: str, *, yaml: bool = False) -> str:
    """Returns the text with `body`, as it is, between the marks. Raises ValueError where the marks
    do not stand there once each."""
    begin, end = (
        (f"# {name}\n", f"# /{name}\n") if yaml else (f"<!-- {name} -->", f"<!-- /{name} -->")
    )
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the marks {begin.strip()} and {end.strip()} must stand there once each")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}{body}{end}{rest.partition(end)[2]}"


def put(page: Path, name: str, body: str) -> None:
    """Puts `body` between the marks of a page."""
    text = page.read_text(encoding="utf-8")
    write_text(page, replaced(text, name, body, yaml=page.suffix == ".yml"))
