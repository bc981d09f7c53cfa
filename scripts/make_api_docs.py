"""Writes the names of docs/api.md from the docstrings of what is public: python
scripts/make_api_docs.py"""

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from marked import put

TARGET = Path(__file__).parent.parent / "docs" / "api.md"
MODULES = (
    "openrpt",
    "openrpt.tokens",
    "openrpt.completions",
    "openrpt.rewards",
    "openrpt.advantages",
    "openrpt.losses",
)


def render() -> str:
    """What stands between the page's marks."""
    lines = [line for name in MODULES for line in _module(import_module(name))]
    return "\n\n" + "\n".join(lines).rstrip() + "\n\n"


def _module(module: ModuleType) -> Iterator[str]:
    """The module's own sentence, then each of its public names."""
    yield f"## `{module.__name__}`\n"
    yield f"{inspect.getdoc(module)}\n"
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value):
            yield from _class(name, value)
        elif callable(value):
            yield from _function(name, value, level=3)
        else:
            yield f"### `{name} = {value!r}`\n"


def _class(name: str, value: type[Any]) -> Iterator[str]:
    yield f"### class `{name}`\n"
    yield f"{_doc(value)}\n"
    about = _attribute_docs(value)
    if dataclasses.is_dataclass(value):
        yield "| attribute | type | what it is |\n|---|---|---|"
        for field in dataclasses.fields(value):
            kind = field.type
            text = kind if isinstance(kind, str) else inspect.formatannotation(kind)
            cells = (f"`{field.name}`", f"`{_plain(text)}`", about.get(field.name, ""))
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        yield ""
    public = {own: member for own, member in vars(value).items() if not own.startswith("_")}
    properties = {own: member for own, member in public.items() if isinstance(member, property)}
    for own, member in properties.items():
        yield f"- `.{own}`: {_first_paragraph(member)}"
    if properties:
        yield ""
    for own, member in public.items():
        if isinstance(member, classmethod | staticmethod):
            yield from _function(f"{name}.{own}", member.__func__, level=4)
        elif inspect.isfunction(member) and inspect.getdoc(member):
            yield from _function(f"{name}.{own}", member, level=4)
    yield ""


def _function(name: str, function: Any, *, level: int) -> Iterator[str]:
    signature = _plain(str(inspect.signature(function)))
    yield f"{'#' * level} `{name.rpartition('.')[2]}`\n"
    yield f"```python\n{_wrapped(name + signature)}\n```\n"
    yield f"{_doc(function)}\n"


def _plain(signature: str) -> str:
    """A signature without quotes around its annotations, and without the modules of its types."""
    unquoted = re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", unquoted)


def _wrapped(line: str) -> str:
    """A signature of more than a line has its parameters one a line."""
    if len(line) <= 100:
        return line
    head, _, rest = line.partition("(")
    inside, _, result = rest.rpartition(")")
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(inside):
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and depth == 0:
            parts.append(inside[start:place].strip())
            start = place + 1
    parts.append(inside[start:].strip())
    return "\n".join([f"{head}(", *(f"    {part}," for part in parts if part), f"){result}"])


def _attribute_docs(value: type[Any]) -> dict[str, str]:
    """The strings that stand below a class's attributes; Python itself does not keep them."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for node, after in zip(tree.body, tree.body[1:], strict=False):
        match node, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                found[name] = " ".join(str(text).split())
    return found


def _doc(value: Any) -> str:
    """The docstring; a doctest in it becomes a block of code."""
    text = inspect.getdoc(value)
    assert text, f"{value!r} has no docstring"
    lines, code = [], False
    for line in [*text.splitlines(), ""]:
        if line.startswith(">>>") and not code:
            lines.append("```pycon")
            code = True
        elif code and not line:
            lines.append("```")
            code = False
        lines.append(line)
    return "\n".join(lines).strip()


def _first_paragraph(value: Any) -> str:
    return " ".join(_doc(value).partition("\n\n")[0].split())


if __name__ == "__main__":
    put(TARGET, "names", render())
