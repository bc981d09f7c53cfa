"""The commands that look at runs: status, report, watch."""

from pathlib import Path

import click

from openrpt.cli.arguments import PATH, RunCommand
from openrpt.cli.main import begin_work, command
from openrpt.errors import UserError
from openrpt.terminal import say


@command("status", after="rollouts", cls=RunCommand)
@click.argument("runs", metavar="RUN…", type=PATH, nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="JSON lines, one a run")
def status(runs: tuple[str, ...], as_json: bool) -> None:
    """Say how far runs are, when they end, and what looks wrong.

    \b
    openrpt status runs/maths runs/wiki
    """
    import json

    from openrpt.console import PlainConsole
    from openrpt.runs.status import print_status, read_status

    console, failed = PlainConsole(), []
    for run in runs:
        try:
            found = read_status(Path(run))
        except UserError as error:
            failed.append(str(error))
            continue
        if as_json:
            say(json.dumps(found.as_dict() | {"verdict": _verdict(Path(run))}))
        else:
            print_status(found, console)
            for sentence in _verdict(Path(run)):
                console.print(f"  {sentence}", soft_wrap=True, markup=False)
    if failed:
        raise UserError("; ".join(failed))


def _verdict(path: Path) -> list[str]:
    """Returns what came of a run, as its report begins; empty before a model was evaluated and
    while every metric is healthy."""
    from openrpt.evaluation.records import read_evaluation
    from openrpt.report.verdict import run_verdict
    from openrpt.runs.metrics import readable_metrics
    from openrpt.runs.reading import look_at

    run, _ = look_at(path)
    try:
        evaluations = read_evaluation(run.evaluation)["evaluations"]
    except UserError as error:
        return [f"note: {error}"]
    found = run_verdict(evaluations, readable_metrics(run.metrics)[0], run.config.prompt)
    return [*(found.said if evaluations else []), *found.caveats]


@command("report", after="predict", cls=RunCommand)
@click.argument("run", metavar="RUN", type=PATH)
@click.argument("others", metavar="[OTHER]...", type=PATH, nargs=-1)
def report(run: str, others: tuple[str, ...]) -> None:
    """Write a run's report: one HTML file. The curves of other runs are drawn over its own.

    \b
    openrpt report runs/maths
    openrpt report runs/maths runs/random-reward
    """
    from openrpt.report.page import write_report
    from openrpt.runs.reading import look_at

    found, notes = look_at(Path(run))
    for note in notes:
        say(f"note: {note}", err=True)
    overlaid = [look_at(Path(other))[0] for other in others]
    say(write_report(found, overlaid, notes))


@command("watch", cls=RunCommand)
@click.argument("runs", metavar="RUN…", type=PATH, nargs=-1, required=True)
@click.option("--port", type=click.IntRange(1, 65535), help="Port [default the first free one]")
@click.option("--open", "open_browser", is_flag=True, help="Open it in the browser")
def watch(runs: tuple[str, ...], port: int | None, open_browser: bool) -> None:
    """Follow runs in the browser: their reports, kept up to date.

    \b
    openrpt watch runs/maths runs/wiki --open

    On this machine only (127.0.0.1), from the runs' files; the runs are not touched.
    """
    from openrpt.report.watch import serve
    from openrpt.runs.run import is_run, why_no_run

    for path in map(Path, runs):
        if path.is_dir() and not is_run(path) and any(path.iterdir()):
            raise UserError(f"{path}: not a run folder ({why_no_run(path)})")
    begin_work()
    serve([Path(run) for run in runs], port=port, open_browser=open_browser, say=say)
