r"""Answers to end tasks: what a text ends up saying, and whether that is right.

lm-eval grades by these functions (`openrpt/integrations/lm_eval/tasks`), whatever model it asks.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_uppercase as LETTERS

import numpy as np

from openrpt.answers import MathChecker, extract_answer, normalised
from openrpt.evaluation.zero_shot_questions import Row, right_index

OUTSIDE = "outside"
"""In place of a letter: an answer was given, and it is none of the options."""
BOX = "\\boxed{"
_SAID = re.compile(r"[Aa]nswer\s*(?:is|:)\s*[*_$]*\(?([A-Z])\b")
_LETTER = re.compile(r"\(?([A-Z])\)?(?:[.):]\s.*)?", re.DOTALL)
_FIRST = re.compile(r"\s*\**\(?([A-Z])(?:[.):*]|\s*$)")


def extract_choice(text: str, options: Sequence[str]) -> str | None:
    r"""The letter that a text ends up with; OUTSIDE for an answer that is none of the options,
    None for no answer.

    What stands in the last `\boxed{…}` counts: a letter, or an option's own text. Without a box,
    the last `answer is X` or `answer: X`; else a letter that the text begins with (`B. …`).

    >>> extract_choice("so it is \\boxed{(B)}", ["one", "two"])
    'B'
    >>> extract_choice("The answer is (D).", ["one", "two"])
    'outside'
    >>> extract_choice("\\boxed{two}", ["one", "two"]), extract_choice("A hard one", ["one", "two"])
    ('B', None)
    """
    boxed = extract_answer(text.encode())
    text = text.rpartition("</think>")[2]
    if boxed is not None:
        return _letter_of(normalised(boxed.decode(errors="replace")), options)
    said = _SAID.findall(text)
    if said:
        return _letter_of(said[-1], options)
    first = _FIRST.match(text)
    return _letter_of(first[1], options) if first else None


def _letter_of(said: str, options: Sequence[str]) -> str:
    known = LETTERS[: len(options)]
    match = _LETTER.fullmatch(said)
    if match and match[1] in known:
        return match[1]
    same = [letter for letter, o in zip(known, options, strict=True) if normalised(o) == said]
    if len(same) == 1:
        return same[0]
    match = _LETTER.fullmatch(said.upper()) if len(said) <= 3 else None
    return match[1] if match and match[1] in known else OUTSIDE


def grade_letters(row: Row, results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """By which letter is most likely: `results` has each letter's log-likelihood."""
    said = int(np.argmax([logprob for logprob, _ in results]))
    return _measures([float(said == right_index(row))], outside=0.0, unanswered=0.0)


def grade_choices(row: Row, results: Sequence[Sequence[str]]) -> dict[str, float]:
    """By what the samples of an answer say."""
    said = [extract_choice(text, row["options"]) for text in results[0]]
    return _measures(
        [float(letter == row["answer"]) for letter in said],
        outside=float(np.mean([letter == OUTSIDE for letter in said])),
        unanswered=float(np.mean([letter is None for letter in said])),
    )


def grade_short(row: Row, results: Sequence[Sequence[str]]) -> dict[str, float]:
    """By the last box of each sample, compared by math-verify."""
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
    """As `grade_short`, where the box was opened for the model."""
    return grade_short(row, [[BOX + text for text in results[0]]])


def _measures(right: list[float], *, outside: float, unanswered: float) -> dict[str, float]:
    return {
        "accuracy": float(np.mean(right)),
        "any_right": max(right),
        "outside": outside,
        "unanswered": unanswered,
    }


@lru_cache
def math_checker() -> MathChecker:
    """One for the process: lm-eval grades without a place to close it."""
    import atexit

    checker = MathChecker()
    atexit.register(checker.close)
    return checker


def every_sample(
    resps: Sequence[Sequence[str]], docs: Sequence[Row]
) -> list[list[str]]:  # lm-eval's own filters keep the first sample only
    return [list(samples) for samples in resps]
