"""The commands that run several stages in one: experiment, control, demo, lab."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openrpt.cli.arguments import LABEL, OF_PEAK, PATH, RunCommand
from openrpt.cli.main import command, showing_progress, stage
from openrpt.cli.options import StageCommand
from openrpt.cli.stage_config import stage_config, take_cpu, with_faster_products
from openrpt.errors import UserError
from openrpt.terminal import say

if TYPE_CHECKING:
    from openrpt.experiments.answers.experiment import Experiment, Size
    from openrpt.experiments.answers.outcome import Outcome

_MOST_MINUTES = 60_000
"""The longest budget of the demo, in minutes."""


@command("experiment", after="lab")
@click.argument("name", metavar="[NAME]", required=False)
@click.option(
    "--budget", default="cpu", help="Its size: smoke, cpu, text, gpu or paper [default cpu]"
)
@click.option(
    "--run", metavar="DIR", type=PATH, help="Its folder [default runs/experiment-NAME-BUDGET]"
)
@click.option(
    "--seed", type=click.IntRange(0, 2**31), help="Only this seed [default all of the budget]"
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Processes side by side [default as many as there are CPUs; on real text 1]",
)
@click.option("--estimate", is_flag=True, help="Only say what it will take, and run nothing")
@click.option("--gpu", default="", metavar="NAME", help="Estimate for a GPU by name, e.g. h200")
@OF_PEAK
def experiment(
    name: str | None,
    budget: str,
    run: str | None,
    seed: int | None,
    workers: int | None,
    estimate: bool,
    gpu: str,
    utilisation: float | None,
) -> None:
    """Answer one of the paper's questions, with a page.

    \b
    openrpt experiment
    openrpt experiment rewards --budget cpu
    openrpt experiment rewards --budget paper --estimate --gpu h200

    Without a NAME, the list of them. smoke and cpu are laboratories of tiny models; text is natural
    sentences with a small model on two cores, gpu and paper real text; the budget decides how much
    is run, nothing else. The same command goes on after a stop, arm by arm. results.json, page.md
    and figure.svg in its folder have the seeds that are whole so far (docs/experiments.md).
    """
    if (gpu or utilisation) and not estimate:
        raise UserError("--gpu and --utilisation are of an estimate: say --estimate")
    if utilisation and not gpu:
        raise UserError("--utilisation is of a GPU's peak: name one with --gpu")
    from openrpt.experiments.answers.catalog import experiment_named
    from openrpt.experiments.answers.experiment import size_named

    size = size_named(budget)
    if name is None:
        _print_experiments()
        return
    chosen = experiment_named(name)
    if estimate:
        _print_estimate(chosen, size, gpu=gpu, utilisation=utilisation)
        return
    from openrpt.engine.cpu import usable_cpus
    from openrpt.experiments.answers.run import run_experiment

    folder = Path(run) if run else Path("runs") / f"experiment-{name}-{budget}"
    with showing_progress(goes_on=True) as progress:
        outcome = run_experiment(
            chosen,
            size,
            folder,
            seeds=() if seed is None else (seed,),
            workers=workers or (1 if size.recipe else usable_cpus()),
            progress=progress,
        )
    if outcome.measured:
        _print_outcome(chosen, outcome, folder)


def _print_experiments() -> None:
    from openrpt.console import PlainConsole
    from openrpt.experiments.answers.catalog import EXPERIMENTS
    from openrpt.sheets import Sheet, print_sheet

    rows = [[one.name, one.question] for one in EXPERIMENTS.values()]
    sheet = Sheet(title="", headings=["", "question"], rows=rows, labels=2)
    print_sheet(sheet, PlainConsole())


def _print_estimate(
    chosen: "Experiment", size: "Size", *, gpu: str, utilisation: float | None
) -> None:
    """Prints what the experiment will take, on this machine or on a GPU by name."""
    from openrpt.console import PlainConsole
    from openrpt.costs.estimate import UTILISATION
    from openrpt.experiments.answers.estimating import estimate_experiment, estimate_sheet
    from openrpt.sheets import print_sheet

    with showing_progress() as progress:
        found = estimate_experiment(
            chosen, size, gpu=gpu, utilisation=utilisation or UTILISATION, progress=progress
        )
    print_sheet(estimate_sheet(chosen, found), PlainConsole())


def _print_outcome(chosen: "Experiment", outcome: "Outcome", folder: Path) -> None:
    """Prints the experiment's tables, its answer, and where its page lies."""
    from openrpt.console import PlainConsole
    from openrpt.experiments.answers.files import PAGE
    from openrpt.experiments.answers.page import result_sheets
    from openrpt.sheets import print_sheet

    console = PlainConsole()
    for sheet in result_sheets(chosen, outcome):
        print_sheet(sheet, console)
    say(chosen.answer(outcome))
    say(folder / PAGE)


class _ControlCommand(RunCommand, StageCommand):
    """A stage's command whose first argument is a run."""


