"""End tasks without training on them (the paper's Tables 3, 6 and 7), run by lm-eval on our
generator: every task directly and after a thought.

`zero_shot.json` of a run holds, by model and task, what was measured and paid; each question's
outcome lies beside it (`zero_shot/LABEL/TASK-MODE.parquet`), each answer with its thought in
`zero_shot/LABEL/answers.jsonl`, from which a stopped evaluation goes on. Errors are by question.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrpt.config.sections import Config
from openrpt.errors import UserError, nearest
from openrpt.evaluation.end_tasks.grading import math_checker
from openrpt.evaluation.end_tasks.outcomes import (
    asked_of,
    mode_name,
    outcome_columns,
    settings_of,
    summarise,
)
from openrpt.evaluation.end_tasks.rows import Kind
from openrpt.evaluation.questions.results import AnswerResult
from openrpt.evaluation.records import add_model_result
from openrpt.extras import require
from openrpt.progress import SILENT, Progress
from openrpt.runs.run import Run, works_in_run
from openrpt.stopping import Interrupted, exit_code

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

    from openrpt.evaluation.end_tasks.harness import OpenRPTLM
    from openrpt.evaluation.end_tasks.respondent import Respondent


RECORD, _FOLDER = "zero_shot.json", "zero_shot"
_OWN_TASKS: dict[str, Kind] = {
    "mmlu_pro": "choice",
    "supergpqa": "choice",
    "mmlu": "choice",
    "arc": "choice",
    "gsm8k": "short",
    "math": "short",
}
"""The tasks that we have files for, in both modes, and how their answers are graded."""
_LM_EVAL = "lm-eval:"


@dataclass(frozen=True, kw_only=True, slots=True)
class EndTask:
    """A task that a model is asked: OpenRPT's own, or one of lm-eval's."""

    name: str
    """One of _OWN_TASKS, or lm-eval's own name for a task, a group or a tag."""
    file: str = ""
    """The file of its questions, in place of the Hub's."""
    own: bool = True

    @property
    def title(self) -> str:
        """The name under which it is recorded; lm-eval's own are marked."""
        return self.name if self.own else _LM_EVAL + self.name


def end_tasks(names: Sequence[str]) -> list[EndTask]:
    """Returns the tasks that `NAME`, `NAME=PATH` and `lm-eval:NAME` stand for.

    Raises UserError for an unknown name (the nearest is named), for a file that is not there, and
    where lm-eval is missing, which runs them.
    """
    require("lm_eval", extra="lm-eval", what="openrpt zeroshot")
    found = []
    for item in names:
        name, given, file = item.partition("=")
        if name.startswith(_LM_EVAL):
            if given:
                raise UserError(f"zeroshot.tasks: {item}: a file can't take the place of its data")
            found.append(EndTask(name=name.removeprefix(_LM_EVAL), own=False))
            continue
        if name not in _OWN_TASKS:
            hint = nearest(name, _OWN_TASKS, otherwise=f"there are {', '.join(_OWN_TASKS)}")
            raise UserError(
                f"zeroshot.tasks: no task '{name}'{hint} (lm-eval's own: '{_LM_EVAL}NAME')"
            )
        if given and not file.startswith("datasets:") and not Path(file).exists():
            raise UserError(f"zeroshot.tasks: {name}: {file}: no such file or folder")
        found.append(EndTask(name=name, file=file))
    if not found:
        raise UserError("zeroshot.tasks is empty: name a task, such as mmlu_pro")
    return found


