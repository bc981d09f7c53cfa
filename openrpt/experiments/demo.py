"""The main job, sized to a time budget: score → warmup → evaluate → train → evaluate → report.

Each stage leaves its files in the run folder, so the same command goes on from where it was.
Only what is used is scored; training fills what is left of the budget.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from openrpt.config.loading import load_config
from openrpt.config.sections import Config
from openrpt.evaluation.records import COMPARED
from openrpt.json_files import read_as, write_sealed
from openrpt.progress import Named, Progress
from openrpt.runs.run import Run, existing_run, open_run, works_in_run
from openrpt.sheets import percent, points

_MINUTES = 15.0

_ROWS = {
    "standard NTP, start model": ("start", "ntp"),
    "standard NTP, trained model": ("trained", "ntp"),
    "reasoning, untrained": ("start", "reasoning"),
    "reasoning, after warmup": ("warmup", "reasoning"),
    "reasoning, after RPT": ("trained", "reasoning"),
}
_PAIRS = ("RPT − warmup", "RPT − the trained model's own NTP", "RPT − the start model's NTP")
"""The names of the differences in records.COMPARED."""
_BEFORE_WARMUP = "evaluate the start model"
_AFTER_WARMUP = "evaluate after warmup"
CLOCK = "demo.json"
_DIFFICULTY_COLUMNS = ("easy", "medium", "hard")


def demo_config(minutes: float = _MINUTES, run: Path | None = None) -> Config:
    """Returns the recipe; the budget decides how much is scored, evaluated and warmed up."""
    scale = minutes / _MINUTES
    name = f"{minutes:g}m"
    return load_config(
        overrides={
            "run": str(run or Path("runs") / f"demo-{name}"),
            "score.max_tokens": min(int(12_000 * max(scale, 0.1)), 1_000_000),
            "evaluate.positions": max(32, min(int(640 * scale), 4096)),
            "train.eval_positions": max(16, min(int(48 * scale), 512)),
            "train.eval_every": 1,  # few positions and every step: a curve, whatever the machine
            "train.steps": 1_000_000,
            "warmup.steps": max(2, min(int(24 * scale), 48)),
            "warmup.time_limit": 0.25 * minutes,
        }
    )


def config_in(path: Path | None, minutes: float) -> Config:
    """Returns the recipe; in a folder that a demo has begun, that demo's own, so that a larger
    budget goes on with its training (the positions stay those of the first)."""
    config = demo_config(minutes, path)
    folder = Path(config.run)
    if (folder / CLOCK).is_file():
        return existing_run(folder).config
    return config


@dataclass(frozen=True, kw_only=True)
class Used:
    """The part of a budget that `demo.json` keeps."""

    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds of each finished stage."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Seconds of the budget that were used, over all starts of the command."""

    path: Path
    budget: float
    started: float
    before: float
    stages: dict[str, float]
    """Seconds of each finished stage."""

    @classmethod
    def open(cls, run: Run, minutes: float) -> "Clock":
        """Reads what the demo has used so far, and starts the clock."""
        path, used = run.path / CLOCK, Used()
        if path.is_file():
            used = read_as(Used, path, advice="delete it, and the budget counts from now")
        return cls(
            path=path,
            budget=minutes * 60,
            started=time.monotonic(),
            before=used.seconds,
            stages=used.stages,
        )

    @property
    def used(self) -> float:
        """Seconds that the demo has used, all starts together."""
        return self.before + time.monotonic() - self.started

    def save(self) -> None:
        """Writes what is used to `demo.json`."""
        write_sealed(self.path, asdict(Used(seconds=self.used, stages=self.stages)))


def run_demo(minutes: float, run_path: Path | None, progress: Progress) -> Run:
    """Runs (or goes on with) the demo and returns its run, report written.

    Raises Interrupted after Ctrl-C, UserError for bad input.
    """
    from openrpt.stages.score.score import check_input

    run = open_run(config_in(run_path, minutes), check_input=check_input)
    _run_stages(run, minutes, progress)
    return run


