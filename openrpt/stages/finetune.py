"""Reinforcement fine-tuning on questions with verifiable answers, before → after.

What the paper does after pre-training (arXiv 2506.08007, Section 4.3, Table 2): the same start
model, or what RPT or another training made of it, learns from right and wrong answers, and is
measured on held-out questions before and after. It runs on `train`'s tree, trainer, losses and
checkpoints: a question is a document with one position, at its end, and a group is the rollouts
of one question.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from openrpt.config.loading import finetune_config
from openrpt.config.sections import Config
from openrpt.data.prompts import Layout
from openrpt.data.questions import QuestionCounts, read_questions
from openrpt.engine.checkpoint_record import TrainerState
from openrpt.engine.engine import Engine, open_engine
from openrpt.engine.loading import resolve_model
from openrpt.errors import UserError
from openrpt.evaluation.instrument import measure
from openrpt.evaluation.questions.checks import check_kind, open_check
from openrpt.evaluation.questions.finetuned import (
    FORMAT,
    RECORD,
    outcomes_path,
    question_differences,
    read_finetuned,
)
from openrpt.evaluation.questions.heldout import HeldOut
from openrpt.evaluation.questions.results import AnswerResult
from openrpt.evaluation.questions.task import QuestionTask, question_task
from openrpt.json_files import write_sealed
from openrpt.progress import SILENT, Progress
from openrpt.rl.rewards.fitting import require_fitting
from openrpt.rl.workers import ALONE, Workers
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run
from openrpt.stages.finished import finished
from openrpt.stages.harness import run_stage
from openrpt.stages.own_parts import require_own_parts
from openrpt.stages.stage import Summary
from openrpt.stages.train import Trainer, limits_of, open_trainer


def finetune(run: Run, *, workers: Workers = ALONE, progress: Progress = SILENT) -> dict[str, Any]:
    """Evaluates, trains, evaluates again; returns what stands in the run's `finetune.json`.

    `workers`: the processes that share each training step, all of which call this; the first
    evaluates. Resumes from the last checkpoint of the run folder; an evaluation that was done is
    not done again. Raises UserError for bad questions and configuration, and for a folder that
    holds a pre-training run.
    """
    with run.at_work(writes=workers.rank == 0):
        _require_own_run(run)
        config = finetune_config(run.config)
        require_fitting(config)
        require_own_parts(config, "finetune")
        if record := _finished(run, config, progress):
            return record
        counts = QuestionCounts()
        questions = read_questions(config.questions, counts, seed=config.seed)
        with open_check(config, progress=progress) as check:

            def make_task(run: Run, engine: Engine, layout: Layout) -> QuestionTask:
                return question_task(questions, run.config, engine.model, layout, check)

            progress.begin("load the model", 0)
            trainer = open_trainer(
                replace(run, config=config),
                TrainerState(stage="finetune", warmed_up=False),
                make_task=make_task,
                workers=workers,
            )
            trainer = replace(trainer, run=run)  # whose configuration is the run's own
            task = trainer.task
            assert isinstance(task, QuestionTask)
            facts = asdict(counts) | asdict(task.counts)
            progress.say(_describe_questions(config.questions.path, facts))
            policy = trainer.engine.model
            with policy.reading():
                record = workers.first(lambda: _begun(run, trainer, task, facts, progress))
            summary = run_stage(trainer, progress)
            with policy.reading():
                return workers.first(lambda: _ended(run, trainer, task, record, summary, progress))


def _finished(run: Run, config: Config, progress: Progress) -> dict[str, Any] | None:
    """Returns the record where nothing is left to train or to measure; None otherwise."""
    record: dict[str, Any] = read_finetuned(run.path) or {}
    after = record.get("after", {}).get("step")
    if after is None:
        return None
    done = finished(run, "finetune", config, limits_of(config), progress)
    return record if done is not None and done.steps == after else None


def _begun(
    run: Run, trainer: Trainer, task: QuestionTask, facts: dict[str, int], progress: Progress
) -> dict[str, Any]:
    """Returns the record with the model as it was before, measured now where that wasn't done."""
    config = trainer.config
    record: dict[str, Any] = read_finetuned(run.path) or {
        "format": FORMAT,
        "model": config.model.path,
        "questions": {"path": config.questions.path} | facts,
        "settings": config.finetune.model_dump() | {"check": check_kind(config)},
    }
    if "before" not in record:
        record["before"] = _evaluate_before(trainer, task, progress)
        _write_record(run, record)
    return record


