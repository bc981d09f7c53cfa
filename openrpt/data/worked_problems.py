"""Worked word problems as a corpus: reasoning-gym's `gsm_symbolic`, made at run time.

Each of its templates is a problem in natural sentences whose numbers and names are drawn anew,
with a solution that works them out. Whole templates are held out, and of the others single
problems; the field `kind` tells them apart.

reasoning-gym is not installed for it (it needs eleven other packages, and these files none of
them): its four source files are taken from the package index (`assets.py`).
"""

import ast
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

from pydantic import Field

from openrpt.config.corpus import CorpusConfig
from openrpt.config.queries import Parameters, read_parameters, split_query
from openrpt.data.assets import worked_problem_files
from openrpt.data.splits import split_of_key

WORKED_TASK = "reasoning-gym:gsm_symbolic"
TEMPLATE = "{question}\n{solution}"
"""The template of a document's text, unless corpus.template says otherwise."""
SEEN, HELD_OUT = "template seen", "template held out"
"""Kinds of documents: of a template that has training documents, of one that has none."""
_Template = Callable[[Random, float], dict[str, Any]]
_DIFFICULTY = 1.0  # the one that there is


class _Settings(Parameters):
    """The parameters that may follow a `?`."""

    size: int = Field(2000, ge=1, le=1_000_000, description="Documents")
    seed: int = Field(0, ge=0, description="Seed of their numbers and names")
    templates_heldout: float = Field(0.2, ge=0, lt=1, description="Share of templates held out")


def is_worked_problems(path: str) -> bool:
    """Returns whether a corpus path names the worked problems, with or without parameters."""
    return path.partition("?")[0] == WORKED_TASK


def worked_problems(config: CorpusConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (source, fields): question, solution, answer, template, split, kind.

    The solution ends with `#### ANSWER`, as GSM8K's do. Which templates are held out depends on
    their names alone, so that corpora of other seeds and sizes hold out the same; the split of the
    other documents is by a hash of the question. Raises UserError for a setting that isn't one,
    and where reasoning-gym's files can't be had.
    """
    settings = read_parameters(_Settings, split_query(config.path)[1], where=config.path)
    templates = _templates()
    held_out = _held_out([_name(number) for number in templates], settings.templates_heldout)
    # As reasoning-gym draws: templates by the seed, each problem by the seed and its number.
    chosen = Random(settings.seed).choices(list(templates), k=settings.size)
    for number, index in enumerate(chosen):
        entry = templates[index](Random(settings.seed + number), _DIFFICULTY)
        template = _name(index)
        question = str(entry["question"]).strip()
        is_seen = template not in held_out
        yield (
            f"{WORKED_TASK}:{number}",
            {
                "question": question,
                "solution": str(entry["metadata"]["answer_cot"]).strip(),
                "answer": str(entry["answer"]),
                "template": template,
                "split": split_of_key(question, config) if is_seen else "heldout",
                "kind": SEEN if is_seen else HELD_OUT,
            },
        )


@lru_cache(maxsize=1)
def _templates() -> dict[int, _Template]:
    """Returns the templates that reasoning-gym uses, by number. Raises UserError."""
    utils, listing, *generators = worked_problem_files()
    with _as_package("reasoning_gym", {"utils": utils}):
        modules = [_module(path.stem, path) for path in generators]
    return {
        number: template
        for number in _used(listing)
        for module in modules
        if (template := vars(module).get(f"generate_{number}")) is not None
    }


def _used(listing: Path) -> list[int]:
    """Returns the numbers in `tasks_ok = [...]`: the file itself would import the package."""
    for node in ast.parse(listing.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="tasks_ok")], value=value):
                return list(ast.literal_eval(value))
    raise AssertionError(f"no tasks_ok in {listing}, whose SHA-256 was right")


@contextmanager
def _as_package(name: str, files: dict[str, Path]) -> Iterator[None]:
    """Lets `from NAME.FILE import …` find the files meanwhile, whether or not NAME is installed."""
    before = {key: sys.modules[key] for key in sys.modules if key.partition(".")[0] == name}
    try:
        sys.modules[name] = ModuleType(name)
        for stem, path in files.items():
            sys.modules[f"{name}.{stem}"] = _module(stem, path)
        yield
    finally:
        for key in [key for key in sys.modules if key.partition(".")[0] == name]:
            del sys.modules[key]
        sys.modules.update(before)


def _module(name: str, path: Path) -> ModuleType:
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _name(number: int) -> str:
    return f"template {number}"


def _held_out(templates: list[str], share: float) -> set[str]:
    """Returns the share of templates, rounded, whose hashes are the least."""
    ordered = sorted(templates, key=lambda name: sha256(name.encode()).digest())
    return set(ordered[: round(share * len(ordered))])
