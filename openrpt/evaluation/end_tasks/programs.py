"""The program in what a model wrote: which of its code blocks is the function, and what has to
stand before it.

Nothing is run to find that out: of the programs that an answer may mean, in an order, the first
that compiles and defines the function at its top level is taken.
"""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_FENCE = re.compile(r"(.*?)(`{3,}|~{3,})([^`]*)")
_STARTS = re.compile(r"(?:import|from|def|async|class)\b|@")


def opening_of(prompt: str) -> str:
    """Returns the beginning of a code block that a model is to go on with."""
    return f"```python\n{prompt}"


def program_of(task: Mapping[str, str], text: str) -> str:
    """Returns the prompt and the function that was written, as one program.

    The function may go on from the prompt, stand anew in a block or without one (the last one
    with a body counts), or be a body alone, in any indentation. Where nothing of that compiles:
    the prompt and the text as it goes on from it.
    """
    prompt, text = (part.replace("\r\n", "\n") for part in (task["prompt"], text))
    opening = opening_of(prompt)  # forced behind a thought, and so a part of the text
    goes_on = text.lstrip().removeprefix(opening) if text.lstrip().startswith(opening) else text
    before, entry = split_blocks(goes_on).before, task["entry_point"]
    for program in _candidates(prompt, before, split_blocks(text).blocks, entry):
        if _defines(program, entry):
            return program.rstrip() + "\n"
    return f"{prompt}{before}\n"


def _candidates(prompt: str, before: str, blocks: Sequence[str], entry: str) -> Iterator[str]:
    """Yields programs that an answer may mean, the likeliest first. `before`: its text up to a
    fence."""
    yield from _anew(prompt, blocks, entry)
    yield from _continued(prompt, before)
    for block in reversed(blocks):
        yield from _body(prompt, block)
    yield from _anew(prompt, [_code_lines(before)], entry)
    yield from _body(prompt, before)
    for block in reversed(blocks):  # fences in a block, or a first one that was a closing one
        yield from _anew(prompt, split_blocks(block).blocks, entry)


def _continued(prompt: str, written: str) -> Iterator[str]:
    """Yields the prompt and what goes on from it: lines with an indentation, or the rest of its
    last."""
    first = next((line for line in written.split("\n") if line.strip()), "")
    if first[:1].isspace() or not prompt.endswith("\n"):
        yield from _shortened(prompt, written)


def _anew(prompt: str, blocks: Sequence[str], entry: str) -> Iterator[str]:
    """Yields the programs of a text that begins anew, the last blocks first: one that defines the
    function itself, behind the prompt's imports and helpers and what earlier blocks define."""
    for place in range(len(blocks) - 1, -1, -1):
        for version in dict.fromkeys((blocks[place], textwrap.dedent(blocks[place]))):
            for whole in _shortened("", version):
                if not _defines(whole, entry):
                    continue
                earlier = [block for block in blocks[:place] if _only_defines(block)]
                yield "\n\n\n".join([_completed(prompt), *earlier, whole])
                yield whole  # `from __future__ import …` has to come first


def _body(prompt: str, block: str) -> Iterator[str]:
    """Yields a function's body alone, in any indentation; it has to return something, which a
    usage example does not."""
    lines = block.strip("\n").split("\n")
    rest = [line for line in lines[1:] if line.strip()]
    least = min((line[: len(line) - len(line.lstrip())] for line in rest), key=len, default="")
    for first in ("", least):  # the first line may have lost its indentation
        body = textwrap.dedent(first + "\n".join(lines))
        tree = _parsed("def f():\n" + textwrap.indent(body, " "))
        if tree is not None and any(isinstance(n, ast.Return | ast.Yield) for n in _own(tree.body)):
            yield f"{prompt.rstrip()}\n{textwrap.indent(body, _body_indent(prompt))}"


def _shortened(before: str, written: str) -> Iterator[str]:
    """Yields what was written, behind `before`, without the last lines that keep it from
    compiling; nothing where no line is left."""
    lines, above = written.split("\n"), before.count("\n")
    while lines:
        if lines[-1].strip():
            program = before + "\n".join(lines)
            broken = _read(program)
            if isinstance(broken, ast.Module):
                yield program
                return
            del lines[max(broken - above, 1) if broken else len(lines) :]
        lines.pop()