def _ended(
    run: Run,
    trainer: Trainer,
    task: QuestionTask,
    record: dict[str, Any],
    summary: Summary,
    progress: Progress,
) -> dict[str, Any]:
    """Returns the record with the model as it is now, measured where that wasn't done."""
    if record.get("after", {}).get("step") != summary.steps:
        record["after"] = _evaluate(trainer.engine, task, "after", run, progress)
        record["after"]["step"] = summary.steps
        after, before = (
            AnswerResult.load(outcomes_path(run.path, when), advice="fine-tune again")
            for when in ("after", "before")
        )
        differences = question_differences(after, before)
        record["difference"] = {name: d.as_dict() for name, d in differences.items()}
        record["training"] = _training_cost(run, summary.steps, summary.seconds)
        _write_record(run, record)
    return record


def check_input(run: Run) -> None:
    """Checks that fine-tuning could begin. Raises UserError for a model, questions or a part of the
    user's own that can't be had, and for a folder that holds a pre-training run."""
    _require_own_run(run)
    require_own_parts(run.config, "finetune")
    resolve_model(run.config.model.path)
    read_questions(run.config.questions, QuestionCounts(), seed=run.config.seed)


def _require_own_run(run: Run) -> None:
    if run.standing() & {"score", "warmup"}:
        raise UserError(
            f"run = '{run.path}': a pre-training run stands there; give finetune a run of its own,"
            f" and its model as the start: openrpt finetune {run.path}/checkpoints/best --run …"
        )


def _evaluate_before(trainer: Trainer, task: QuestionTask, progress: Progress) -> dict[str, Any]:
    """Measures the start model; where training is already under way it is loaded again."""
    engine = open_engine(trainer.config) if trainer.state.step else trainer.engine
    return _evaluate(engine, task, "before", trainer.run, progress) | {"step": 0}


def _evaluate(
    engine: Engine,
    task: QuestionTask,
    when: str,
    run: Run,
    progress: Progress,
) -> dict[str, Any]:
    """Measures the held-out questions: stores each one's outcome, returns summary and cost."""
    heldout = HeldOut(
        questions=tuple(task.questions.values()), check=task.check, config=task.config
    )
    result = measure(heldout, engine, title=f"evaluate {when}", progress=progress)
    result.save(outcomes_path(run.path, when))
    return {"summary": result.summary(), "cost": result.cost}


def _training_cost(run: Run, steps: int, seconds: float) -> dict[str, float]:
    """Sums up what the run's steps took."""
    rows = [row for row in read_metrics(run.metrics) if row["stage"] == "finetune"]
    phases = ("generate", "update")
    return {
        "steps": steps,
        "seconds": seconds,
        "tokens": sum(row[f"tokens/{phase}"] for row in rows for phase in phases),
        "flops": sum(row[f"flops/{phase}"] for row in rows for phase in phases),
    }


def _write_record(run: Run, record: Mapping[str, Any]) -> None:
    write_sealed(run.path / RECORD, record)


def _describe_questions(path: str, facts: Mapping[str, int]) -> str:
    left_out = {
        "duplicates": facts["duplicates"],
        "overlapping both sides": facts["dropped"],
        "too long": facts["too_long"],
        "not encodable": facts["not_encodable"],
    }
    parts = [f"{facts[name]:,} {name}" for name in ("train", "development", "heldout")]
    parts += [f"{count:,} left out ({why})" for why, count in left_out.items() if count]
    return f"questions of {path}: {', '.join(parts)}"
