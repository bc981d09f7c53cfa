"""The commands that look: rollouts, status, report, watch, predict, estimate, doctor."""

import sys
from pathlib import Path
from typing import Any

import click

from openrpt.cli.arguments import COUNT, LABEL, PATH, STEP, TEXT, Number, RunCommand
from openrpt.cli.main import command, showing_progress, stage
from openrpt.cli.options import OVERRIDES
from openrpt.cli.stage_config import only_config, stage_config
from openrpt.errors import UserError
from openrpt.terminal import say, say_lines


@command("rollouts", after="probe", cls=RunCommand)
@click.argument("run", metavar="RUN", type=PATH)
@click.option("--step", type=STEP, help="Step of train [default: the last stored]")
@click.option("--development", is_flag=True, help="Of the development evaluation after that step")
@click.option(
    "--model", type=LABEL, metavar="LABEL", help="Of an evaluated model: start, warmup, trained, …"
)
@click.option("--document", metavar="ID", help="Only this document (or the beginning of its id)")
@click.option("--position", type=STEP, help="Only this position, a token index")
@click.option("--limit", type=COUNT, default=20, help="Most groups [default 20]")
@click.option("--json", "as_json", is_flag=True, help="JSON lines, one a rollout")
@click.option("--pager/--no-pager", default=True, help="Long output through $PAGER [default on]")
def rollouts(
    run: str,
    step: int | None,
    development: bool,
    model: str | None,
    document: str | None,
    position: int | None,
    limit: int,
    as_json: bool,
    pager: bool,
) -> None:
    """Read what the policy thought, predicted and earned in a step.

    \b
    openrpt rollouts runs/maths --step 40 --limit 5
    openrpt rollouts runs/maths --model trained
    """
    import json

    from openrpt.runs.reading import look_at
    from openrpt.runs.rollouts import read_evaluated, read_rollouts
    from openrpt.runs.show import json_row, page, print_groups

    if model and (step is not None or development):
        raise UserError("--model is of no step: leave out --step and --development")
    path = look_at(Path(run))[0].path
    stored = (
        read_evaluated(path, model) if model else read_rollouts(path, step, development=development)
    )
    rows = stored.to_pylist()
    found = [
        row
        for row in rows
        if row["document_id"].startswith(document or "") and position in (None, row["position"])
    ]
    if not found:
        whose = model or f"step {rows[0]['step'] if rows else step}"
        raise UserError(f"{run}: no such document or position among the rollouts of {whose}")
    groups = list(dict.fromkeys((row["document_id"], row["position"]) for row in found))
    shown = set(groups[:limit])
    kept = [row for row in found if (row["document_id"], row["position"]) in shown]
    if as_json:
        for row in kept:
            say(json.dumps(json_row(row)))
        return
    page(lambda console: print_groups(kept, console), pager=pager)
    if len(groups) > limit:
        say(f"… and {len(groups) - limit} more groups (--limit)")


@command("status", cls=RunCommand)
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


