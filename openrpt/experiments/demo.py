"""The main job, sized to a time budget: score → traces → warmup → evaluate → train → evaluate →
report.

Each stage leaves its files in the run folder, so the same command goes on from where it was.
Training fills what is left of the budget.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from openrpt.config.loading import load_config, with_overrides
from openrpt.config.recipes import config_path
from openrpt.config.sections import Config
from openrpt.data.bills import is_bills
from openrpt.errors import UserError
from openrpt.experiments.demo_tables import EVERYWHERE, demo_sheets, verdict
from openrpt.json_files import read_as, write_sealed
from openrpt.progress import Named, Progress
from openrpt.runs.run import Run, existing_run, is_run, open_run, works_in_run

_MINUTES = 15.0

_DOCUMENTS = 330
_START = "evaluate the start model"
_AFTER_WARMUP = "evaluate after warmup"
CLOCK = "demo.json"


def demo_config(minutes: float = _MINUTES, run: Path | None = None) -> Config:
    """Returns the recipe; the budget decides how much is read, evaluated and warmed up."""
    scale = minutes / _MINUTES
    documents = max(60, min(int(_DOCUMENTS * scale), 20_000))
    folder = Path(run or Path("runs") / f"demo-{minutes:g}m")
    return load_config(
        config_path("recipe:demo"),
        overrides={
            "run": str(folder),
            "corpus.path": f"bills?documents={documents}&seed=2",
            "warmup.traces": str(folder / "traces.jsonl"),
            "warmup.steps": max(4, min(int(50 * scale), 200)),
            "warmup.time_limit": 8 / _MINUTES * minutes,
            "train.eval_positions": max(8, min(int(12 * scale), 512)),
            "evaluate.positions": max(32, min(int(160 * scale), 4096)),
        },
    )


def config_in(path: Path | None, minutes: float) -> Config:
    """Returns the recipe; in a folder that a demo has begun, that demo's own, so that a larger
    budget goes on with its training (the positions stay those of the first).

    Raises UserError where a run on another text stands there: one's own, or the demo of an earlier
    version, from which the later stages could not go on.
    """
    config = demo_config(minutes, path)
    folder = Path(config.run)
    if not is_run(folder):
        return config
    begun = existing_run(folder).config
    if not is_bills(begun.corpus.path):
        raise UserError(
            f"{folder}: not this version's demo (corpus.path = '{begun.corpus.path}'); give another"
            " folder (--run), or delete this one"
        )
    return begun if (folder / CLOCK).is_file() else config


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


def run_demo(config: Config, minutes: float, progress: Progress) -> Run:
    """Runs (or goes on with) the demo of a configuration (`config_in`) and returns its run, report
    written.

    Raises Interrupted after Ctrl-C, UserError for bad input.
    """
    from openrpt.stages.score.score import check_input

    run = open_run(config, check_input=check_input)
    _run_stages(run, minutes, progress)
    return run


@works_in_run
def _run_stages(run: Run, minutes: float, progress: Progress) -> None:
    from openrpt.engine.cpu import give_back_memory
    from openrpt.report.page import write_report
    from openrpt.stages.train import train
    from openrpt.stages.warmup.warmup import warmup

    clock = Clock.open(run, minutes)
    try:
        stages: list[tuple[str, Callable[[Progress], Any]]] = [
            ("score", lambda bar: _score(run, bar)),
            ("traces", lambda bar: _write_traces(run, bar)),
            (_START, lambda bar: _evaluate(run, "start", bar, {"evaluate.modes": ["ntp"]})),
            ("warmup", lambda bar: warmup(run, progress=bar)),
            (_AFTER_WARMUP, lambda bar: _evaluate(run, "warmup", bar)),
            ("train", lambda bar: train(_with_time(run, clock), progress=bar)),
            ("evaluate after RPT", lambda bar: _evaluate(run, "trained", bar)),
            (
                "evaluate everywhere",
                lambda bar: _evaluate(run, "trained", bar, _everywhere(run), label=EVERYWHERE),
            ),
        ]
        for number, (name, stage) in enumerate(stages, 1):
            bar = Named(inner=progress, name=f"{number}/{len(stages) + 1}")
            bar.begin(name, 1.0)
            started = time.monotonic()
            stage(bar)
            give_back_memory()
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


def _write_traces(run: Run, progress: Progress) -> None:
    """Writes the calculator's thoughts about the training documents, unless they are there."""
    from openrpt.stages.traces.calculator import calculator_traces

    path = Path(run.config.warmup.traces)
    if not path.is_file():
        calculator_traces(run.config, path, progress=progress)


def _everywhere(run: Run) -> dict[str, Any]:
    """Returns what an evaluation at positions of all kinds changes."""
    return {"evaluate.where": "", "evaluate.positions": run.config.evaluate.positions // 2}


def _evaluate(
    run: Run,
    model: str,
    progress: Progress,
    changes: dict[str, Any] | None = None,
    *,
    label: str | None = None,
) -> None:
    """Evaluates one of the run's models, unless that was done before."""
    from openrpt.evaluation.models import model_path
    from openrpt.evaluation.next_token.stage import evaluate_model
    from openrpt.evaluation.records import read_evaluation

    label = label or model
    known = read_evaluation(run.evaluation)["evaluations"].get(label)
    if known is None or known["model"] != model_path(run, model):
        config = with_overrides(run.config, changes or {})
        evaluate_model(run, model, config, label=label, progress=progress)


def _with_time(run: Run, clock: Clock) -> Run:
    """Returns the configuration with training's time: training takes what is left, less what the
    last two evaluations and the report will need: one and a half times as long as the evaluation
    after warmup took, since the second has half as many positions, and a little."""
    from openrpt.engine.checkpoint_record import read_record
    from openrpt.runs.checkpoints import latest_checkpoint

    reserve = 1.5 * clock.stages[_AFTER_WARMUP] + 0.02 * clock.budget
    spent = 0.0
    last = latest_checkpoint(run.checkpoints)
    if last is not None:
        spent = read_record(last).state.seconds
    left = max(clock.budget - clock.used - reserve, 0.05 * clock.budget)
    train = run.config.train.model_copy(update={"time_limit": (spent + left) / 60})
    return Run(path=run.path, config=run.config.model_copy(update={"train": train}))


def print_outcome(run: Run) -> None:
    """Prints the tables, what they say in a sentence, and where everything lies."""
    from openrpt.console import PlainConsole
    from openrpt.sheets import print_sheet

    console = PlainConsole()
    for sheet in demo_sheets(run):
        print_sheet(sheet, console)
    console.print(verdict(run), highlight=False)
    console.print(
        "The thoughts are the calculator's at first (supervised), then reinforced.", style="dim"
    )
    console.print(f"run     {run.path}", soft_wrap=True, highlight=False)
    console.print(f"report  {run.path / 'report.html'}", soft_wrap=True, highlight=False)
