"""The commands that export a run to other frameworks."""

from pathlib import Path

import click

from openrpt.cli.arguments import COUNT, PATH
from openrpt.cli.main import command, showing_progress
from openrpt.cli.options import StageCommand
from openrpt.cli.stage_config import stage_config
from openrpt.terminal import say, say_lines


@command("export", after="pretrain", cls=click.Group, invoke_without_command=True)
@click.pass_context
def export(ctx: click.Context) -> None:
    """Write a run for another framework to train.

    \b
    openrpt export verl --run runs/maths --out for-verl
    """
    if ctx.invoked_subcommand is None:
        say_lines(ctx.get_help())


@export.command("verl", cls=StageCommand, shows=(), reads="train")
@click.argument("run_folder", metavar="[RUN]", type=PATH, required=False)
@click.option("--out", metavar="FOLDER", type=PATH, required=True, help="The folder to write")
@click.option(
    "--positions", type=COUNT, help="Training positions [default those of train.steps steps]"
)
@click.pass_context
def verl(
    ctx: click.Context,
    run_folder: str | None,
    out: str,
    positions: int | None,
    config_file: str | None,
    **options: object,
) -> None:
    """Write what verl trains a scored run from.

    \b
    openrpt export verl runs/paper --out for-verl
    openrpt export verl --run runs/maths --prompt.candidates 0 --prompt.think_budget 256
      --train.ntp_weight 0 --out for-verl

    Parquet files of prompts as token ids with the bytes that truly follow, the positions that
    train would choose, in its order; verl's configuration with the run's values; an agent loop
    that rewards byte-exactly; scripts for a node and for a Ray cluster.
    """
    config = stage_config(ctx, config_file, more={"run": run_folder} if run_folder else None)
    from openrpt.integrations.verl.export import export_verl
    from openrpt.runs.run import existing_run

    existing_run(Path(config.run))
    with showing_progress() as progress:
        summary = export_verl(config, Path(out), positions=positions, progress=progress)
    for line in summary.lines():
        say(line)
    say(f"for verl: {out} (begin with its README.md)")