@stage(
    "estimate",
    "run",
    "model",
    "engine.trainer",
    "corpus",
    "score",
    "prompt",
    "warmup",
    "train",
    "evaluate",
    "questions",
    "finetune",
    "cost",
    after="patterns",
)
@click.argument("config_toml", metavar="[CONFIG.toml]", type=PATH, required=False)
@click.option(
    "--gpu",
    default="",
    metavar="NAME",
    help="A GPU by name, e.g. h100-sxm, in place of this machine",
)
@click.option(
    "--gpus",
    type=click.IntRange(1, 100_000),
    default=1,
    help="So many of them, which share out each step's documents [default 1]",
)
@click.option(
    "--utilisation",
    type=Number(0, 1, min_open=True),
    help="Share of the GPU's peak rate that is reached [default 0.25]",
)
@click.option("--json", "as_json", is_flag=True, help="JSON in place of the table")
@click.pass_context
def estimate(
    ctx: click.Context,
    config_toml: str | None,
    gpu: str,
    gpus: int,
    utilisation: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Say what a run will take: time, memory, energy, money.

    \b
    openrpt estimate recipe:demo --train.steps 200 --cost.price_per_hour 0.40
    openrpt estimate recipe:demo --gpu h100-sxm --model.dtype bfloat16
    openrpt estimate recipe:paper-7b --gpu h100-sxm --gpus 8

    Without --gpu this machine is measured for about ten seconds. Nothing is written.
    """
    if utilisation is not None and not gpu:
        raise UserError("--utilisation is of a GPU's peak: name one with --gpu")
    if gpus > 1 and not gpu:
        raise UserError("--gpus says how many of a named GPU there are: name it with --gpu")
    config = stage_config(ctx, only_config(config_toml, options["config_file"]))
    import json

    from openrpt.console import PlainConsole
    from openrpt.costs.estimate import UTILISATION, print_estimate
    from openrpt.costs.estimate import estimate as make_estimate

    with showing_progress() as progress:
        found = make_estimate(
            config,
            gpu=gpu,
            gpus=gpus,
            utilisation=utilisation or UTILISATION,
            progress=progress,
        )
    if as_json:
        say_lines(json.dumps(found.as_dict(), indent=1))
    else:
        print_estimate(found, PlainConsole())


@stage("predict", "seed", "run", "model", "engine.trainer", "prompt", after="scaling")
@click.argument("model", metavar="MODEL", type=PATH)
@click.option(
    "--text", type=TEXT, required=True, help="The text to go on from; - reads it from stdin"
)
@click.option(
    "--continuation", type=TEXT, default="", help="What truly follows: each prediction is graded"
)
@click.option("--samples", type=click.IntRange(1, 1000), default=4, help="Rollouts [default 4]")
@click.option(
    "--temperature",
    type=Number(0.001, 100),
    default=1.0,
    help="Of sampling [default 1]",
)
@click.option("--greedy", is_flag=True, help="The one most probable rollout in place of samples")
@click.pass_context
def predict(
    ctx: click.Context,
    model: str,
    text: str,
    continuation: str,
    samples: int,
    temperature: float,
    greedy: bool,
    **options: Any,
) -> None:
    """Show thoughts and predictions at the end of a text of yours.

    \b
    openrpt predict trained --run runs/maths --text "The sum of 2 and 3" --continuation " is 5."

    MODEL is as in openrpt evaluate; a run's own needs --run, and a run folder stands for its latest
    model. A checkpoint is prompted as it was trained.
    """
    from openrpt.config.loading import load_config
    from openrpt.evaluation.models import OWN_MODELS, model_path
    from openrpt.runs.run import Run, existing_run
    from openrpt.stages.predict import checkpoint_config

    given = ctx.meta.get(OVERRIDES, {}).get("run")
    if model in OWN_MODELS and given is None:
        raise UserError(f"{model}: a run's own model; say of which with --run RUN")
    run = existing_run(Path(given)) if given else Run(path=Path(), config=load_config())
    model = model_path(run, model)
    base = checkpoint_config(model) or run.config
    config = stage_config(ctx, options["config_file"], base=base)
    if text == "-":
        text = _standard_input()
    from openrpt.console import PlainConsole
    from openrpt.engine.engine import open_engine
    from openrpt.engine.loading import resolve_model
    from openrpt.runs.rollouts import evaluated_table
    from openrpt.runs.show import group_lines
    from openrpt.stages.predict import cut_at_end
    from openrpt.stages.predict import predict as run_predict

    resolve_model(model)  # what is no model is said before it is said to be loaded
    with showing_progress() as progress:
        progress.begin(f"load {model}", 0)
        start = None
        if config.prompt.candidates and config.prompt.candidate_source == "start":
            start = open_engine(config)
        engine = open_engine(config, path=model, start=start)
        cut = cut_at_end(engine.model.tokenizer, text, continuation)
        group = run_predict(
            engine,
            cut,
            config,
            samples=1 if greedy else samples,
            temperature=0.0 if greedy else temperature,
            progress=progress,
        )
    if cut.note:
        say(f"note: {cut.note}", err=True)
    rows = evaluated_table([group], cut.token_bytes, engine.model.table).to_pylist()
    console = PlainConsole()
    for line in group_lines(rows):
        console.print(line, soft_wrap=True)


def _standard_input() -> str:
    """Reads all of stdin as UTF-8, without the line break that ends a file or an `echo`."""
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UserError(f"--text -: not UTF-8 at byte {error.start}") from None


@command("report", cls=RunCommand)
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

    serve([Path(run) for run in runs], port=port, open_browser=open_browser, say=say)


@command("doctor", after="demo")
def doctor() -> None:
    """Say what machine this is, and what to do about anything wrong.

    \b
    openrpt doctor
    """
    from openrpt.cli.doctor import diagnose, print_report

    print_report(diagnose())