@works_in_run
def _run_stages(run: Run, minutes: float, progress: Progress) -> None:
    from openrpt.report.page import write_report
    from openrpt.stages.train import train
    from openrpt.stages.warmup.warmup import warmup

    clock = Clock.open(run, minutes)
    try:
        stages: list[tuple[str, Callable[[Progress], Any]]] = [
            ("score", lambda bar: _score(run, bar)),
            (_BEFORE_WARMUP, lambda bar: _evaluate(run, "start", bar)),
            ("warmup", lambda bar: warmup(run, progress=bar)),
            (_AFTER_WARMUP, lambda bar: _evaluate(run, "warmup", bar)),
            ("train", lambda bar: train(_with_time(run, clock), progress=bar)),
            ("evaluate after RPT", lambda bar: _evaluate(run, "trained", bar)),
        ]
        for number, (name, stage) in enumerate(stages, 1):
            bar = Named(inner=progress, name=f"{number}/{len(stages) + 1}")
            bar.begin(name, 1.0)
            started = time.monotonic()
            stage(bar)
            seconds = time.monotonic() - started
            clock.stages[name] = max(seconds, clock.stages.get(name, 0.0))
            clock.save()
            bar.end()
            progress.say(f"{bar.name} {name}: {seconds:.0f} s")
        write_report(run)
    finally:
        clock.save()


def _score(run: Run, progress: Progress) -> None:
    from openrpt.stages.score.score import score_run

    score_run(run, progress)


def _evaluate(run: Run, model: str, progress: Progress) -> None:
    """Evaluates one of the run's models, unless that was done before."""
    from openrpt.evaluation.models import model_path
    from openrpt.evaluation.next_token.stage import evaluate_model
    from openrpt.evaluation.records import read_evaluation

    known = read_evaluation(run.evaluation)["evaluations"].get(model)
    if known is None or known["model"] != model_path(run, model):
        evaluate_model(run, model, run.config, label=model, progress=progress)


def _with_time(run: Run, clock: Clock) -> Run:
    """Returns the configuration with training's time: training takes what is left, less what the
    last evaluation and the report will need: as long as the slower of the evaluations so far took,
    and a little."""
    from openrpt.engine.checkpoint_record import read_record
    from openrpt.runs.checkpoints import latest_checkpoint

    slower = max(clock.stages[_BEFORE_WARMUP], clock.stages[_AFTER_WARMUP])
    reserve = 1.1 * slower + 0.02 * clock.budget
    spent = 0.0
    last = latest_checkpoint(run.checkpoints)
    if last is not None:
        spent = read_record(last).state.seconds
    left = max(clock.budget - clock.used - reserve, 0.05 * clock.budget)
    train = run.config.train.model_copy(update={"time_limit": (spent + left) / 60})
    return Run(path=run.path, config=run.config.model_copy(update={"train": train}))


def print_outcome(run: Run) -> None:
    """Prints the table, the paired differences, and where everything lies."""
    from openrpt.console import PlainConsole
    from openrpt.evaluation.records import read_evaluation
    from openrpt.sheets import COST_HEADINGS, Sheet, cost_cells, print_sheet

    document = read_evaluation(run.evaluation)
    console = PlainConsole()
    evaluations = document["evaluations"]
    sizes = evaluations["start"]["summary"]["ntp"]
    rows = []
    for title, (label, mode) in _ROWS.items():
        summary = evaluations[label]["summary"][mode]
        cells = [percent(summary[name]).removesuffix(" %") for name in _DIFFICULTY_COLUMNS]
        rows.append([title, *cells, *cost_cells(evaluations[label]["cost"])])
    accuracy = Sheet(
        title="Next-token accuracy on held-out text, % ± standard error by document",
        headings=[
            "",
            *(f"{name} (n = {sizes[name]['n']})" for name in _DIFFICULTY_COLUMNS),
            *COST_HEADINGS,
        ],
        rows=rows,
    )
    print_sheet(accuracy, console)
    paired = {tuple(found["b"].values()): found for found in document["differences"]}
    rows = []
    for title, other in zip(_PAIRS, COMPARED, strict=True):
        difference = paired[other]["difference"]
        rows.append([title, *(_points(difference[name]) for name in _DIFFICULTY_COLUMNS)])
    differences = Sheet(
        title="Paired differences, points [95 % interval]",
        headings=["", *_DIFFICULTY_COLUMNS],
        rows=rows,
    )
    print_sheet(differences, console)
    console.print(
        "What warmup gains is form. RPT is said to help only where it beats NTP of the start "
        "model and of the trained model itself.",
        style="dim",
    )
    console.print(f"run     {run.path}", soft_wrap=True, highlight=False)
    console.print(f"report  {run.path / 'report.html'}", soft_wrap=True, highlight=False)


def _points(difference: dict[str, float]) -> str:
    text = points(difference)
    return text if difference["distinguishable"] else f"{text}\nnot distinguishable"
