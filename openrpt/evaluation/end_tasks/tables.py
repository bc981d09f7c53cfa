"""The results of end tasks as people read them: the paper's Table 3 (models by tasks), and its
Tables 6 and 7 (categories by models), turned so that errors fit in."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from openrpt.amounts import count
from openrpt.evaluation.end_tasks.zero_shot import RECORD, outcome_path
from openrpt.evaluation.questions.results import AnswerResult, difference_on
from openrpt.evaluation.records import read_models
from openrpt.runs.run import Run
from openrpt.sheets import (
    NOTHING,
    Sheet,
    cost_cells,
    percent,
    points,
    print_sheet,
    share_with_n,
)

_Line = tuple[str, str]
"""A line of results: (label, mode)."""
_Models = dict[str, dict[str, dict[str, Any]]]
"""Outcomes by label, task and mode, as `zero_shot` gives them."""
_NOTE = (
    "accuracy in %; ± is the standard error by question. FLOPs and time are those of answering;"
    " outside: answers that are none of the options, unanswered: no answer found; both are wrong"
)


def print_zero_shot(run: Run, console: Console) -> None:
    """Prints all that a run's `zero_shot.json` holds: the overview, each task by category and
    difficulty, and paired differences. Its tables can be pasted as markdown."""
    models = _read_outcomes(run)
    tasks = list(dict.fromkeys(task for found in models.values() for task in found))
    for sheet in _zero_shot_sheets(models, tasks):
        print_sheet(sheet, console, pasted=True)
    for line in _difference_lines(run, models, tasks):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(_NOTE, style="dim"), soft_wrap=True)


def _read_outcomes(run: Run) -> _Models:
    """Reads what the run's record holds, by model, task and mode."""
    models: _Models = {}
    for label, outcomes in read_models(run.path / RECORD).items():
        tasks = models.setdefault(label, {})
        for outcome in outcomes.values():
            tasks.setdefault(outcome["task"], {})[outcome["mode"]] = outcome
    return models


def _zero_shot_sheets(models: _Models, tasks: Sequence[str]) -> list[Sheet]:
    """Returns the overview, then each task by category and by difficulty where it has several."""
    parts = [_by_part(models, task, n) for task in tasks for n in ("categories", "difficulties")]
    return [_overview(models, tasks), *(sheet for sheet in parts if sheet is not None)]


def _lines_of(models: _Models, tasks: Sequence[str]) -> list[_Line]:
    """Returns the models in their order, each with its modes."""
    return list(
        dict.fromkeys(
            (label, mode)
            for label, found in models.items()
            for task in tasks
            for mode in found.get(task, {})
        )
    )


def _overview(models: _Models, tasks: Sequence[str]) -> Sheet:
    """Returns a row a model and mode, a column a task, and what all of them together cost."""
    rows = []
    for label, mode in _lines_of(models, tasks):
        found = [models[label].get(task, {}).get(mode) for task in tasks]
        cells = [
            share_with_n(one["summary"]["measures"]["accuracy"]) if one else NOTHING
            for one in found
        ]
        costs = [one["cost"] for one in found if one]
        total = {name: sum(cost[name] for cost in costs) for name in ("flops", "seconds")}
        rows.append([label, mode, *cells, *cost_cells(total)])
    return Sheet(
        title="end tasks",
        headings=["model", "mode", *tasks, "FLOPs", "time"],
        rows=rows,
        labels=2,
    )


def _by_part(models: _Models, task: str, name: str) -> Sheet | None:
    """Returns a row a category (or difficulty), a column a model and mode; None where there are
    none."""
    lines = _lines_of(models, [task])
    found = [models[label][task][mode] for label, mode in lines]
    parts = sorted({part for one in found for part in one["summary"][name]})
    if len(parts) < 2:
        return None
    rows = []
    for part in parts:
        cells = [one["summary"][name].get(part) for one in found]
        rows.append([part, *(share_with_n(cell) if cell else NOTHING for cell in cells)])
    if name == "categories":
        rows += _bottom(found)
    return Sheet(
        title=f"{task} by {'category' if name == 'categories' else 'difficulty'}",
        headings=["", *(f"{label}, {mode}" for label, mode in lines)],
        rows=rows,
    )


def _bottom(found: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Yields the rows below the categories."""
    summaries = [one["summary"] for one in found]
    measures = [summary["measures"] for summary in summaries]
    yield ["mean of categories", *(percent(s["mean_of_categories"]) for s in summaries)]
    yield ["all questions", *(share_with_n(m["accuracy"]) for m in measures)]
    for name in ("outside", "unanswered"):
        yield [name, *(percent(m[name]) for m in measures)]
    if any(one["settings"]["samples"] for one in found):
        yield ["any sample right", *(percent(m["any_right"]) for m in measures)]
    yield ["tokens a completion", *(count(m["tokens"]["value"]) for m in measures)]
    costs = [cost_cells(one["cost"]) for one in found]
    yield ["FLOPs", *(flops for flops, _ in costs)]
    yield ["time", *(time for _, time in costs)]


def _difference_lines(run: Run, models: _Models, tasks: Sequence[str]) -> Iterator[str]:
    """Yields paired differences on common questions: each think mode against direct, each model
    against the first."""
    first = next(iter(models))
    for task in tasks:
        for label, mode in _lines_of(models, [task]):
            if mode != "direct" and "direct" in models[label][task]:
                yield _difference(run, task, (label, mode), (label, "direct"))
            if label != first and mode in models[first].get(task, {}):
                yield _difference(run, task, (label, mode), (first, mode))


def _difference(run: Run, task: str, a: _Line, b: _Line) -> str:
    one, other = (
        AnswerResult.load(outcome_path(run.path, label, task, mode)) for label, mode in (a, b)
    )
    found = difference_on(one, other, "accuracy")
    if not found.n:
        return f"{task}: {', '.join(a)} and {', '.join(b)} have no question in common"
    verdict = "" if found.distinguishable else ", not distinguishable"
    return (
        f"{task}: {', '.join(a)} − {', '.join(b)} = {points(found.as_dict())} points,"
        f" {count(found.n)} questions{verdict}"
    )
