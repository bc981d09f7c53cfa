"""All end tasks of a model by one command: each part runs as its own command does and resumes by
itself; this puts what they found into one table, by type of task and by difficulty.

`suite.json` of a run holds the lines by model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from openrpt.config.sections import Config
from openrpt.errors import UserError
from openrpt.evaluation.records import add_model_result
from openrpt.evaluation.statistics import mean_of_means
from openrpt.progress import Progress
from openrpt.runs.run import Run, works_in_run
from openrpt.sheets import Sheet, cost_cells, print_sheet, share_with_n

_RECORD = "suite.json"
_TYPES = {
    "mmlu_pro": "knowledge",
    "supergpqa": "knowledge",
    "mmlu": "knowledge",
    "arc": "knowledge",
    "gsm8k": "mathematics",
    "math": "mathematics",
}
"""The type of each zero-shot task; lm-eval's own are `other`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteLine:
    """One task in one mode."""

    type: str
    task: str
    mode: str
    measure: str
    estimate: Mapping[str, Any]
    """The estimate: value, standard_error, n; n is 0 where nothing was measured."""
    cost: Mapping[str, Any]
    difficulties: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Estimates by difficulty, where the task states one."""


_Part = Callable[[Run, str | None, Config, str, Progress], tuple[str, list[SuiteLine]]]
"""A part of the suite: (run, model, config, label, progress) → (the label, its lines)."""


@works_in_run
def run_suite(
    run: Run, model: str | None, config: Config, *, label: str, progress: Progress
) -> tuple[str, list[SuiteLine]]:
    """Runs all of `suite.parts`, in their order. Raises UserError for bad input of any part."""
    lines: list[SuiteLine] = []
    for part in config.suite.parts:
        label, found = PARTS[part](run, model, config, label, progress)
        lines += found
        stored = [asdict(line) for line in found]
        add_model_result(run.path / _RECORD, label, part, stored)
    return label, lines


def check_parts(config: Config) -> None:
    """Checks the parts. Raises UserError for what can be known to be wrong before the first part
    has begun."""
    from openrpt.data.questions import QuestionCounts, read_questions
    from openrpt.evaluation.end_tasks.coding import read_tasks
    from openrpt.evaluation.end_tasks.zero_shot import end_tasks

    parts = config.suite.parts
    if not parts:
        raise UserError(f"suite.parts is empty: there are {', '.join(PARTS)}")
    if "zeroshot" in parts:
        end_tasks(config.zeroshot.tasks)
    if "coding" in parts:
        read_tasks(config.coding.path)
    if "reasoning" in parts:
        read_questions(config.questions, QuestionCounts(), seed=config.seed)


# ---- the parts ----------------------------------------------------------------------------------


def _zeroshot_lines(
    run: Run, model: str | None, config: Config, label: str, progress: Progress
) -> tuple[str, list[SuiteLine]]:
    """Measures the model on every zero-shot task in every mode."""
    from openrpt.evaluation.end_tasks.zero_shot import zero_shot

    label, results = zero_shot(run, model, config, label=label, progress=progress)
    return label, [
        SuiteLine(
            type=_TYPES.get(task, "other"),
            task=task,
            mode=mode,
            measure="accuracy",
            estimate=outcome["summary"]["measures"]["accuracy"],
            cost=outcome["cost"],
            difficulties=outcome["summary"]["difficulties"],
        )
        for task, modes in results.items()
        for mode, outcome in modes.items()
    ]


def _coding_lines(
    run: Run, model: str | None, config: Config, label: str, progress: Progress
) -> tuple[str, list[SuiteLine]]:
    """Measures the model on the coding tasks, by pass@1 where programs are run."""
    from openrpt.evaluation.end_tasks.coding import coding, mode_name

    label, entry = coding(run, model, config, label=label, progress=progress)
    nothing = {"value": float("nan"), "standard_error": float("nan"), "n": 0}
    line = SuiteLine(
        type="coding",
        task=Path(config.coding.path).name,
        mode=mode_name(config.coding),
        measure="pass@1" if "pass_at" in entry else "written, not run",
        estimate=entry["pass_at"]["1"] if "pass_at" in entry else nothing,
        cost=entry["cost"],
        difficulties=entry.get("difficulties", {}),
    )
    return label, [line]


def _reasoning_lines(
    run: Run, model: str | None, config: Config, label: str, progress: Progress
) -> tuple[str, list[SuiteLine]]:
    """Measures the model on the held-out questions of [questions] (reasoning-gym's families, or a
    file), by family."""
    from openrpt.evaluation.questions.families import answer_heldout

    label, found = answer_heldout(run, model, config, label=label, progress=progress)
    settings = config.finetune
    mode = f"think {settings.think_budget}"
    if settings.eval_samples:
        mode += f", {settings.eval_samples} samples"
    return label, [
        SuiteLine(
            type="reasoning",
            task=family or Path(config.questions.path).name,
            mode=mode,
            measure="accuracy",
            estimate=one["estimate"],
            cost=one["cost"],
            difficulties=one["difficulties"],
        )
        for family, one in found.items()
    ]


PARTS: dict[str, _Part] = {
    "zeroshot": _zeroshot_lines,
    "coding": _coding_lines,
    "reasoning": _reasoning_lines,
}
"""A part's name in `suite.parts` → what runs it."""


# ---- as people read it --------------------------------------------------------------------------


def print_suite(label: str, lines: Sequence[SuiteLine], console: Console) -> None:
    """Prints the tables of `_suite_sheets`; they can be pasted as markdown."""
    for sheet in _suite_sheets(label, lines):
        print_sheet(sheet, console, pasted=True)
    note = "± is the standard error by question; n in brackets"
    console.print(Text(note, style="dim"), soft_wrap=True)


def _suite_sheets(label: str, lines: Sequence[SuiteLine]) -> list[Sheet]:
    """Returns sheets by type of task, with the mean of each type and mode; then by difficulty where
    any task states one."""
    rows = [
        [
            line.type,
            line.task,
            line.mode,
            line.measure,
            share_with_n(line.estimate),
            *cost_cells(line.cost),
        ]
        for line in lines
    ]
    rows += [
        [type_, "mean of tasks", mode, "", share_with_n(mean), "", ""]
        for type_, mode, mean in type_means(lines)
    ]
    by_difficulty = [
        [line.type, line.task, line.mode, part, share_with_n(found)]
        for line in lines
        for part, found in line.difficulties.items()
    ]
    tasks = ["type", "task", "mode"]
    sheets = [
        Sheet(
            title=f"{label}: end tasks",
            headings=[*tasks, "measure", "%", "FLOPs", "time"],
            rows=rows,
            labels=4,
        ),
        Sheet(
            title="by difficulty",
            headings=[*tasks, "difficulty", "%"],
            rows=by_difficulty,
            labels=4,
        ),
    ]
    return [sheet for sheet in sheets if sheet.rows]


def type_means(lines: Sequence[SuiteLine]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields (type, mode, mean) over the tasks of a type that have several; every task counts the
    same."""
    keys = dict.fromkeys((line.type, line.mode) for line in lines)
    for type_, mode in keys:
        found = [
            line.estimate
            for line in lines
            if (line.type, line.mode) == (type_, mode) and line.estimate["n"]
        ]
        if len(found) > 1:
            yield type_, mode, mean_of_means(found)
