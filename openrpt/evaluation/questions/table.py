"""Answers of several models as people read them: right answers by task and level, and paired
differences."""

from collections.abc import Sequence
from typing import Any

from openrpt.config.sections import Config
from openrpt.evaluation.instrument import Measured, models_of
from openrpt.evaluation.questions.checks import check_kind
from openrpt.evaluation.questions.results import ALL, AnswerResult, difference_on, inside, measures
from openrpt.evaluation.reports import Report
from openrpt.evaluation.statistics import Estimate, mean_by_document
from openrpt.sheets import Sheet, cost_cells, percent, points, share


def question_report(measured: Sequence[Measured[AnswerResult]], config: Config) -> Report:
    """Returns a sheet a measure, with a row a part and model, and one of what answering took."""
    return Report(
        name="questions",
        about={
            "questions": config.questions.model_dump(),
            "check": check_kind(config),
            "against": measured[0].model.label,
        },
        models=models_of(measured),
        rows=_question_rows(measured, config.finetune.eval_samples),
        sheets=_sheets(measured, config.finetune.eval_samples),
    )


def question_parts(result: AnswerResult) -> list[str]:
    """Returns the parts: all, each task, and under a task each of its levels, where questions have
    one."""
    tasks = sorted(set(result.columns["task"].astype(str).tolist()) - {""}, key=_by_level)
    families = [(task.partition("@")[0], task) for task in tasks]
    return list(dict.fromkeys([ALL, *(part for pair in families for part in pair)]))


def _by_level(task: str) -> tuple[str, int]:
    family, _, level = task.partition("@")
    return family, int(level or -1)


def _accuracy(result: AnswerResult, measure: str, part: str) -> Estimate:
    """Returns a measure's mean over the questions of a part, its error by question."""
    chosen = inside(result, part)
    return mean_by_document(result.columns[measure][chosen], result.columns["question_id"][chosen])


def _question_rows(
    measured: Sequence[Measured[AnswerResult]], samples: int
) -> list[dict[str, Any]]:
    """Returns a row a part, measure and model; differences are to the first model."""
    first = measured[0]
    rows = []
    for part in question_parts(first.result):
        for measure, name in measures(samples).items():
            for one in measured:
                difference = difference_on(one.result, first.result, measure, part).as_dict()
                rows.append(
                    {
                        "part": part,
                        "measure": name,
                        "model": one.model.label,
                        **_accuracy(one.result, measure, part).as_dict(),
                        "closed": _accuracy(one.result, "closed", part).value,
                        **{
                            f"difference_{key}": difference[key]
                            for key in ("value", "low", "high", "p", "distinguishable")
                        },
                    }
                )
    return rows


def _sheets(measured: Sequence[Measured[AnswerResult]], samples: int) -> list[Sheet]:
    named = measures(samples).items()
    return [*(_right(measured, measure, name) for measure, name in named), _costs(measured)]


def _right(measured: Sequence[Measured[AnswerResult]], measure: str, name: str) -> Sheet:
    """Returns a row a part and model: right answers, and the difference to the first model."""
    first = measured[0]
    rows, ends = [], set()
    for part in question_parts(first.result):
        n = _accuracy(first.result, measure, part).n
        title = f"{part} (n = {n:,})"
        for one in measured:
            right = share(_accuracy(one.result, measure, part).as_dict())
            difference = difference_on(one.result, first.result, measure, part)
            compared = "" if one is first else points(difference.as_dict())
            rows.append([title if one is first else "", one.model.label, right, compared])
        ends.add(len(rows) - 1)
    headings = ["questions", "model", "right"]
    if len(measured) > 1:
        headings.append(f"− {first.model.label} [95 %]")
    return Sheet(
        title=f"right answers, {name}, in %",
        headings=headings,
        rows=[row[: len(headings)] for row in rows],
        labels=2,
        ends=ends,
        notes=[
            "± is the standard error by question, [ ] an exact 95 % interval; [ ] behind a"
            " difference holds 95 % of resamples of questions, paired"
        ],
    )


def _costs(measured: Sequence[Measured[AnswerResult]]) -> Sheet:
    rows = [
        [
            one.model.label,
            percent(_accuracy(one.result, "closed", ALL).as_dict()),
            *cost_cells(one.result.cost),
        ]
        for one in measured
    ]
    return Sheet(title="", headings=["model", "gave an answer", "FLOPs", "time"], rows=rows)
