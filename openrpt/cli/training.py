"""The commands that make models, from score to the demo."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openrpt.amounts import duration
from openrpt.cli.arguments import LABEL, PATH, RunCommand
from openrpt.cli.main import MOST_MINUTES, _only_config, command, showing_progress, stage
from openrpt.cli.options import (
    OVERRIDES,
    StageCommand,
    source_config,
    stage_config,
    take_cpu,
)
from openrpt.cli.processes import shared
from openrpt.cli.scaling import cluster_of, scalable
from openrpt.errors import UserError
from openrpt.terminal import say

if TYPE_CHECKING:
    from openrpt.config.sections import Config, StageName
    from openrpt.runs.run import Run
    from openrpt.stages.harness import Summary

_FROM = click.option(
    "--from",
    "origin",
    metavar="RUN",
    type=PATH,
    help="Begin the run of --run with RUN's configuration, and with those of its results (scores,"
    " for train its warmup) that the stage is made from",
)


@stage("score", reads="score", after="traces")
@click.argument("source", metavar="[CORPUS | CONFIG.toml]", type=PATH, required=False)
@_FROM
@scalable
@click.pass_context
def score(ctx: click.Context, source: str | None, origin: str | None, **options: Any) -> None:
    """Rate every token of a corpus: how hard is it to predict?

    \b
    openrpt score problems.jsonl --corpus.template '{problem}\\n\\n{solution}' --run runs/maths
    openrpt score datasets:NAME --run runs/large --scale ray --address HOST:6379
    """
    cluster = cluster_of(options)
    config = source_config(ctx, source, key="corpus.path", base=_origin_config(ctx, origin))
    from openrpt.stages.score.score import check_input, score_run

    run = _opened(config, "score", check_input, origin)
    with run.at_work(), showing_progress(goes_on=True) as progress:
        if cluster is None:
            summary = score_run(run, progress)
        else:
            from openrpt.integrations.ray.scoring import scoring_on

            summary = score_run(run, progress, score=scoring_on(cluster))
    splits = ", ".join(f"{name} {count:,}" for name, count in summary.tokens.items())
    say(f"{summary.num_tokens:,} tokens of {summary.documents:,} documents ({splits})")
    say(f"scores: {run.scored}")
    _say_next(run)


@stage("warmup", "memory", "parallel", "checkpoints", "track", reads="warmup")
@click.argument("config_toml", metavar="[CONFIG.toml]", type=PATH, required=False)
@_FROM
@click.pass_context
def warmup(ctx: click.Context, config_toml: str | None, origin: str | None, **options: Any) -> None:
    """Teach a model the form of a rollout: the cold start.

    \b
    openrpt warmup --run runs/maths --warmup.steps 40
    openrpt warmup --from runs/maths --run runs/longer --warmup.steps 80
    """
    file = _only_config(config_toml, options["config_file"])
    config = stage_config(ctx, file, base=_origin_config(ctx, origin))
    from openrpt.stages.warmup.warmup import check_input
    from openrpt.stages.warmup.warmup import warmup as run_warmup

    with shared(config, lambda: _opened(config, "warmup", check_input, origin)) as at:
        run_warmup(at.run, workers=at.workers, progress=at.progress)
    _say_outcome(at.run, "warmup", f"warmed up: {at.run.start}")


@stage("train", "memory", "parallel", "checkpoints", "evaluate", "track", "cost", reads="train")
@click.argument("config_toml", metavar="[CONFIG.toml]", type=PATH, required=False)
@_FROM
@scalable
@click.pass_context
def train(ctx: click.Context, config_toml: str | None, origin: str | None, **options: Any) -> None:
    """Train by reinforcement; the same command goes on after a stop.

    \b
    openrpt train recipe:demo --train.learning_rate 2e-5
    openrpt train --from runs/maths --run runs/rloo --train.algorithm rloo
    openrpt train --run runs/maths --scale ray --address auto --workers 4
    """
    cluster = cluster_of(options)
    file = _only_config(config_toml, options["config_file"])
    config = stage_config(ctx, file, base=_origin_config(ctx, origin))
    from openrpt.stages.train import check_input
    from openrpt.stages.train import train as run_train

    if cluster is not None:
        from openrpt.integrations.ray.training import train_on

        run = _opened(config, "train", check_input, origin)
        with showing_progress(goes_on=True) as progress:
            summary = train_on(cluster, run, progress)
        _say_outcome(run, "train", _trained(summary))
        return
    with shared(config, lambda: _opened(config, "train", check_input, origin)) as at:
        summary = run_train(at.run, workers=at.workers, progress=at.progress)
    _say_outcome(at.run, "train", _trained(summary))


@stage("finetune", "memory", "parallel", "checkpoints", "track", reads="finetune")
@click.argument("source", metavar="[MODEL | CONFIG.toml]", type=PATH, required=False)
@click.option(
    "--beside",
    metavar="RUN",
    type=PATH,
    multiple=True,
    help="A finished finetune run of another start model, for the same table; may be repeated",
)
@_FROM
@click.pass_context
def finetune(
    ctx: click.Context,
    source: str | None,
    beside: tuple[str, ...],
    origin: str | None,
    **options: Any,
) -> None:
    """Train on questions with known answers: before and after.

    \b
    openrpt finetune recipe:finetune --model.path runs/maths/checkpoints/best
    openrpt finetune --run runs/questions-rpt --beside runs/questions-start

    MODEL is a folder, a .gguf file or a Hub id. A run of its own (--run) holds everything; the same
    command goes on after a stop, and on a finished run only prints its table. Of [train],
    documents_per_step, positions_per_document and ntp_weight have no meaning here.
    """
    config = source_config(ctx, source, key="model.path", base=_origin_config(ctx, origin))
    from openrpt.console import PlainConsole
    from openrpt.evaluation.questions.results import finished_record, print_finetuned

    others = [Path(run) for run in beside]
    for other in others:  # before hours of training
        finished_record(other)
    from openrpt.stages.finetune import check_input
    from openrpt.stages.finetune import finetune as run_finetune

    with shared(config, lambda: _opened(config, "finetune", check_input, origin)) as at:
        run_finetune(at.run, workers=at.workers, progress=at.progress)
    print_finetuned([at.run.path, *others], PlainConsole())
    _say_next(at.run)


@stage(
    "pretrain",
    "memory.gradient_checkpointing",
    "parallel",
    "checkpoints",
    "train.eval_positions",
    "track",
    reads="pretrain",
)
@click.argument("config_toml", metavar="[CONFIG.toml]", type=PATH, required=False)
@_FROM
@click.pass_context
def pretrain(
    ctx: click.Context, config_toml: str | None, origin: str | None, **options: Any
) -> None:
    """Train on plain next tokens: the control for RPT.

    \b
    openrpt pretrain --run runs/maths --pretrain.steps 400
    openrpt pretrain --pretrain.match runs/maths --pretrain.match_by flops --run runs/ntp-flops

    A control is configured as the run that it matches, and reads its scores; without --run it
    is put there. The same command goes on after a stop.
    """
    file = _only_config(config_toml, options["config_file"])
    config = stage_config(ctx, file, base=_origin_config(ctx, origin) or _matched_config(ctx))
    from openrpt.stages.pretrain.pretrain import check_input
    from openrpt.stages.pretrain.pretrain import pretrain as run_pretrain

    with shared(config, lambda: _opened(config, "pretrain", check_input, origin)) as at:
        summary = run_pretrain(at.run, workers=at.workers, progress=at.progress)
    _say_outcome(at.run, "pretrain", _trained(summary))


def _origin_config(ctx: click.Context, origin: str | None) -> "Config | None":
    """Returns the configuration of the run that another begins from, for that other one; None where
    it has its own already."""
    if origin is None:
        return None
    from openrpt.runs.run import existing_run

    found = existing_run(Path(origin))
    run = ctx.meta.get(OVERRIDES, {}).get("run")
    if run is None:
        raise UserError(f"--from {origin}: begins another run; give its folder with --run")
    if (Path(run) / "config.toml").is_file():
        return None
    return found.config


def _opened(
    config: "Config",
    stage: "StageName",
    check_input: "Callable[[Run], object]",
    origin: str | None,
) -> "Run":
    """Opens the run that a stage works in, begun from another's results where `--from` says so."""
    from openrpt.runs.run import existing_run, open_run
    from openrpt.runs.taken_over import begin_from

    if origin is None:
        return open_run(config, check_input=check_input)
    return begin_from(existing_run(Path(origin)), config, stage, check_input)


