"""reasoning-gym's tasks: their questions at each level, and their own scorers of answers."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from openrpt.errors import UserError, nearest
from openrpt.extras import missing

IS_GENERATED = "reasoning-gym:"
_GYM_TASK = re.compile(r"([^@\s]+)(?:@(\d+)(?:-(\d+))?)?")
"""A task's name: `chain_sum`, `chain_sum@2` (a level of its curriculum), `chain_sum@0-3`
(several)."""
_RUNS_ANSWERS = re.compile(r"\b(?:eval|exec|parse_expr)\(")
"""Calls that run text as Python code; sympy's parse_expr does, too."""
_MALFORMED = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, SyntaxError)
"""Errors that a reasoning-gym scorer raises on an answer that it can't read: the answer is
wrong."""
_NO_ANSWER = "?"
"""A text that is the right answer of no question."""
_NAN = re.compile(r"(?<![a-z])nan(?![a-ik-z])", re.IGNORECASE)


def gym_datasets(name: str, seed: int, size: int) -> Iterator[tuple[str, Any]]:
    """Yields (task, its dataset), one a level that the name asks for.

    At a level every attribute of the task's curriculum stands at that level alone, easier ones left
    out, or at its own highest. Raises UserError as `gym_scorer`, and for a level that the task does
    not have.
    """
    match = _GYM_TASK.fullmatch(name)
    if match is None:
        raise UserError(
            f"questions.path: '{name}' is no task; write TASK, TASK@LEVEL or TASK@FIRST-LAST"
        )
    task, first, last = match.groups()
    gym_scorer(task)
    from reasoning_gym.coaching.base_curriculum import DefaultCurriculumContext, RangeAttributeMode
    from reasoning_gym.factory import create_curriculum, create_dataset, has_curriculum

    if first is None:
        yield task, create_dataset(task, seed=seed, size=size)
        return
    if not has_curriculum(task):
        raise UserError(f"questions.path: reasoning-gym's task '{task}' has no levels")
    curriculum = create_curriculum(task)
    highest = {name: len(a.levels) - 1 for name, a in curriculum.attributes.items()}
    levels = range(int(first), int(last or first) + 1)
    if not levels or levels[-1] > max(highest.values()):
        raise UserError(
            f"questions.path: '{name}': reasoning-gym's task '{task}' has the levels 0 to"
            f" {max(highest.values())}"
        )
    alone = DefaultCurriculumContext(mode=RangeAttributeMode.UPPER_BOUND)
    for level in levels:
        for attribute, top in highest.items():
            curriculum.set_attr_level(attribute, min(level, top))
        made = curriculum.generate_configuration({"seed": seed, "size": size}, context=alone)
        settings = {f.name: getattr(made, f.name) for f in dataclasses.fields(made) if f.init}
        yield f"{task}@{level}", create_dataset(task, **settings)


@lru_cache
def gym_scorer(task: str) -> Callable[[str, Mapping[str, Any]], float]:
    """Returns the `score_answer` of a task (of any level): answer and entry → 0 to 1.

    Raises UserError where reasoning-gym is missing, for an unknown task (the nearest is named), and
    for a task whose scorer runs answers as code.
    """
    try:
        from reasoning_gym.factory import DATASETS, get_score_answer_fn
    except ImportError:
        what = f"questions.path = '{IS_GENERATED}{task}'"
        raise missing("reasoning-gym", extra="reasoning-gym", what=what) from None
    task = task.partition("@")[0]
    if task not in DATASETS:
        hint = nearest(task, DATASETS)
        raise UserError(f"questions.path: reasoning-gym has no task '{task}'{hint}")
    try:
        score_answer = get_score_answer_fn(task)
    except AssertionError as error:  # it is made of others that have to be named
        raise UserError(
            f"questions.path: reasoning-gym's task '{task}' can't be had by its name alone"
            f" ({error}); choose another task"
        ) from None
    if _RUNS_ANSWERS.search(inspect.getsource(score_answer)):
        raise UserError(
            f"questions.path: reasoning-gym's task '{task}' runs a model's answers as Python code"
            " to score them, which OpenRPT does not allow; choose another task"
        )
    return score_answer


def gym_score(task: str, answer: str, entry: Mapping[str, Any]) -> float:
    """Returns what a task's own scorer gives an answer, 0 to 1; 0 for one that it can't read, and
    for NaN, which scorers by distance call right, since min(1, nan) is 1."""
    if _NAN.search(answer) and not _NAN.search(str(entry["answer"])):
        return 0.0
    try:
        return float(gym_scorer(task)(answer, entry))
    except _MALFORMED:
        return 0.0


def require_verdicts(task: str, entry: Mapping[str, Any]) -> None:
    """Checks that a task's scorer tells right from wrong. That of game_of_life_halting gives full
    marks to any text, "False" too. Raises UserError."""
    if gym_score(task, _NO_ANSWER, entry) >= 1:
        raise UserError(
            f"questions.path: reasoning-gym's task '{task}' calls every answer right; choose"
            " another task"
        )
