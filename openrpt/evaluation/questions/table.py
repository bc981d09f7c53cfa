"""Questions with known answers, put to several models: no training, right answers by task and
level, paired differences, JSON and CSV."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openrpt.config.loading import finetune_config
from openrpt.config.sections import Config
from openrpt.data.questions import Question, QuestionCounts, read_questions
from openrpt.engine.engine import Engine, open_engine
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.evaluation.models import NamedModel, fingerprint
from openrpt.evaluation.questions.checks import Check, MathChecker, check_kind, checker_of
from openrpt.evaluation.questions.results import AnswerResult, measures
from openrpt.evaluation.questions.task import answer_questions, question_task
from openrpt.evaluation.statistics import Difference, Estimate, mean_by_document, paired_difference
from openrpt.files import csv_text, json_text, read_as, write_sealed, write_text
from openrpt.progress import SILENT, Progress

if TYPE_CHECKING:
    from rich.console import Console


FORMAT = 1
ALL = "all"


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    model: NamedModel
    result: AnswerResult
    cost: dict[str, float]
    """tokens, flops, seconds."""


def evaluate_questions(
    engine: Engine,
    questions: Sequence[Question],
    config: Config,
    check: Check,
    *,
    progress: Progress = SILENT,
    title: str = "questions",
) -> tuple[AnswerResult, dict[str, float]]:
    """Puts the held-out questions to a policy, as `openrpt finetune` does before and after, and
    returns the outcomes and the cost.

    Raises UserError where the prompt does not fit, and where no question does.
    """
    config = finetune_config(config)
    layout = engine.model.layout(config.prompt)
    task = question_task(questions, config, engine.model, layout, check)
    works = task.chosen("heldout", config.finetune.eval_questions)
    progress.begin(title, len(works), "questions")
    started = time.perf_counter()
    result, cost = answer_questions(
        engine, task, works, samples=config.finetune.eval_samples, progress=progress
    )
    return result, cost | {"seconds": time.perf_counter() - started}


def answer_side_by_side(
    folder: Path, models: Sequence[NamedModel], config: Config, *, progress: Progress = SILENT
) -> list[Answered]:
    """Each model's answers. What the folder holds already, of the same weights and settings, is
    taken from there. Raises UserError for bad questions and for what can't be loaded."""
    counts = QuestionCounts()
    questions = read_questions(config.questions, counts, seed=config.seed)
    with ExitStack() as stack:
        math = None
        if check_kind(config) == "math":
            math = stack.enter_context(MathChecker(seconds=config.answers.timeout))
        check = checker_of(config, math)
        prompt = finetune_config(config).prompt.model_dump()
        settings = [config.seed, config.finetune.model_dump(), config.answers.model_dump(), prompt]
        settings += [config.model.dtype, [(q.question_id, q.answer) for q in questions]]
        found = []
        for model in models:
            mark = fingerprint(model_fingerprint(model.path), settings)
            path = folder / f"{model.label}-{mark}.parquet"
            cost_path = path.with_suffix(".json")
            if path.is_file() and cost_path.is_file():
                progress.say(f"{model.label}: has answered before, taken from {path}")
                result = AnswerResult.load(path)
                cost = read_as(dict[str, float], cost_path, advice="delete it and ask again")
            else:
                engine = open_engine(config.model, path=model.path)
                title = f"questions to {model.label}"
                result, cost = evaluate_questions(
                    engine, questions, config, check, progress=progress, title=title
                )
                result.save(path)
                write_sealed(cost_path, cost)
            found.append(Answered(model=model, result=result, cost=cost))
    return found


def parts_of(result: AnswerResult) -> list[str]:
    """all, each task, and under a task each of its levels, where questions have one."""
    tasks = sorted(set(result.columns["task"].astype(str).tolist()) - {""}, key=_by_level)
    families = [(task.partition("@")[0], task) for task in tasks]
    return list(dict.fromkeys([ALL, *(part for pair in families for part in pair)]))


def _by_level(task: str) -> tuple[str, int]:
    family, _, level = task.partition("@")
    return family, int(level or -1)


