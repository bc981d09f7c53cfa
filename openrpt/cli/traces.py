"""The commands that make traces: thoughts to be given."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from openrpt.cli.arguments import PATH, TEXT, Number
from openrpt.cli.key_types import CommaSeparated
from openrpt.cli.main import command, showing_progress
from openrpt.cli.options import StageCommand
from openrpt.cli.scaling import cluster_of, opening, scalable
from openrpt.cli.stage_config import source_config, stage_config
from openrpt.errors import UserError
from openrpt.terminal import say, say_lines

if TYPE_CHECKING:
    from openrpt.config.sections import Config
    from openrpt.data.scored import ScoredCorpus
    from openrpt.stages.traces.sampled import Draw
    from openrpt.stages.traces.thinkers import Thinker

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OUT = click.option(
    "--out", metavar="FILE", type=PATH, required=True, help="The traces: a .jsonl or .parquet file"
)
_SAMPLED = (
    "run",
    "model",
    "engine.trainer",
    "prompt",
    "selection",
    "memory.generation_rollouts",
)
"""What thoughts that a model makes depend on."""


@command("traces", cls=click.Group, invoke_without_command=True)
@click.pass_context
def traces(ctx: click.Context) -> None:
    """Write thoughts to be given, by one of three makers.

    \b
    openrpt traces calculator problems.jsonl --out traces.jsonl
    openrpt traces self runs/maths --out traces.jsonl
    openrpt traces model path/to/larger-model --run runs/maths --out traces.jsonl

    What is trained on them (warmup.traces) is supervised, and labelled so.
    """
    if ctx.invoked_subcommand is None:
        say_lines(ctx.get_help())


@traces.command(cls=StageCommand, shows=("run", "corpus"), reads=None)
@click.argument("source", metavar="[CORPUS | CONFIG.toml]", type=PATH, required=False)
@_OUT
@click.option(
    "--splits",
    type=CommaSeparated(["train", "development", "heldout"]),
    metavar="train,development,heldout",
    default="train",
    help="Of documents on these sides of the split [default train]",
)
@click.option(
    "--style",
    type=click.Choice(["lines", "whole", "bare", "columns"]),
    default="lines",
    help="lines: an operation a line, spelled as in the text; whole: the expression once more;"
    " bare: an operation a line, without spaces; columns: bare, digit by digit [default lines]",
)
@click.pass_context
def calculator(
    ctx: click.Context,
    source: str | None,
    out: str,
    splits: list[Any],
    style: Any,
    **options: Any,
) -> None:
    """Write the working of computed numbers.

    \b
    openrpt traces calculator problems.jsonl --out traces.jsonl
    openrpt traces calculator --run runs/maths --out traces.parquet

    Needs no model and no annotations.
    """
    config = source_config(ctx, source, key="corpus.path")
    from openrpt.data.skipped import unread_lines
    from openrpt.stages.traces.calculator import calculator_traces

    with showing_progress() as progress:
        summary = calculator_traces(
            config, Path(out), splits=splits, style=style, progress=progress
        )
    for line in [*summary.lines(), *unread_lines(summary.corpus)]:
        say(line)
    say(f"traces: {out}")


def _sampled(command: _Command) -> _Command:
    """Gives a command the options of a maker that samples thoughts."""
    options = [
        _OUT,
        click.option(
            "--samples",
            type=click.IntRange(1, 10_000),
            default=8,
            help="Thoughts at each position [default 8]",
        ),
        click.option(
            "--temperature",
            type=Number(0, 10),
            default=1.0,
            help="Temperature of the draws [default 1]",
        ),
        click.option(
            "--positions",
            type=click.IntRange(1, 10**9),
            default=1000,
            help="Most positions of the training documents [default 1000]",
        ),
        click.option(
            "--positions-per-document",
            type=click.IntRange(1, 10**6),
            default=16,
            help="Most positions of a document [default 16]",
        ),
        click.option(
            "--balance",
            is_flag=True,
            help="No class of tokens has more traces than the classes have in the median",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@traces.command("self", cls=StageCommand, shows=_SAMPLED, reads=None)
@click.argument("run_folder", metavar="[RUN]", type=PATH, required=False)
@_sampled
@scalable
@click.pass_context
def by_itself(
    ctx: click.Context, run_folder: str | None, out: str, temperature: float, **options: Any
) -> None:
    """Write the right thoughts of a run's own model.

    \b
    openrpt traces self runs/maths --prompt.think_budget 48 --out traces.jsonl
    openrpt traces self runs/maths --prompt.examples examples.jsonl --prompt.think_budget 48
      --prompt.candidates 0 --selection.where class:computed --balance --out traces.jsonl

    Its furthest model (start, warmup, trained) thinks at positions of the scored training
    documents, behind the run's prompt; what leads to the text's own next tokens is kept. The same
    command goes on after a stop.
    """
    cluster = cluster_of(options)
    config, corpus = _scored(ctx, run_folder, options["config_file"], out)
    from openrpt.evaluation.models import latest_model, model_path
    from openrpt.runs.run import existing_run
    from openrpt.stages.traces.thinkers import ModelThinker, open_thinking

    run = existing_run(Path(config.run))
    name = latest_model(run)
    thinker = ModelThinker.open(
        f"self ({name})",
        model_path(run, name),
        config,
        corpus,
        temperature,
        open_model=opening(cluster, run.path, open_thinking),
    )
    _write(thinker, config, corpus, Path(out), _draw(options))


@traces.command("model", cls=StageCommand, shows=_SAMPLED, reads=None)
@click.argument("name", metavar="MODEL", type=PATH)
@click.option(
    "--served",
    metavar="NAME",
    type=TEXT,
    default="",
    help="A server's model [default the only one that it has]",
)
@_sampled
@scalable
@click.pass_context
def by_model(
    ctx: click.Context, name: str, served: str, out: str, temperature: float, **options: Any
) -> None:
    """Write the right thoughts of another model or server.

    \b
    openrpt traces model path/to/larger-model --run runs/maths --out traces.jsonl
    openrpt traces model http://localhost:8000/v1 --served large --run runs/maths --out traces.jsonl

    MODEL is a folder, a .gguf file, a Hub id, one of the run's own (start, warmup, trained), or the
    address of an OpenAI-compatible server, which is asked for completions of plain text; a key
    that it wants is taken from OPENAI_API_KEY. Positions and reward are those of the run. The same
    command goes on after a stop.
    """
    cluster = cluster_of(options)
    config, corpus = _scored(ctx, None, options["config_file"], out)
    from openrpt.evaluation.models import model_label, model_path
    from openrpt.runs.run import existing_run
    from openrpt.stages.traces.server import ServerThinker, is_server
    from openrpt.stages.traces.thinkers import ModelThinker, open_thinking

    thinker: Thinker
    if is_server(name) and cluster is not None:
        raise UserError("--scale ray spreads a model that runs here; a server has its own machines")
    if is_server(name):
        thinker = ServerThinker.open(name, served, config, temperature)
    else:
        path = model_path(existing_run(Path(config.run)), name)
        thinker = ModelThinker.open(
            model_label(name),
            path,
            config,
            corpus,
            temperature,
            open_model=opening(cluster, Path(config.run), open_thinking),
        )
    _write(thinker, config, corpus, Path(out), _draw(options))


def _scored(
    ctx: click.Context, run_folder: str | None, file: str | None, out: str
) -> "tuple[Config, ScoredCorpus]":
    """Returns what a maker works with: the run's configuration with what was given, and its
    scores."""
    config = stage_config(ctx, file, more={"run": run_folder} if run_folder else None)
    from openrpt.data.traces import require_new
    from openrpt.runs.run import Run, existing_run
    from openrpt.runs.scores import scores_of

    require_new(Path(out))
    run = existing_run(Path(config.run))
    return config, scores_of(Run(path=run.path, config=config))


def _draw(options: dict[str, Any]) -> "Draw":
    from openrpt.stages.traces.sampled import Draw

    names = ("samples", "positions", "positions_per_document", "balance")
    return Draw(**{name: options[name] for name in names})


def _write(
    thinker: "Thinker", config: "Config", corpus: "ScoredCorpus", out: Path, draw: "Draw"
) -> None:
    from openrpt.console import PlainConsole
    from openrpt.sheets import print_sheet
    from openrpt.stages.traces.sampled import sampled_traces

    with showing_progress(goes_on=True) as progress:
        summary = sampled_traces(corpus, config, thinker, out, draw, progress=progress)
    for line in summary.lines():
        say(line)
    print_sheet(summary.sheet(), PlainConsole())
    say(f"traces by {thinker.name}: {out}")
