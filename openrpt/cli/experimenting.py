"""The command that runs the paper's experiments and open questions: experiment."""

from pathlib import Path

import click

from openrpt.cli.arguments import PATH, Number
from openrpt.cli.main import command, showing_progress
from openrpt.errors import UserError
from openrpt.terminal import say


@command("experiment", after="lab")
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--budget", default="cpu", help="Its size: smoke, cpu, gpu or paper [default cpu]")
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
@click.option(
    "--utilisation",
    type=Number(0, 1, min_open=True),
    help="Share of the GPU's peak rate that is reached [default 0.25]",
)
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

    Without a NAME, the list of them. smoke and cpu are laboratories of tiny models, gpu and paper
    real text; the budget decides how much is run, nothing else. The same command goes on after a
    stop, arm by arm. results.json, page.md and figure.svg in its folder have the seeds that are
    whole so far (docs/experiments.md).
    """
    if (gpu or utilisation) and not estimate:
        raise UserError("--gpu and --utilisation are of an estimate: say --estimate")
    if utilisation and not gpu:
        raise UserError("--utilisation is of a GPU's peak: name one with --gpu")
    from openrpt.console import PlainConsole
    from openrpt.costs.estimate import UTILISATION
    from openrpt.engine.cpu import usable_cpus
    from openrpt.experiments.answers.catalog import EXPERIMENTS, experiment_named
    from openrpt.experiments.answers.estimating import estimate_experiment, estimate_sheet
    from openrpt.experiments.answers.experiment import size_named
    from openrpt.experiments.answers.files import PAGE
    from openrpt.experiments.answers.page import result_sheets
    from openrpt.experiments.answers.run import run_experiment
    from openrpt.sheets import Sheet, print_sheet

    console, size = PlainConsole(), size_named(budget)
    if name is None:
        rows = [[one.name, one.question] for one in EXPERIMENTS.values()]
        print_sheet(Sheet(title="", headings=["", "question"], rows=rows, labels=2), console)
        return
    chosen = experiment_named(name)
    if estimate:
        with showing_progress() as progress:
            found = estimate_experiment(
                chosen, size, gpu=gpu, utilisation=utilisation or UTILISATION, progress=progress
            )
        print_sheet(estimate_sheet(chosen, found), console)
        return
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
    if not outcome.measured:
        return
    for sheet in result_sheets(chosen, outcome):
        print_sheet(sheet, console)
    say(chosen.answer(outcome))
    say(folder / PAGE)
