"""How a model answered a set of questions, and how two did on the same ones. Errors are by
question."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from openrpt.evaluation.columns import Columns
from openrpt.evaluation.statistics import Difference, mean_by_document, paired_difference

MEASURES = ("accuracy", "any_right", "reward", "closed", "tokens")
ALL = "all"
"""The part that every question is of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AnswerResult(Columns):
    """A model on a set of questions. With samples, means over a question's samples.

    Columns, a value a question: `question_id`, `task`, `accuracy` (share of right answers:
    mean@k), `any_right` (pass@k), `reward`, `closed` (share with an answer), `tokens` (a
    completion's, in the mean), `answer` (the first sample's).
    """

    @property
    def num_questions(self) -> int:
        """The number of questions asked."""
        return len(self.columns["question_id"])

    def accuracy(self) -> float:
        """Returns the share of right answers."""
        return float(self.columns["accuracy"].mean())

    def summary(self) -> dict[str, Any]:
        """Returns, by measure, over all questions and over each task: value, standard_error, n."""
        ids, tasks = self.columns["question_id"], self.columns["task"]
        slices = {"all": np.ones(len(ids), dtype=bool)}
        slices |= {str(task): tasks == task for task in np.unique(tasks) if task}
        return {
            name: {
                part: mean_by_document(self.columns[name][inside], ids[inside]).as_dict()
                for part, inside in slices.items()
            }
            for name in MEASURES
        }


def inside(result: AnswerResult, part: str) -> np.ndarray:
    """Returns [n] which questions are of a part: all, a task with its levels, or one level."""
    if part == ALL:
        return np.ones(result.num_questions, dtype=bool)
    tasks = result.columns["task"].astype(str).tolist()
    return np.array([part in (task, task.partition("@")[0]) for task in tasks])


def difference_on(a: AnswerResult, b: AnswerResult, measure: str, part: str = ALL) -> Difference:
    """Returns a − b on the questions of a part that both answered; n = 0 where there are
    none."""
    ids_a, ids_b = (r.columns["question_id"][inside(r, part)] for r in (a, b))
    values_a, values_b = (r.columns[measure][inside(r, part)] for r in (a, b))
    ids, in_a, in_b = np.intersect1d(ids_a, ids_b, return_indices=True)
    return paired_difference(values_a[in_a], values_b[in_b], ids)


def measures(samples: int) -> dict[str, str]:
    """Returns the name of each column for so many samples a question (0 = greedy)."""
    if samples == 0:
        return {"accuracy": "greedy"}
    if samples == 1:
        return {"accuracy": "mean@1"}
    return {"accuracy": f"mean@{samples}", "any_right": f"pass@{samples}"}