@works_in_run
def zero_shot(
    run: Run, model: str | None, config: Config, *, label: str = "", progress: Progress = SILENT
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Asks a model (see `models.model_path`; default: the run's latest) all tasks in all modes.

    Returns its label and what was found, by task and mode. In `zero_shot.json` that takes the
    place of the model's earlier results of the same tasks and modes. Raises UserError for bad
    tasks and questions, before a model is loaded, and for whatever can't be loaded.
    """
    from openrpt.evaluation.end_tasks.harness import quiet
    from openrpt.evaluation.end_tasks.respondent import open_respondent

    tasks = end_tasks(config.zeroshot.tasks)
    with quiet():
        manager = _task_manager(tasks, config)
        loaded = [
            (task, mode, _load_task(manager, task, mode, config))
            for task in tasks
            for mode in config.zeroshot.modes
        ]
        for task in tasks:
            if task.own and _OWN_TASKS[task.name] == "short":
                math_checker()  # missing before the first answer, not behind the last
        if config.prompt.examples:
            progress.say("prompt.examples are not shown: end tasks have examples of their own")
        progress.begin("load the model", 0)
        label, path, respondent = open_respondent(run, model, config, _FOLDER, label=label)
        found: dict[str, dict[str, Any]] = {}
        for task, mode, harness in loaded:
            for name, result, outcome in _ask(task, mode, harness, respondent, progress):
                outcome["model"] = path
                result.save(outcome_path(run.path, label, name, outcome["mode"]))
                found.setdefault(name, {})[outcome["mode"]] = outcome
                key = f"{name}, {outcome['mode']}"
                add_model_result(run.path / RECORD, label, key, outcome)
    return label, found


def _task_manager(tasks: Sequence[EndTask], config: Config) -> "TaskManager":
    """Returns lm-eval's index of our task files, and of all of its own where one is asked for
    (slow)."""
    from lm_eval.tasks import TaskManager

    from openrpt.evaluation.end_tasks.harness import TASKS

    metadata: Any = {
        "openrpt": {
            "files": {task.name: task.file for task in tasks if task.file},
            "per_category": config.zeroshot.questions_per_category,
            "seed": config.seed,
        }
    }
    defaults = any(not task.own for task in tasks)
    return TaskManager(include_path=TASKS, include_defaults=defaults, metadata=metadata)


def _load_task(
    manager: "TaskManager", task: EndTask, mode: str, config: Config
) -> dict[str, Any] | None:
    """Loads lm-eval's own objects, their questions read; None where a task of lm-eval has no such
    mode: it only compares likelihoods, which leaves no place for a thought."""
    settings = config.zeroshot
    name = f"openrpt_{task.name}_{mode}" if task.own else task.name
    if name not in manager.all_tasks:
        hint = nearest(_LM_EVAL + name, [_LM_EVAL + one for one in manager.all_tasks], cutoff=0.6)
        raise UserError(f"zeroshot.tasks: lm-eval has no task '{name}'{hint}")
    try:
        found: dict[str, Any] = dict(manager.load([name]))
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{task.title}: can't be loaded: {' '.join(str(error).split())}") from None
    leaves = found["tasks"].values()
    if mode == "think" and any(t.get_config("output_type") != "generate_until" for t in leaves):
        return None
    for leaf in leaves:
        if leaf.get_config("num_fewshot") is None:
            leaf.set_config("num_fewshot", 0)
        leaf.set_fewshot_seed(config.seed)
        if leaf.get_config("output_type") == "generate_until" and task.own:
            sampled = {"do_sample": True, "temperature": settings.temperature}
            given: dict[str, Any] = {"max_gen_toks": settings.answer_budget}
            given |= sampled if settings.samples else {}
            leaf.set_config("generation_kwargs", given, update=True)
            leaf.set_config("repeats", max(settings.samples, 1))
    return found


def _ask(
    task: EndTask,
    mode: str,
    harness: dict[str, Any] | None,
    respondent: "Respondent",
    progress: Progress,
) -> Iterator[tuple[str, AnswerResult, dict[str, Any]]]:
    """Asks one task in one mode; returns (name, each question's outcome, what stands in the
    record), and one a filter where a task of lm-eval's own reads its answers in several ways."""
    from openrpt.evaluation.end_tasks.harness import OpenRPTLM

    if harness is None:
        progress.say(f"{task.title}: only compares likelihoods: it has no think mode")
        return
    config = respondent.config
    settings, prompt = config.zeroshot, config.prompt
    lm = OpenRPTLM(
        respondent,
        think_budget=settings.think_budget if mode == "think" else None,
        answer_start=prompt.answer_start if task.own else "",
    )
    lm.progress = progress
    limit = None if task.own else settings.questions_per_category or None
    title, chat = f"{task.title}, {mode}", respondent.chats
    samples = _samples(lm, harness, limit=limit, chat=chat, title=title)
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    for name in filters:
        kept = [sample for sample in samples if sample["filter"] == name]
        shown = task.title if len(filters) == 1 else f"{task.title} ({name})"
        columns = outcome_columns(kept, lm.given)
        given = {id(a): a for sample in kept for a in lm.given[asked_of(sample)]}
        outcome = {
            "task": shown,
            "mode": mode_name(mode, config, generates=bool(columns["tokens"].any())),
            "settings": settings_of(mode, config) | {"chat_template": chat, "file": task.file},
            "summary": summarise(columns),
            "cut_questions": sum(answer.cut > 0 for answer in given.values()),
            "cost": respondent.cost(list(given.values())),
        }
        yield shown, AnswerResult(columns=columns), outcome


def _samples(
    lm: "OpenRPTLM", harness: dict[str, Any], *, limit: int | None, chat: bool, title: str
) -> list[dict[str, Any]]:
    """Has lm-eval ask a task's questions, `limit` of each of its parts; returns what it logs, a
    row a question and filter, with the part's name as `task`."""
    from lm_eval.evaluator import evaluate

    leaves = harness["tasks"].values()
    sizes = [min(len(leaf.eval_docs), limit or len(leaf.eval_docs)) for leaf in leaves]
    lm.progress.begin(title, sum(sizes), "questions")
    try:
        results: Any = evaluate(
            lm=lm,
            task_dict=harness,  # type: ignore[arg-type]
            limit=limit,
            bootstrap_iters=0,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
        )
    except KeyboardInterrupt as stop:
        raise Interrupted(
            f"stopped in {title}; the same command goes on with the answers so far",
            exit_code=exit_code(stop),
        ) from None
    return [
        dict(sample, task=name) for name, found in results["samples"].items() for sample in found
    ]


def _file_name(task: str, mode: str) -> str:
    return re.sub(r"[^\w.-]+", "-", f"{task}-{mode}").strip("-")


def outcome_path(run: Path, label: str, task: str, mode: str) -> Path:
    """Returns the file of each question's outcome."""
    return run / _FOLDER / label / f"{_file_name(task, mode)}.parquet"