@stage("control", "evaluate", "pretrain", after="sweep", cls=_ControlCommand)
@click.argument("run_folder", metavar="RUN", type=PATH)
@click.argument("names", metavar="[CONTROL...]", nargs=-1)
@click.option(
    "--label", type=LABEL, default="", help="Its folder and its line [default the control's name]"
)
@click.pass_context
def control(
    ctx: click.Context, run_folder: str, names: tuple[str, ...], label: str, **options: Any
) -> None:
    """Train and evaluate what a run must beat.

    \b
    openrpt control runs/maths
    openrpt control runs/maths random-reward no-thought ntp-flops
    openrpt control runs/maths ntp-flops --label ntp-5e-5 --pretrain.learning_rate 5e-5

    Without a CONTROL, the list of them. Each takes the run's scores, and as many steps of the same
    documents and positions (ntp-flops: as many FLOPs; ntp-time: as much time); "all" stands for
    all of them. The same command goes on after a stop. Then: openrpt compare RUN
    """
    from openrpt.experiments.controls import CONTROLS, print_controls, run_controls
    from openrpt.runs.run import existing_run

    run = existing_run(Path(run_folder))
    config = stage_config(ctx, options["config_file"], base=run.config)
    if not names:
        print_controls(run)
        return
    chosen = list(CONTROLS) if names == ("all",) else names
    with showing_progress(goes_on=True) as progress:
        labels = run_controls(run, chosen, config, label=label, progress=progress)
    say(f"recorded in {run.evaluation}: {', '.join(labels)}")
    say(f"all in one table: openrpt compare {run.path}")


@command("demo", after="watch")
@click.option("--budget", default="15m", help="Time that it may take: 90s, 15m, 1.5h [default 15m]")
@click.option("--run", metavar="DIR", type=PATH, help="Run folder")
@click.option(
    "--model.threads",
    "threads",
    type=click.IntRange(min=0),
    default=0,
    help="CPU threads; 0 = all the cores this process may use [default 0]",
)
def demo(budget: str, run: str | None, threads: int) -> None:
    """Run the whole pipeline on a small model and a small text.

    \b
    openrpt demo --budget 1h
    """
    minutes = parse_budget(budget)
    from openrpt.experiments.demo import config_in, print_outcome, run_demo

    config = config_in(Path(run) if run else None, minutes)
    take_cpu(threads or config.model.threads)
    config = with_faster_products(config)
    with showing_progress(goes_on=True) as progress:
        done = run_demo(config, minutes, progress)
    print_outcome(done)


@command("lab", after="control")
@click.argument("world", metavar="WORLD")
@click.option("--run", metavar="DIR", type=PATH, help="Folder of its runs [default runs/lab-WORLD]")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31),
    default=0,
    help="Of texts, weights and draws [default 0]",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 100),
    default=1,
    help="So many comparisons, from --seed on [default 1]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Processes side by side, a CPU thread each [default as many as there are CPUs]",
)
def lab(world: str, run: str | None, seed: int, seeds: int, workers: int | None) -> None:
    """Compare ways to learn on a small world of text, from scratch.

    \b
    openrpt lab scan
    openrpt lab 'permutations?depth=12' --seeds 3

    WORLD is sums, scan, permutations, registers, nested or find, with its parameters (docs/lab.md).
    A tiny model is pre-trained on the world's text; reinforcement, the same with a coin as reward
    and with no thought or a useless one, plain next-token training and worked lines alone go on
    from there; a deeper model learns without thoughts. The same command goes on after a stop, and
    with more --seeds adds to them. lab.json, lab.md and lab.svg in its folder hold accuracy by
    depth, of all seeds that lie there.
    """
    from openrpt.data.worlds.reading import open_world

    open_world(f"lab:{world}")  # an unknown one is refused before what takes seconds is loaded
    from openrpt.console import PlainConsole
    from openrpt.engine.cpu import usable_cpus
    from openrpt.experiments.lab.lab import Lab
    from openrpt.experiments.lab.run import run_lab
    from openrpt.experiments.lab.tables import lab_sheets
    from openrpt.sheets import print_sheet

    folder = Path(run) if run else Path("runs") / f"lab-{world.partition('?')[0]}"
    plan = Lab(
        folder=folder,
        world=world,
        seeds=range(seed, seed + seeds),
        changes={"model.threads": 1},
    )
    with showing_progress(goes_on=True) as progress:
        outcome = run_lab(plan, workers=workers or usable_cpus(), progress=progress)
    for sheet in lab_sheets(outcome):
        print_sheet(sheet, PlainConsole())


def parse_budget(text: str) -> float:
    """Returns the minutes of `90s`, `15m` or `1.5h`. Raises UserError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    minutes = float(match[1]) * {"s": 1 / 60, "m": 1.0, "h": 60.0}[match[2]] if match else 0.0
    if not 0 < minutes <= _MOST_MINUTES:
        raise UserError(f"--budget {text}: a time such as 90s, 15m or 1.5h, at most 1000h")
    return minutes
