"""The commands that show thoughts: rollouts, predict."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openrpt.cli.arguments import COUNT, LABEL, PATH, STEP, TEXT, Number, RunCommand
from openrpt.cli.main import command, showing_progress, stage
from openrpt.cli.options import OVERRIDES
from openrpt.cli.stage_config import stage_config
from openrpt.errors import UserError
from openrpt.terminal import say

if TYPE_CHECKING:
    from openrpt.config.sections import Config


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
    model, base = _model_and_base(ctx, model)
    config = stage_config(ctx, options["config_file"], base=base)
    if text == "-":
        text = _standard_input()
    from openrpt.console import PlainConsole
    from openrpt.data.prompt_texts import template_of
    from openrpt.engine.engine import open_engine, open_seeding_start
    from openrpt.engine.loading import resolve_model
    from openrpt.runs.rollouts import evaluated_table
    from openrpt.runs.show import group_lines
    from openrpt.stages.predict import cut_at_end
    from openrpt.stages.predict import predict as run_predict

    resolve_model(model)  # what is no model is said before it is said to be loaded
    template_of(config.prompt)
    with showing_progress() as progress:
        progress.begin(f"load {model}", 0)
        engine = open_engine(config, path=model, start=open_seeding_start(config))
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


def _model_and_base(ctx: click.Context, model: str) -> "tuple[str, Config]":
    """Returns where the model lies, and the configuration that it was trained under: that of the
    checkpoint, else of the run that the command line names, else the defaults."""
    from openrpt.config.loading import load_config
    from openrpt.config.sections import OWN_MODELS
    from openrpt.evaluation.models import model_path
    from openrpt.runs.run import Run, existing_run
    from openrpt.stages.predict import checkpoint_config

    given = ctx.meta.get(OVERRIDES, {}).get("run")
    if model in OWN_MODELS and given is None:
        raise UserError(f"{model}: a run's own model; say of which with --run RUN")
    run = existing_run(Path(given)) if given else Run(path=Path(), config=load_config())
    path = model_path(run, model)
    return path, checkpoint_config(path) or run.config


def _standard_input() -> str:
    """Reads all of stdin as UTF-8, without the line break that ends a file or an `echo`."""
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UserError(f"--text -: not UTF-8 at byte {error.start}") from None
