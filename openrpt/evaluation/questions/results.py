"""The questions that a policy answers right, before and after fine-tuning (the paper's Table 2).

`finetune.json` of a run holds both with their errors, what was paid, and their paired difference;
each question's outcome lies beside it (`evaluation/before.parquet`, `evaluation/after.parquet`).
Errors are by question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openrpt.amounts import duration, flops
from openrpt.errors import UserError
from openrpt.evaluation.columns import Columns
from openrpt.evaluation.statistics import Difference, mean_by_document, paired_difference
from openrpt.json_files import read_json

if TYPE_CHECKING:
    from rich.console import Console


FORMAT = 1
RECORD = "finetune.json"
_MEASURES = ("accuracy", "any_right", "reward", "closed", "tokens")


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
            for name in _MEASURES
        }


def outcomes_path(run: Path, when: str) -> Path:
    """Returns the file of a run's outcomes. `when`: "before" or "after"."""
    return run / "evaluation" / f"{when}.parquet"


def read_finetuned(run: Path) -> dict[str, Any]:
    """Reads a run's `finetune.json`; empty where there is none. Raises UserError for a damaged
    one."""
    path = run / RECORD
    if not path.is_file():
        return {}
    return read_json(path, advice="delete it and run again")


def finished_record(run: Path) -> dict[str, Any]:
    """Reads a run's record. Raises UserError where it has not been fine-tuned to its end."""
    record = read_finetuned(run)
    if "after" not in record:
        raise UserError(f"{run}: no finished `openrpt finetune` stands there ({RECORD})")
    return record


def question_differences(a: AnswerResult, b: AnswerResult) -> dict[str, Difference]:
    """Returns a − b by measure, on the questions that both answered. Raises UserError if there is
    none."""
    ids, in_a, in_b = np.intersect1d(
        a.columns["question_id"], b.columns["question_id"], return_indices=True
    )
    if len(ids) == 0:
        raise UserError(
            "the runs have no question in common: fine-tune both with the same [questions]"
        )
    return {
        name: paired_difference(a.columns[name][in_a], b.columns[name][in_b], ids)
        for name in _MEASURES
    }


def print_finetuned(runs: Sequence[Path], console: "Console") -> None:
    """Prints the paper's Table 2: one row a run (two with samples), then the first against the
    others.

    Raises UserError where a run is not finished, or was measured in another way than the first.
    """
    from rich.text import Text

    from openrpt.sheets import Sheet, points, print_sheet, share

    records = [finished_record(run) for run in runs]
    first = records[0]
    for run, record in zip(runs, records, strict=True):
        if record["settings"] != first["settings"]:
            raise UserError(
                f"{run}: measured otherwise than {runs[0]} ({record['settings']}, not"
                f" {first['settings']}): fine-tune both with the same [questions] and [finetune]"
            )
    rows = []
    for record in records:
        for column, measure in measures(record["settings"]["eval_samples"]).items():
            before, after = (record[when]["summary"][column]["all"] for when in ("before", "after"))
            rows.append(
                [
                    record["model"],
                    f"{measure} (n = {after['n']:,})",
                    share(before),
                    share(after),
                    points(record["difference"][column]),
                    *_training_cells(record),
                ]
            )
    sheet = Sheet(
        title="right answers before and after fine-tuning, in %",
        headings=["start model", "measure", "before", "after", "change [95 %]", *_TRAINING],
        rows=rows,
        labels=2,
    )
    print_sheet(sheet, console)
    for run in runs[1:]:
        for when in ("before", "after"):
            found = question_differences(
                AnswerResult.load(outcomes_path(runs[0], when), advice="fine-tune again"),
                AnswerResult.load(outcomes_path(run, when), advice="fine-tune again"),
            )["accuracy"]
            console.print(
                f"{when}: {runs[0]} − {run} = {points(found.as_dict())}, {found.n} questions",
                highlight=False,
                soft_wrap=True,
            )
    spent = sum(record[when]["cost"]["flops"] for record in records for when in ("before", "after"))
    console.print(f"measuring before and after took {flops(spent)} FLOPs more", highlight=False)
    note = (
        "± is the standard error by question, [ ] an exact 95 % interval; [ ] behind a change holds"
        " 95 % of resamples of questions, paired"
    )
    console.print(Text(note, style="dim"), soft_wrap=True)


_TRAINING = ["steps", "training time", "training FLOPs"]


def _training_cells(record: dict[str, Any]) -> list[str]:
    """Returns steps, time and FLOPs of a run's `finetune.json`."""
    training = record["training"]
    return [
        f"{training['steps']:,}",
        duration(training["seconds"]),
        flops(training["flops"]),
    ]


def measures(samples: int) -> dict[str, str]:
    """Returns the name of each column for so many samples a question (0 = greedy)."""
    if samples == 0:
        return {"accuracy": "greedy"}
    if samples == 1:
        return {"accuracy": "mean@1"}
    return {"accuracy": f"mean@{samples}", "any_right": f"pass@{samples}"}