# ---- text ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """A text by its fences (three or more of `` ` `` or `~`), whatever language they name."""

    blocks: tuple[str, ...]
    before: str
    """The text before the first fence: all, where there is none."""


def split_blocks(text: str) -> Split:
    """Splits a text at its code blocks. A block ends at a bare fence of the same sign that is at
    least as long as its own and not four spaces deeper (that one stands in a docstring), or with
    the text. The indentation of its own fence is taken off its lines."""
    blocks: list[list[str]] = []
    before: list[str] = []
    inside, indent, opened = False, "", ""
    for line in text.split("\n"):
        found = _FENCE.fullmatch(line)
        said, fence, language = found.groups() if found else (line, "", "")
        if inside:
            deeper = not said.strip() and len(said.expandtabs(4)) >= len(indent.expandtabs(4)) + 4
            closes = fence.startswith(opened) and not language.strip() and not deeper
            inside = not closes
            if said.strip() or not closes:
                blocks[-1].append((said if closes else line).removeprefix(indent))
        elif found and (not said.strip() or len(language.split()) < 2):  # not code in a sentence
            inside, indent, opened = True, "" if said.strip() else said, fence
            if not blocks and said.strip():
                before.append(said)
            blocks.append([])
        elif not blocks:
            before.append(line)
    return Split(blocks=tuple("\n".join(block) for block in blocks), before="\n".join(before))


def _code_lines(text: str) -> str:
    """Returns a text from the first line that looks like code."""
    lines = text.split("\n")
    start = next((n for n, line in enumerate(lines) if _STARTS.match(line)), len(lines))
    return "\n".join(lines[start:])


def _body_indent(prompt: str) -> str:
    """Returns the indentation of a prompt's open body: that of what stands in it, such as a
    docstring or a comment, else four spaces more than the `def`."""
    tree, lines = _parsed(prompt), prompt.rstrip().split("\n")
    last = lines[-1]
    if tree is not None and isinstance(tree.body[-1], ast.FunctionDef | ast.AsyncFunctionDef):
        last = lines[tree.body[-1].body[0].lineno - 1]
    own = last[: len(last) - len(last.lstrip())]
    return own if own and not re.match(r"\s*(?:async\s+)?def\b", last) else own + "    "


def _completed(prompt: str) -> str:
    """Returns a prompt as a program of its own: a function without a body gets an empty one."""
    if _parsed(prompt) is not None:
        return prompt.rstrip()
    return f"{prompt.rstrip()}\n{_body_indent(prompt)}pass"


# ---- syntax -------------------------------------------------------------------------------------


def _read(source: str) -> ast.Module | int:
    """Returns the tree of a program that compiles, else the line that keeps it from it (0 =
    unknown)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the model's code
            compile(source, "program.py", "exec", dont_inherit=True)
            return ast.parse(source)
    except SyntaxError as error:
        return error.lineno or 0
    except (ValueError, RecursionError, MemoryError, OverflowError):  # CPython's other refusals
        return 0


def _parsed(source: str) -> ast.Module | None:
    tree = _read(source)
    return tree if isinstance(tree, ast.Module) else None


def _own(statements: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    """Yields what stands in functions themselves: not in functions and classes inside them."""
    left: list[ast.AST] = [node for top in statements for node in ast.iter_child_nodes(top)]
    while left:
        node = left.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            left += ast.iter_child_nodes(node)


def _only_defines(block: str) -> bool:
    """Returns whether a block is functions, classes, imports and constants: nothing that does
    anything by itself."""
    tree = _parsed(block)
    kinds = ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Assign
    return tree is not None and all(isinstance(statement, kinds) for statement in tree.body)


def _defines(source: str, name: str) -> bool:
    """Returns whether the program compiles and has a function of this name, with a body, at the
    top level, or in an `if`, a `try` or the like there."""
    tree = _parsed(source)
    left: list[ast.AST] = [tree] if tree is not None else []
    while left:
        match node := left.pop():
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                if node.name == name and not all(map(_says_nothing, node.body)):
                    return True
            case ast.Assign(value=ast.Lambda()):
                if any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
                    return True
            case ast.ClassDef():
                continue
            case _:
                left += ast.iter_child_nodes(node)
    return False


def _says_nothing(statement: ast.stmt) -> bool:
    """Returns whether a statement is a docstring, `...` or `pass`."""
    match statement:
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
    return False
