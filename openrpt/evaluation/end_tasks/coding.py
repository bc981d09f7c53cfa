"""Coding tasks of HumanEval's kind: the model completes a function, tests say whether it is right.

What a model wrote is run only where the user says so (`coding.run_code`), in `sandbox.py`.
`coding.json` of a run holds the results by model; every program and its verdict lies in
`coding/LABEL/MODE.jsonl`, each answer in `coding/LABEL/answers.jsonl`. Errors are by task.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openrpt.config.evaluation import CodingConfig
from openrpt.config.sections import Config
from openrpt.data.chat import render_chat
from openrpt.data.field_values import text_of
from openrpt.data.kinds import kind_of
from openrpt.data.readers import read_fields
from openrpt.errors import UserError
from openrpt.evaluation.end_tasks.asked import Asked
from openrpt.evaluation.end_tasks.programs import opening_of, program_of
from openrpt.evaluation.end_tasks.respondent import Respondent, open_respondent
from openrpt.evaluation.end_tasks.sandbox import Limits, Outcome, require_sandbox, run_program
from openrpt.evaluation.records import add_model_result
from openrpt.evaluation.statistics import estimates_by, mean_by_document
from openrpt.files import write_text
from openrpt.progress import SILENT, Progress
from openrpt.runs.run import Run, works_in_run
from openrpt.sheets import cost_cells, percent
from openrpt.stopping import Interrupted, exit_code

_RECORD, _FOLDER = "coding.json", "coding"
EXAMPLES = Path(__file__).with_name("coding_examples.jsonl")
_TEXT_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n```")
"""The texts at which a completion of plain code ends (arXiv 2107.03374, section 3.1), or a fence
closes."""
_FENCE_STOPS = ("\n```\n",)
"""The texts at which a block ends that was opened for the model; behind a thought it may open
one."""
_REQUEST = "Complete this Python function. Answer with the whole function in one code block."

_Task = dict[str, str]
"""task_id, prompt (ends where the body begins), test, entry_point, and category and difficulty
("" where not stated)."""


def read_tasks(path: str) -> list[_Task]:
    """Reads the tasks of a file, or OpenRPT's own for `examples`.

    Raises UserError (with file and line) for a missing or blank field, a prompt without the
    function, and where there is no task.
    """
    found = []
    for source, fields in read_fields(str(EXAMPLES) if path == "examples" else path):
        task: _Task = {}
        for name in ("prompt", "test", "entry_point"):
            value = fields.get(name)
            if not isinstance(value, str) or not value.strip():
                raise UserError(
                    f"{source}: field '{name}' is missing or blank; a coding task has prompt, test"
                    " and entry_point, as HumanEval's"
                )
            # Half a surrogate pair is no text: as the escape that a string literal has for it.
            task[name] = value.encode("utf-8", "backslashreplace").decode()
        if not re.search(rf"\bdef\s+{re.escape(task['entry_point'])}\b", task["prompt"]):
            raise UserError(f"{source}: the prompt defines no '{task['entry_point']}'")
        task |= {name: kind_of(fields.get(name), 0) for name in ("category", "difficulty")}
        found.append(task | {"task_id": text_of(fields.get("task_id")) or source})
    if not found:
        raise UserError(f"{path}: no coding tasks")
    return found


@works_in_run
def coding(
    run: Run, model: str | None, config: Config, *, label: str = "", progress: Progress = SILENT
) -> tuple[str, dict[str, Any]]:
    """Asks a model (see `models.model_path`; default: the run's latest) all coding tasks.

    Returns its label and what was added to `coding.json`. Raises UserError for bad tasks and
    whatever can't be loaded.
    """
    settings = config.coding
    tasks = read_tasks(settings.path)
    if settings.run_code:
        require_sandbox()
    progress.begin("load the model", 0)
    label, path, respondent = open_respondent(run, model, config, _FOLDER, label=label)
    mode = mode_name(settings)
    progress.begin(f"coding, {mode}", len(tasks), "tasks")
    answers = []
    try:
        questions = [_code_question(task, respondent) for task in tasks]
        for answer in respondent.say_each(questions):
            answers.append(answer)
            progress.update(len(answers))
    except KeyboardInterrupt as stop:
        raise Interrupted(
            "stopped in coding; the same command goes on with what is written",
            exit_code=exit_code(stop),
        ) from None
    programs = [
        [program_of(task, text) for text in answer.texts]
        for task, answer in zip(tasks, answers, strict=True)
    ]
    outcomes = None
    if settings.run_code:
        outcomes = list(_run_all(tasks, programs, settings, progress))
    _write_programs(run.path / _FOLDER / label / f"{_slug(mode)}.jsonl", tasks, programs, outcomes)
    entry = {
        "model": path,
        "settings": settings.model_dump() | {"chat_template": respondent.chats},
        "tasks": len(tasks),
        "cut_tasks": sum(answer.cut > 0 for answer in answers),
        "cost": respondent.cost(answers),
    } | ({} if outcomes is None else _summarise(tasks, outcomes))
    add_model_result(run.path / _RECORD, label, f"{settings.path}, {mode}", entry)
    return label, entry


def mode_name(settings: CodingConfig) -> str:
    """Returns the mode's name, `direct`, `think 256, 20 samples`."""
    name = f"think {settings.think_budget}" if settings.think_budget else "direct"
    return f"{name}, {settings.samples} samples" if settings.samples else name


def _slug(mode: str) -> str:
    return re.sub(r"\W+", "-", mode)


# ---- writing ------------------------------------------------------------------------------------


def _code_question(task: _Task, respondent: Respondent) -> tuple[str, Asked]:
    """Returns the question of a task: a chat model is asked for a code block that begins with the
    prompt; another one goes on from the prompt. A thought stands before the block."""
    settings, tokenizer = respondent.config.coding, respondent.policy.tokenizer
    opening = opening_of(task["prompt"])
    thinks = settings.think_budget > 0
    if respondent.chats:
        messages = [{"role": "user", "content": f"{_REQUEST}\n\n{opening.rstrip()}\n```"}]
        chat = render_chat(tokenizer, messages)
        context = chat if thinks else chat + opening
    else:
        context = f"{_REQUEST}\n\n{opening.rstrip()}\n```\n" if thinks else task["prompt"]
    asked = Asked(
        max_tokens=settings.max_tokens,
        think_budget=settings.think_budget if thinks else None,
        answer_start=f"\n{opening}" if thinks else "",
        until=() if thinks else _FENCE_STOPS if respondent.chats else _TEXT_STOPS,
        samples=settings.samples,
        temperature=settings.temperature,
        chat=respondent.chats,
    )
    return context, asked


def with_tests(task: _Task, program: str) -> str:
    """Returns the program and its tests; HumanEval's stand in a function `check`."""
    call = f"check({task['entry_point']})" if "def check(" in task["test"] else ""
    return f"{program}\n\n{task['test']}\n\n{call}\n"


# ---- running ------------------------------------------------------------------------------------


def _run_all(
    tasks: Sequence[_Task],
    programs: Sequence[Sequence[str]],
    settings: CodingConfig,
    progress: Progress,
) -> Iterator[list[Outcome]]:
    """Runs the programs of each task and returns how they end; equal ones are run once."""
    limits = Limits(seconds=settings.timeout, memory_mib=settings.memory_mib)
    progress.begin("run the programs", len(tasks), "tasks")
    for number, (task, written) in enumerate(zip(tasks, programs, strict=True), 1):
        sources = [with_tests(task, program) for program in written]
        seen = {source: run_program(source, limits) for source in dict.fromkeys(sources)}
        yield [seen[source] for source in sources]
        progress.update(number)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Returns the probability that of k samples drawn from these, without putting back, one is
    right: the unbiased estimate of pass@k (arXiv 2107.03374, equation 1).

    >>> pass_at_k(4, 1, 2), pass_at_k(4, 2, 1)
    (0.5, 0.5)
    """
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def _summarise(tasks: Sequence[_Task], outcomes: Sequence[Sequence[Outcome]]) -> dict[str, Any]:
    """Returns the record's pass@k over all tasks, pass@1 by category and difficulty, and how
    programs ended."""
    samples = len(outcomes[0])
    right = [sum(o.verdict == "passed" for o in of_task) for of_task in outcomes]
    ks = sorted({1, samples, *(k for k in (10, 100) if k < samples)})
    ids = np.array([task["task_id"] for task in tasks])
    columns = {k: np.array([pass_at_k(samples, c, k) for c in right]) for k in ks}
    marks = {name: np.array([task[name] for task in tasks]) for name in ("category", "difficulty")}
    every = [outcome for of_task in outcomes for outcome in of_task]
    return {
        "pass_at": {str(k): mean_by_document(v, ids).as_dict() for k, v in columns.items()},
        "categories": estimates_by(columns[1], marks["category"], ids),
        "difficulties": estimates_by(columns[1], marks["difficulty"], ids),
        "verdicts": dict(Counter(outcome.verdict for outcome in every)),
    }


# ---- the record ---------------------------------------------------------------------------------


def _write_programs(
    path: Path,
    tasks: Sequence[_Task],
    programs: Sequence[Sequence[str]],
    outcomes: Sequence[Sequence[Outcome]] | None,
) -> None:
    """Writes a line for each program: its task, its text, and how it ended (null where it was not
    run)."""
    lines = []
    for place, (task, written) in enumerate(zip(tasks, programs, strict=True)):
        for sample, program in enumerate(written):
            row: dict[str, Any] = {"task_id": task["task_id"], "program": program}
            outcome = outcomes[place][sample] if outcomes is not None else None
            row["verdict"] = outcome.verdict if outcome else None
            row["error"] = outcome.error if outcome else ""
            lines.append(json.dumps(row, ensure_ascii=False))
    write_text(path, "\n".join(lines) + "\n")


def describe(label: str, mode: str, entry: Mapping[str, Any]) -> Iterator[str]:
    """Yields lines that sum up a model's coding."""
    paid = " FLOPs, ".join(cost_cells(entry["cost"])) + " to write"
    if "pass_at" not in entry:
        yield (
            f"{label}, {mode}: {entry['tasks']} tasks written ({paid}), nothing was run;"
            " --coding.run_code runs the programs, walled in"
        )
        return
    scores = ", ".join(f"pass@{k} {percent(found)}" for k, found in entry["pass_at"].items())
    verdicts = ", ".join(f"{count} {name}" for name, count in entry["verdicts"].items())
    yield f"{label}, {mode}: {scores} of {entry['tasks']} tasks ({paid})"
    for part, found in entry["difficulties"].items():
        yield f"  {part}: pass@1 {percent(found)}, {found['n']} tasks"
    yield f"programs: {verdicts}"