def inside(result: AnswerResult, part: str) -> np.ndarray:
    """[n] Which questions are of a part: all, a task with its levels, or one level."""
    tasks = result.columns["task"].astype(str).tolist()
    return np.array([part in (ALL, task, task.partition("@")[0]) for task in tasks])


def accuracy(result: AnswerResult, measure: str, part: str) -> Estimate:
    chosen = inside(result, part)
    return mean_by_document(result.columns[measure][chosen], result.columns["question_id"][chosen])


def difference_on(a: AnswerResult, b: AnswerResult, measure: str, part: str) -> Difference:
    """a − b on the questions of a part that both answered."""
    ids_a, ids_b = (r.columns["question_id"][inside(r, part)] for r in (a, b))
    values_a, values_b = (r.columns[measure][inside(r, part)] for r in (a, b))
    ids, in_a, in_b = np.intersect1d(ids_a, ids_b, return_indices=True)
    return paired_difference(values_a[in_a], values_b[in_b], ids)


def question_rows(answered: Sequence[Answered], samples: int) -> list[dict[str, Any]]:
    """A row a part, measure and model; differences are to the first model."""
    first = answered[0]
    rows = []
    for part in parts_of(first.result):
        for measure, name in measures(samples).items():
            for one in answered:
                difference = difference_on(one.result, first.result, measure, part).as_dict()
                rows.append(
                    {
                        "part": part,
                        "measure": name,
                        "model": one.model.label,
                        **accuracy(one.result, measure, part).as_dict(),
                        "closed": accuracy(one.result, "closed", part).value,
                        **{
                            f"difference_{key}": difference[key]
                            for key in ("value", "low", "high", "p", "distinguishable")
                        },
                    }
                )
    return rows


def write_questions(folder: Path, answered: Sequence[Answered], config: Config) -> list[Path]:
    """`questions.json` and `.csv` (as `question_rows`) in the folder; each atomic."""
    rows = question_rows(answered, config.finetune.eval_samples)
    document = {
        "format": FORMAT,
        "questions": config.questions.model_dump(),
        "check": check_kind(config),
        "against": answered[0].model.label,
        "models": {
            one.model.label: {
                "model": one.model.path,
                "cost": one.model.cost,
                "evaluation_cost": one.cost,
            }
            for one in answered
        },
        "rows": rows,
    }
    files = {
        folder / "questions.json": json_text(document),
        folder / "questions.csv": csv_text(rows),
    }
    for path, content in files.items():
        write_text(path, content)
    return list(files)


def print_questions(answered: Sequence[Answered], config: Config, console: "Console") -> None:
    """One row a part (and measure, with samples), a column a model."""
    from rich.table import Table
    from rich.text import Text

    from openrpt.sheets import cost_cells, percent, points

    samples, first = config.finetune.eval_samples, answered[0]
    table = Table(title="right answers, in % ± standard error by question", title_justify="left")
    for name in ("questions", "measure", "n"):
        table.add_column(name, justify="right" if name == "n" else "left", no_wrap=True)
    for one in answered:
        table.add_column(one.model.label, justify="right")
        if one is not first:
            table.add_column(f"− {first.model.label} [95 %]", justify="right")
    for part in parts_of(first.result):
        for measure, name in measures(samples).items():
            cells = [part, name, f"{accuracy(first.result, measure, part).n:,}"]
            for one in answered:
                found = accuracy(one.result, measure, part).as_dict()
                cells.append(percent(found).removesuffix(" %"))
                if one is not first:
                    difference = difference_on(one.result, first.result, measure, part)
                    cells.append(points(difference.as_dict()))
            table.add_row(*cells)
    closed = [percent(accuracy(one.result, "closed", ALL).as_dict()) for one in answered]
    costs = [" FLOPs\n".join(cost_cells(one.cost)) for one in answered]
    for title, cells in {"gave an answer": closed, "cost": costs}.items():
        beside = [[cell, *([""] * (number > 0))] for number, cell in enumerate(cells)]
        table.add_row(title, "", "", *(cell for pair in beside for cell in pair))
    console.print(table)
    console.print(Text("[ ] holds 95 % of resamples of questions, paired", style="dim"))
