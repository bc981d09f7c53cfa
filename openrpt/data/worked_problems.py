"""Worked word problems as a corpus: reasoning-gym's `gsm_symbolic`, made at run time.

Each of its templates is a problem in natural sentences whose numbers and names are drawn anew,
with a solution that works them out. Whole templates are held out, and of the others single
problems; the field `kind` tells them apart.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from pydantic import Field

from openrpt.config.corpus import CorpusConfig
from openrpt.config.queries import Parameters, read_parameters, split_query
from openrpt.data.splits import split_of_key
from openrpt.extras import require

WORKED_TASK = "reasoning-gym:gsm_symbolic"
TEMPLATE = "{question}\n{solution}"
"""The template of a document's text, unless corpus.template says otherwise."""
SEEN, HELD_OUT = "template seen", "template held out"
"""Kinds of documents: of a template that has training documents, of one that has none."""
_INSTRUCTION = " Give the result as your final answer. Do not include units."


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
    and where reasoning-gym is missing.
    """
    settings = read_parameters(_Settings, split_query(config.path)[1], where=config.path)
    what = f"corpus.path = '{WORKED_TASK}'"
    require("reasoning_gym", extra="reasoning-gym", what=what)
    from reasoning_gym.arithmetic.gsm_symbolic.gsm_symbolic import tasks_ok
    from reasoning_gym.factory import create_dataset

    problems = create_dataset("gsm_symbolic", seed=settings.seed, size=settings.size)
    held_out = _held_out([_name(number) for number in tasks_ok], settings.templates_heldout)
    for number, entry in enumerate(problems):
        template = _name(problems.task_indices[number])
        question = str(entry["question"]).removesuffix(_INSTRUCTION).strip()
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


def _name(number: int) -> str:
    return f"template {number}"


def _held_out(templates: list[str], share: float) -> set[str]:
    """Returns the share of templates, rounded, whose hashes are the least."""
    ordered = sorted(templates, key=lambda name: sha256(name.encode()).digest())
    return set(ordered[: round(share * len(ordered))])
