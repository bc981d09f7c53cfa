"""The commands that make models: score, warmup, train, finetune, pretrain."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openrpt.amounts import duration
from openrpt.cli.arguments import PATH
from openrpt.cli.main import showing_progress, stage
from openrpt.cli.options import OVERRIDES
from openrpt.cli.processes import shared
from openrpt.cli.scaling import cluster_of, scalable
from openrpt.cli.stage_config import only_config, source_config, stage_config
from openrpt.errors import UserError
from openrpt.terminal import say

if TYPE_CHECKING:
    from openrpt.config.sections import Config, StageName
    from openrpt.progress import Progress
    from openrpt.runs.run import Run
    from openrpt.stages.stage import Summary

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
    from openrpt.stages.finished import done_before
    from openrpt.stages.score.score import check_input, is_scored, score_run

    run = _opened(config, "score", check_input, origin)
    with run.at_work(), showing_progress(goes_on=True) as progress:
        if is_scored(run):
            progress.say(done_before(run, "score"))
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
    file = only_config(config_toml, options["config_file"])
    config = _config_on_scores(ctx, file, origin)
    from openrpt.stages.warmup.warmup import check_input
    from openrpt.stages.warmup.warmup import warmup as run_warmup

    with shared(config, lambda: _opened(config, "warmup", check_input, origin)) as at:
        run_warmup(at.run, workers=at.workers, progress=at.progress)
    made = f"warmed up: {at.run.start}" if at.run.start.is_dir() else ""
    _say_outcome(at.run, "warmup", made)


@stage("train", "memory", "parallel", "checkpoints", "evaluate", "track", "cost", reads="train")
@click.argument("config_toml", metavar="[CONFIG.toml]", type=PATH, required=False)
@_FROM
@scalable
@click.pass_context
def train(ctx: click.Context, config_toml: str | None, origin: str | None, **options: Any) -> None:
    """Train by reinforcement; the same command goes on after a stop.

    \b
    openrpt train recipe:demo --train.time_limit 8
    openrpt train --from runs/maths --run runs/rloo --train.algorithm rloo
    openrpt train --run runs/maths --scale ray --address auto --workers 4
    """
    cluster = cluster_of(options)
    file = only_config(config_toml, options["config_file"])
    config = _config_on_scores(ctx, file, origin)
    from openrpt.stages.train import check_input
    from openrpt.stages.train import train as run_train

    if cluster is not None:
        from openrpt.integrations.ray.training import train_on

        run = _opened(config, "train", check_input, origin)
        with showing_progress(goes_on=True) as progress:
            _say_beginning(run, progress)
            summary = train_on(cluster, run, progress)
        _say_outcome(run, "train", _trained(summary))
        return
    with shared(config, lambda: _opened(config, "train", check_input, origin)) as at:
        _say_beginning(at.run, at.progress)
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
    from openrpt.evaluation.questions.finetuned import finished_record, print_finetuned

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
    file = only_config(config_toml, options["config_file"])
    config = stage_config(ctx, file, base=_origin_config(ctx, origin) or _matched_config(ctx))
    from openrpt.stages.pretrain.pretrain import check_input
    from openrpt.stages.pretrain.pretrain import pretrain as run_pretrain

    with shared(config, lambda: _opened(config, "pretrain", check_input, origin)) as at:
        summary = run_pretrain(at.run, workers=at.workers, progress=at.progress)
    _say_outcome(at.run, "pretrain", _trained(summary))


def _config_on_scores(ctx: click.Context, file: str | None, origin: str | None) -> "Config":
    """Returns the configuration of a stage that needs scores: of its own run, or of the one that it
    begins from."""
    from openrpt.data.scored import finished_scores

    def check(config: "Config") -> None:
        if origin is None and not config.warmup.traces:  # of two things missing the file is said
            finished_scores(Path(config.run) / "scored")

    return stage_config(ctx, file, base=_origin_config(ctx, origin), check=check)


def _origin_config(ctx: click.Context, origin: str | None) -> "Config | None":
    """Returns the configuration of the run that another begins from, for that other one; None where
    it has its own already."""
    if origin is None:
        return None
    from openrpt.runs.run import existing_run, is_run

    found = existing_run(Path(origin))
    run = ctx.meta.get(OVERRIDES, {}).get("run")
    if run is None:
        raise UserError(f"--from {origin}: begins another run; give its folder with --run")
    if is_run(run):
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


def _say_beginning(run: "Run", progress: "Progress") -> None:
    """Says where a training begins without a warmup: a policy that was not taught the form of a
    rollout has as a rule no reward at all."""
    from openrpt.runs.checkpoints import latest_checkpoint

    if not run.start.is_dir() and latest_checkpoint(run.checkpoints) is None:
        progress.say(
            f"no warmup: the policy begins as {run.config.model.path} (the form of a rollout is"
            f" taught by openrpt warmup --run {run.path})"
        )


def _trained(summary: "Summary") -> str:
    done = f"{summary.steps} steps in {duration(summary.seconds)}"
    return f"{done}: {summary.checkpoint}" if summary.checkpoint.is_dir() else done


def _say_outcome(run: "Run", stage: "StageName", done: str) -> None:
    """Says what a stage has done and found, and which command comes next."""
    from openrpt.evaluation.outcome import outcome

    if said := "; ".join(filter(None, (done, outcome(run, stage)))):
        say(said)
    _say_next(run)


def _say_next(run: "Run") -> None:
    from openrpt.evaluation.outcome import next_command

    say(f"next: {next_command(run)}")


def _matched_config(ctx: click.Context) -> "Config | None":
    """Returns the matched run's configuration, for a control whose run has none of its own yet."""
    from openrpt.runs.run import existing_run, is_run

    given = ctx.meta.get(OVERRIDES, {})
    match, run = given.get("pretrain.match"), given.get("run")
    if not match or (run and is_run(run)):
        return None
    return existing_run(Path(match)).config.model_copy(update={"run": match})
