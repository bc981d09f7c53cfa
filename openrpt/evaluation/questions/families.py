"""Questions with verifiable answers (reasoning-gym's families, or a file), answered by a model
that is not trained on them: what `openrpt finetune` measures, without the training."""

import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from openrpt.config.loading import finetune_config
from openrpt.config.sections import Config
from openrpt.data.questions import Question, QuestionCounts, read_questions
from openrpt.data.work import Work
from openrpt.engine.engine import open_engine
from openrpt.evaluation.end_tasks.respondent import model_identity
from openrpt.evaluation.models import latest_model, model_label, model_path
from openrpt.evaluation.questions.checks import MathChecker, check_kind, checker_of
from openrpt.evaluation.questions.results import AnswerResult
from openrpt.evaluation.questions.task import QuestionTask, answer_questions, question_task
from openrpt.evaluation.records import add_model_result, read_models
from openrpt.evaluation.statistics import estimates_by, mean_by_document
from openrpt.progress import SILENT, Progress
from openrpt.runs.run import Run

RECORD, FOLDER = "reasoning.json", "reasoning"


def answer_heldout(
    run: Run, model: str | None, config: Config, *, label: str = "", progress: Progress = SILENT
) -> tuple[str, dict[str, Any]]:
    """(label, family → estimate, difficulties, cost) of the held-out [questions].

    Recorded in `reasoning.json`, each question's outcome in `reasoning/LABEL-FAMILY.parquet`; a
    family that was answered by the same weights under the same settings is not asked again. Raises
    UserError for bad questions and models.
    """
    config = finetune_config(config)
    questions = read_questions(config.questions, QuestionCounts(), seed=config.seed)
    model = model or latest_model(run)
    path, label = model_path(run, model), label or model_label(model)
    asked = {
        "model": model_identity(config, path),
        "seed": config.seed,
        "questions": config.questions.model_dump(mode="json"),
        "answers": config.answers.model_dump(mode="json"),
        "finetune": config.finetune.model_dump(mode="json"),
        "instruction": config.prompt.instruction,
        "chat_template": config.prompt.chat_template,
        "thought_start": config.prompt.thought_start,
    }
    with ExitStack() as stack:
        math = None
        if check_kind(config) == "math":
            math = stack.enter_context(MathChecker(seconds=config.answers.timeout))
        engine = open_engine(config.model, path=path)
        layout = engine.model.layout(config.prompt)
        task = question_task(questions, config, engine.model, layout, checker_of(config, math))
        found = {}
        for family, works in by_family(task, config.finetune.eval_questions).items():
            stored = read_models(run.path / RECORD).get(label, {}).get(family, {})
            if stored.get("asked") == asked:
                found[family] = stored
                continue
            progress.begin(f"reasoning: {family or config.questions.path}", len(works), "questions")
            started = time.perf_counter()
            result, cost = answer_questions(
                engine,
                task,
                works,
                samples=config.finetune.eval_samples,
                progress=progress,
            )
            cost["seconds"] = time.perf_counter() - started
            name = re.sub(r"[^\w.-]+", "-", f"{label}-{family}").strip("-")
            result.save(run.path / FOLDER / f"{name}.parquet")
            found[family] = summarise(result, task) | {"asked": asked, "cost": cost}
            add_model_result(run.path / RECORD, label, family, found[family])
    return label, found


def by_family(task: QuestionTask, count: int) -> dict[str, list[Work]]:
    """The held-out questions that are asked, by their family ("" for a file's)."""
    families: dict[str, list[Work]] = {}
    for work in task.chosen("heldout", count):
        family = task.questions[work.document.document_id].task
        families.setdefault(family, []).append(work)
    return families


def summarise(result: AnswerResult, task: QuestionTask) -> dict[str, Any]:
    ids, right = result.columns["question_id"], result.columns["accuracy"]
    marks = np.array([difficulty_of(task.questions[str(name)]) for name in ids])
    return {
        "estimate": mean_by_document(right, ids).as_dict(),
        "difficulties": estimates_by(right, marks, ids),
    }


def difficulty_of(question: Question) -> str:
    """As reasoning-gym states it: `num_digits 3, num_terms 2`; "" where it does not."""
    stated = question.entry.get("metadata", {}).get("difficulty") or {}
    if not isinstance(stated, Mapping):
        return str(stated)
    return ", ".join(f"{name} {value}" for name, value in sorted(stated.items()))
