"""The questions that a policy answers right, before and after fine-tuning (the paper's Table 2).

`finetune.json` of a run holds both with their errors, what was paid, and their paired difference;
each question's outcome lies beside it (`evaluation/before.parquet`, `evaluation/after.parquet`).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from openrpt.amounts import duration, flops
from openrpt.errors import UserError
from openrpt.evaluation.questions.results import MEASURES, AnswerResult, difference_on, measures
from openrpt.evaluation.statistics import Difference
from openrpt.json_files import read_json
from openrpt.sheets import Sheet, points, print_sheet, share

FORMAT = 1
RECORD = "finetune.json"
_TRAINING = ["steps", "training time", "training FLOPs"]
_WHEN = ("before", "after")


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
    found = {name: difference_on(a, b, name) for name in MEASURES}
    if not found["accuracy"].n:
        raise UserError(
            "the runs have no question in common: fine-tune both with the same [questions]"
        )
    return found


def print_finetuned(runs: Sequence[Path], console: Console) -> None:
    """Prints the paper's Table 2: one row a run (two with samples), then the first against the
    others.

    Raises UserError where a run is not finished, or was measured in another way than the first.
    """
    records = [finished_record(run) for run in runs]
    first = records[0]
    for run, record in zip(runs, records, strict=True):
        if record["settings"] != first["settings"]:
            raise UserError(
                f"{run}: measured otherwise than {runs[0]} ({record['settings']}, not"
                f" {first['settings']}): fine-tune both with the same [questions] and [finetune]"
            )
    print_sheet(_table_2(records), console)
    for line in _against_first(runs):
        console.print(line, highlight=False, soft_wrap=True)
    spent = sum(record[when]["cost"]["flops"] for record in records for when in _WHEN)
    console.print(f"measuring before and after took {flops(spent)} FLOPs more", highlight=False)
    note = (
        "± is the standard error by question, [ ] an exact 95 % interval; [ ] behind a change holds"
        " 95 % of resamples of questions, paired"
    )
    console.print(Text(note, style="dim"), soft_wrap=True)


def _table_2(records: Sequence[dict[str, Any]]) -> Sheet:
    rows = []
    for record in records:
        for column, measure in measures(record["settings"]["eval_samples"]).items():
            before, after = (record[when]["summary"][column]["all"] for when in _WHEN)
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
    return Sheet(
        title="right answers before and after fine-tuning, in %",
        headings=["start model", "measure", "before", "after", "change [95 %]", *_TRAINING],
        rows=rows,
        labels=2,
    )


def _training_cells(record: dict[str, Any]) -> list[str]:
    """Returns steps, time and FLOPs of a run's `finetune.json`."""
    training = record["training"]
    return [
        f"{training['steps']:,}",
        duration(training["seconds"]),
        flops(training["flops"]),
    ]


def _against_first(runs: Sequence[Path]) -> Iterator[str]:
    """Yields the first run's accuracy less each other's, before and after."""
    for run in runs[1:]:
        for when in _WHEN:
            found = question_differences(
                AnswerResult.load(outcomes_path(runs[0], when), advice="fine-tune again"),
                AnswerResult.load(outcomes_path(run, when), advice="fine-tune again"),
            )["accuracy"]
            yield f"{when}: {runs[0]} − {run} = {points(found.as_dict())}, {found.n} questions"
