"""Worked word problems as a corpus: reasoning-gym's `gsm_symbolic`, made at run time.

Each of its templates is a problem in natural sentences whose numbers and names are drawn anew,
with a solution that works them out. Whole templates are held out, and of the others single
problems; the field `kind` tells them apart.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl

from openrpt.config.corpus import CorpusConfig
from openrpt.data.splits import split_of_key
from openrpt.errors import UserError
from openrpt.extras import require

WORKED_TASK = "reasoning-gym:gsm_symbolic"
TEMPLATE = "{question}\n{solution}"
"""What the text of a document is, unless corpus.template says otherwise."""
SEEN, HELD_OUT = "template seen", "template held out"
"""Kinds of documents: of a template that has training documents, of one that has none."""
_INSTRUCTION = " Give the result as your final answer. Do not include units."
_SETTINGS = {"size": 2000.0, "seed": 0.0, "templates_heldout": 0.2}
"""What may follow a `?`: documents, the seed of their numbers, the share of templates held out."""


def is_worked_problems(path: str) -> bool:
    return path.partition("?")[0] == WORKED_TASK


def worked_problems(config: CorpusConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (source, fields): question, solution, answer, template, split, kind.

    The solution ends with `#### ANSWER`, as GSM8K's do. Which templates are held out depends on
    their names alone, so that corpora of other seeds and sizes hold out the same; the split of the
    other documents is by a hash of the question. Raises UserError for a setting that isn't one,
    and where reasoning-gym is missing.
    """
    settings = _settings(config.path)
    what = f"corpus.path = '{WORKED_TASK}'"
    require("reasoning_gym", extra="reasoning-gym", what=what)
    from reasoning_gym.arithmetic.gsm_symbolic.gsm_symbolic import tasks_ok
    from reasoning_gym.factory import create_dataset

    size, seed = int(settings["size"]), int(settings["seed"])
    problems = create_dataset("gsm_symbolic", seed=seed, size=size)
    held_out = _held_out([_name(number) for number in tasks_ok], settings["templates_heldout"])
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
    """The share of templates, rounded, whose hashes are the least."""
    ordered = sorted(templates, key=lambda name: sha256(name.encode()).digest())
    return set(ordered[: round(share * len(ordered))])


def _settings(path: str) -> dict[str, float]:
    given = parse_qsl(path.partition("?")[2], keep_blank_values=True)
    settings = dict(_SETTINGS)
    for name, text in given:
        if name not in settings:
            raise UserError(f"{path}: '{name}' is no setting; there are: {', '.join(settings)}")
        try:
            settings[name] = float(text) if name == "templates_heldout" else int(text)
        except ValueError:
            raise UserError(f"{path}: {name} = '{text}' is no number") from None
    if not (settings["size"] >= 1 and settings["seed"] >= 0):
        raise UserError(f"{path}: size must be at least 1, and seed at least 0")
    if not 0 <= settings["templates_heldout"] < 1:
        raise UserError(f"{path}: templates_heldout must be at least 0 and below 1")
    return settings
