"""What end tasks gave, as people read it: the paper's Table 3 (models by tasks), and its Tables 6
and 7 (categories by models), turned so that errors fit in."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from openrpt.evaluation.end_tasks.zero_shot import RECORD, outcome_path
from openrpt.evaluation.questions.results import AnswerResult
from openrpt.evaluation.records import read_models
from openrpt.evaluation.statistics import paired_difference
from openrpt.runs.run import Run
from openrpt.sheets import cost_cells, percent, points

Line = tuple[str, str]
"""(label, mode)"""
Models = dict[str, dict[str, dict[str, Any]]]
"""label → task → mode → outcome, as `zero_shot` gives it."""
NOTE = (
    "accuracy in %; ± is the standard error by question. FLOPs and time are those of answering;"
    " outside: answers that are none of the options, unanswered: no answer found; both are wrong"
)


def print_zero_shot(run: Run, console: Console, *, labels: Sequence[str] = ()) -> None:
    """All that a run's `zero_shot.json` holds (or of these models): the overview, each task by
    category and difficulty, and paired differences. Markdown, so that it can be pasted."""
    stored = read_models(run.path / RECORD)
    models: Models = {label: {} for label in labels or stored}
    for label, modes in models.items():
        for outcome in stored[label].values():
            modes.setdefault(outcome["task"], {})[outcome["mode"]] = outcome
    tasks = list(dict.fromkeys(task for found in models.values() for task in found))
    console.print(overview(models, tasks))
    for task in tasks:
        for name in ("categories", "difficulties"):
            parts = by_part(models, task, name)
            if parts is not None:
                console.print(parts)
    for line in difference_lines(run, models, tasks):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(NOTE, style="dim"), soft_wrap=True)


def lines_of(models: Models, tasks: Sequence[str]) -> list[Line]:
    """Models in their order, each with its modes."""
    return list(
        dict.fromkeys(
            (label, mode)
            for label, found in models.items()
            for task in tasks
            for mode in found.get(task, {})
        )
    )


def overview(models: Models, tasks: Sequence[str]) -> Table:
    """A row a model and mode, a column a task, and what all of them together cost."""
    table = _table("end tasks")
    for name in ("model", "mode"):
        table.add_column(name)
    for name in (*tasks, "FLOPs", "time"):
        table.add_column(name, justify="right")
    for label, mode in lines_of(models, tasks):
        found = [models[label].get(task, {}).get(mode) for task in tasks]
        cells = [with_n(one["summary"]["measures"]["accuracy"]) if one else "–" for one in found]
        costs = [one["cost"] for one in found if one]
        total = {name: sum(cost[name] for cost in costs) for name in ("flops", "seconds")}
        table.add_row(label, mode, *cells, *cost_cells(total))
    return table


def by_part(models: Models, task: str, name: str) -> Table | None:
    """A row a category (or difficulty), a column a model and mode; None where there are none."""
    lines = lines_of(models, [task])
    found = {line: models[line[0]][task][line[1]] for line in lines}
    parts = sorted({part for one in found.values() for part in one["summary"][name]})
    if len(parts) < 2:
        return None
    table = _table(f"{task} by {'category' if name == 'categories' else 'difficulty'}")
    table.add_column("")
    for label, mode in lines:
        table.add_column(f"{label}, {mode}", justify="right")
    for part in parts:
        cells = [one["summary"][name].get(part) for one in found.values()]
        table.add_row(part, *(with_n(cell) if cell else "–" for cell in cells))
    if name == "categories":
        for title, cells in _bottom(list(found.values())):
            table.add_row(title, *cells)
    return table


def _bottom(found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """What stands below the categories."""
    summaries = [one["summary"] for one in found]
    yield "mean of categories", [percent(s["mean_of_categories"]) for s in summaries]
    yield "all questions", [with_n(s["measures"]["accuracy"]) for s in summaries]
    for name in ("outside", "unanswered"):
        yield name, [percent(s["measures"][name]) for s in summaries]
    if any(one["settings"]["samples"] for one in found):
        yield "any sample right", [percent(s["measures"]["any_right"]) for s in summaries]
    yield (
        "tokens a completion",
        [f"{s['measures']['tokens']['value']:.0f}" for s in summaries],
    )
    for place, name in enumerate(("FLOPs", "time")):
        yield name, [cost_cells(one["cost"])[place] for one in found]


def difference_lines(run: Run, models: Models, tasks: Sequence[str]) -> Iterator[str]:
    """Paired, on common questions: each think mode against direct, each model against the first."""
    first = next(iter(models))
    for task in tasks:
        for label, mode in lines_of(models, [task]):
            if mode != "direct" and "direct" in models[label][task]:
                yield _difference(run, task, (label, mode), (label, "direct"))
            if label != first and mode in models[first].get(task, {}):
                yield _difference(run, task, (label, mode), (first, mode))


def _difference(run: Run, task: str, a: Line, b: Line) -> str:
    one, other = (
        AnswerResult.load(outcome_path(run.path, label, task, mode)).columns
        for label, mode in (a, b)
    )
    ids, in_a, in_b = np.intersect1d(one["question_id"], other["question_id"], return_indices=True)
    if not len(ids):
        return f"{task}: {', '.join(a)} and {', '.join(b)} have no question in common"
    found = paired_difference(one["accuracy"][in_a], other["accuracy"][in_b], ids)
    verdict = "" if found.distinguishable else ", not distinguishable"
    return (
        f"{task}: {', '.join(a)} − {', '.join(b)} = {points(found.as_dict())} points,"
        f" {found.n} questions{verdict}"
    )


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.MARKDOWN)


def with_n(estimate: Mapping[str, Any]) -> str:
    """`52.9 ± 1.6 (140)`: n in brackets."""
    return f"{percent(dict(estimate)).removesuffix(' %')} ({estimate['n']:,})"
