"""The outcomes of end tasks: a row a question from what lm-eval logs, and what they come to."""

from collections.abc import Mapping, Sequence
from string import ascii_uppercase as LETTERS
from typing import Any

import numpy as np

from openrpt.config.sections import Config
from openrpt.errors import UserError
from openrpt.evaluation.end_tasks.answer_book import Answer
from openrpt.evaluation.statistics import estimates_by, mean_by_document, mean_of_means

_MEASURES = ("accuracy", "any_right", "outside", "unanswered", "tokens", "closed")


def asked_of(sample: Mapping[str, Any]) -> tuple[str, int]:
    """Returns the question of a sample: its task, and its number there."""
    return sample["task"], sample["doc_id"]


def outcome_columns(
    samples: Sequence[Mapping[str, Any]], given: Mapping[tuple[str, int], Sequence[Answer]]
) -> dict[str, np.ndarray]:
    """Returns columns with a row a question, from what lm-eval logs. Raises UserError where a
    task's measure is no accuracy."""
    rows = []
    for sample in samples:
        doc, answers = sample["doc"], given[asked_of(sample)]
        measure = "accuracy" if "accuracy" in sample else next(iter(sample["metrics"]))
        value = sample[measure]
        if not isinstance(value, int | float | np.number):
            raise UserError(f"{sample['task']}: its measure '{measure}' is no accuracy")
        lengths = [n for answer in answers for n in answer.lengths]
        closed = [end for answer in answers for end in answer.closed]
        said = [text for answer in answers for text in answer.texts]
        if not said:  # the letters' likelihoods, or those of other texts
            likely = int(np.argmax([lp for answer in answers for lp, _ in answer.logprobs]))
            said = [LETTERS[likely] if likely < len(LETTERS) else str(likely)]
        rows.append(
            {
                "question_id": str(doc.get("question_id") or sample["doc_hash"][:16]),
                "category": str(doc.get("category") or sample["task"]),
                "difficulty": str(doc.get("difficulty") or ""),
                "accuracy": float(value),
                "any_right": float(sample.get("any_right", value)),
                "outside": float(sample.get("outside", 0.0)),
                "unanswered": float(sample.get("unanswered", 0.0)),
                "tokens": float(np.mean(lengths)) if lengths else 0.0,
                "closed": float(np.mean(closed)) if closed else 0.0,
                "answer": said[0],
            }
        )
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def summarise(columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns every measure over all questions, accuracy by category and difficulty, and the mean
    of the categories (what the paper calls overall)."""
    ids, right = columns["question_id"], columns["accuracy"]
    categories = estimates_by(right, columns["category"], ids)
    return {
        "measures": {n: mean_by_document(columns[n], ids).as_dict() for n in _MEASURES},
        "categories": categories,
        "difficulties": estimates_by(right, columns["difficulty"], ids),
        "mean_of_categories": mean_of_means(list(categories.values())),
    }


def mode_name(mode: str, config: Config, *, generates: bool) -> str:
    """Returns the mode's name, `direct`, `think 256`, `think 256, 8 samples`: what makes results
    comparable."""
    settings = config.zeroshot
    name = f"think {settings.think_budget}" if mode == "think" else mode
    return f"{name}, {settings.samples} samples" if settings.samples and generates else name


def settings_of(mode: str, config: Config) -> dict[str, Any]:
    """Returns the settings that the record keeps with a mode's results."""
    settings = config.zeroshot
    found = {"questions_per_category": settings.questions_per_category, "seed": config.seed}
    if mode == "think":
        found["think_budget"] = settings.think_budget
    return found | {
        name: getattr(settings, name) for name in ("answer_budget", "samples", "temperature")
    }
