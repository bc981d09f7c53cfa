"""The held-out questions of a run by family (reasoning-gym's, or a file's), recorded by model."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from openrpt.config.sections import Config
from openrpt.data.questions import Question
from openrpt.engine.engine import open_engine
from openrpt.evaluation.instrument import mark_of, take_or_measure
from openrpt.evaluation.kept import Kept
from openrpt.evaluation.models import latest_model, model_label, model_path
from openrpt.evaluation.questions.checks import check_kind
from openrpt.evaluation.questions.heldout import open_heldout
from openrpt.evaluation.questions.results import AnswerResult
from openrpt.evaluation.records import add_model_result
from openrpt.evaluation.statistics import estimates_by, mean_by_document
from openrpt.progress import SILENT, Progress
from openrpt.runs.run import Run

_RECORD, _FOLDER = "reasoning.json", "reasoning"


def answer_heldout(
    run: Run, model: str | None, config: Config, *, label: str = "", progress: Progress = SILENT
) -> tuple[str, dict[str, Any]]:
    """Returns the label, and by family the estimate, the difficulties and the cost.

    Recorded in `reasoning.json`, each question's outcome in `reasoning/LABEL-FAMILY.parquet`; a
    family that was answered by the same weights under the same settings is not asked again. Raises
    UserError for bad questions and models.
    """
    with open_heldout(config, progress=progress) as heldout:
        model = model or latest_model(run)
        path, label = model_path(run, model), label or model_label(model)
        progress.begin(f"load {path}", 0)
        engine = open_engine(config, path=path)
        task = heldout.task(engine.model)
        asked = [task.questions[work.document.document_id] for work in heldout.works(task)]
        found: dict[str, Any] = {}
        for family in dict.fromkeys(question.task for question in asked):
            one = replace(heldout, family=family)
            mark = mark_of(one, path)
            name = re.sub(r"[^\w.-]+", "-", f"{label}-{family}").strip("-")
            result = take_or_measure(
                one,
                lambda: engine,
                run.path / _FOLDER / f"{name}.parquet",
                label=label,
                mark=mark,
                kept=Kept(path=run.path / _FOLDER / f"{name}-{mark}.jsonl"),
                progress=progress,
            )
            settings = one.config.finetune.model_dump() | {"check": check_kind(config)}
            found[family] = {
                "model": path,
                "settings": settings,
                **_summarise(result, task.questions),
                "cost": result.cost,
            }
            add_model_result(run.path / _RECORD, label, family, found[family])
    return label, found


def _summarise(result: AnswerResult, questions: Mapping[str, Question]) -> dict[str, Any]:
    """Returns right answers, in all and by difficulty, with errors by question."""
    ids, right = result.columns["question_id"], result.columns["accuracy"]
    marks = np.array([difficulty_of(questions[str(name)]) for name in ids])
    return {
        "estimate": mean_by_document(right, ids).as_dict(),
        "difficulties": estimates_by(right, marks, ids),
    }


def difficulty_of(question: Question) -> str:
    """Returns a question's difficulty as reasoning-gym states it: `num_digits 3, num_terms 2`; ""
    where it does not."""
    stated = question.entry.get("metadata", {}).get("difficulty") or {}
    if not isinstance(stated, Mapping):
        return str(stated)
    return ", ".join(f"{name} {value}" for name, value in sorted(stated.items()))