def _trained(summary: "Summary") -> str:
    return f"{summary.steps} steps in {duration(summary.seconds)}: {summary.checkpoint}"


def _say_outcome(run: "Run", stage: "StageName", done: str) -> None:
    """Says what a stage has done and found, and which command comes next."""
    from openrpt.evaluation.outcome import outcome

    say("; ".join(filter(None, (done, outcome(run, stage)))))
    _say_next(run)


def _say_next(run: "Run") -> None:
    from openrpt.evaluation.outcome import next_command

    say(f"next: {next_command(run)}")


def _matched_config(ctx: click.Context) -> "Config | None":
    """Returns the matched run's configuration, for a control whose run has none of its own yet."""
    given = ctx.meta.get(OVERRIDES, {})
    match, run = given.get("pretrain.match"), given.get("run")
    if not match or (run and (Path(run) / "config.toml").is_file()):
        return None
    from openrpt.runs.run import existing_run

    return existing_run(Path(match)).config.model_copy(update={"run": match})


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
    """Run the whole pipeline on a small model and real text.

    \b
    openrpt demo --budget 1h
    """
    minutes = parse_budget(budget)
    from openrpt.experiments.demo import config_in, print_outcome, run_demo

    take_cpu(threads or config_in(Path(run) if run else None, minutes).model.threads)
    with showing_progress(goes_on=True) as progress:
        done = run_demo(minutes, Path(run) if run else None, progress)
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
    if not 0 < minutes <= MOST_MINUTES:
        raise UserError(f"--budget {text}: a time such as 90s, 15m or 1.5h, at most 1000h")
    return minutes
