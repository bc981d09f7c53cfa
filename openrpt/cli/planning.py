"""The commands to ask before a run: estimate, doctor."""

from typing import Any

import click

from openrpt.cli.arguments import OF_PEAK, PATH
from openrpt.cli.main import command, showing_progress, stage
from openrpt.cli.stage_config import only_config, stage_config
from openrpt.errors import UserError
from openrpt.terminal import say_lines


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
@OF_PEAK
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
    openrpt estimate recipe:demo --train.steps 200 --gpu h100-sxm --model.compute_dtype bfloat16
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
    from openrpt.costs.estimate import UTILISATION
    from openrpt.costs.estimate import estimate as make_estimate
    from openrpt.costs.run_estimate import print_estimate

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


@command("doctor", after="demo")
def doctor() -> None:
    """Say what machine this is, and what to do about anything wrong.

    \b
    openrpt doctor
    """
    from openrpt.cli.doctor import diagnose, print_report

    print_report(diagnose())
