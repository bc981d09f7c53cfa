"""Answers to end tasks: are they right?

lm-eval grades by these functions (`openrpt/evaluation/end_tasks/tasks`), whatever model it asks.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from openrpt.evaluation.end_tasks.rows import Row, right_index
from openrpt.evaluation.end_tasks.stated_choice import OUTSIDE, extract_choice
from openrpt.evaluation.questions.checks import MathChecker, extract_answer

_BOX = "\\boxed{"


def grade_letters(row: Row, results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Grades by which letter is most likely: `results` has each letter's log-likelihood."""
    said = int(np.argmax([logprob for logprob, _ in results]))
    return _measures([float(said == right_index(row))], outside=0.0, unanswered=0.0)


def grade_choices(row: Row, results: Sequence[Sequence[str]]) -> dict[str, float]:
    """Grades by what the samples of an answer say."""
    said = [extract_choice(text, row["options"]) for text in results[0]]
    return _measures(
        [float(letter == row["answer"]) for letter in said],
        outside=float(np.mean([letter == OUTSIDE for letter in said])),
        unanswered=float(np.mean([letter is None for letter in said])),
    )


def grade_short(row: Row, results: Sequence[Sequence[str]]) -> dict[str, float]:
    """Grades by the last box of each sample, compared by math-verify."""
    boxes = [extract_answer(text.encode()) for text in results[0]]
    check = math_checker()
    return _measures(
        [
            float(box is not None and check(box.decode(errors="replace"), row["answer"]))
            for box in boxes
        ],
        outside=0.0,
        unanswered=float(np.mean([box is None for box in boxes])),
    )


def grade_short_direct(row: Row, results: Sequence[Sequence[str]]) -> dict[str, float]:
    """Grades as `grade_short` does, where the box was opened for the model."""
    return grade_short(row, [[_BOX + text for text in results[0]]])


def _measures(right: list[float], *, outside: float, unanswered: float) -> dict[str, float]:
    return {
        "accuracy": float(np.mean(right)),
        "any_right": max(right),
        "outside": outside,
        "unanswered": unanswered,
    }


@lru_cache
def math_checker() -> MathChecker:
    """Returns the one checker of the process: lm-eval grades without a place to close it."""
    import atexit

    checker = MathChecker()
    atexit.register(checker.close)
    return checker


def every_sample(resps: Sequence[Sequence[str]], docs: Sequence[Row]) -> list[list[str]]:
    """Keeps all samples of each answer, where lm-eval's own filters keep the first alone."""
    return [list(samples) for samples in resps]
