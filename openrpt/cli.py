"""The command `openrpt`: each command imports its stage when it runs, so that help is instant."""

import gc
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openrpt import __version__
from openrpt.arguments import COUNT, LABEL, PATH, STEP, TEXT, Number
from openrpt.errors import UserError
from openrpt.files import REMEDIES, reason_of
from openrpt.options import OVERRIDES, StageCommand, config_file, stage_config
from openrpt.stopping import Interrupted, ending_as_interrupts, exit_code
from openrpt.terminal import open_streams, say, say_error, say_lines

if TYPE_CHECKING:
    from openrpt.config import Config, CorpusConfig
    from openrpt.progress import Live
    from openrpt.run import Run


GARBAGE_THRESHOLD = 50_000
"""New objects between two searches for garbage: torch and transformers make a million that stay,
and looking through them every 700, which is Python's default, is a fifth of their import."""

MOST_MINUTES = 60_000
"""Of the demo's budget."""


class Stopped(click.ClickException):
    """Stopped at the user's wish; what was done is saved."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Commands(click.Group):
    """Commands in the order in which data flows; an unknown one names the nearest."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            nearest = get_close_matches(args[0], self.commands, n=1, cutoff=0.4)
            hint = f"nearest: '{nearest[0]}'" if nearest else "see openrpt --help"
            raise click.UsageError(f"no command '{args[0]}'; {hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, invoke_without_command=True, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="openrpt")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Reinforcement pre-training: models that think before they predict the next token.

    \b
    openrpt demo                  the whole pipeline on a small model, in 15 minutes
    openrpt train --help          every key of a stage, with its unit, default and range

    The stages share a run folder (--run). A stage without a CONFIG.toml goes on with the
    configuration that is stored there.
    """
    if ctx.invoked_subcommand is None:
        say_lines(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits: 0, 2 for what is the user's to mend (one line says what), 130
    where Ctrl-C stopped it, 143 SIGTERM, 129 SIGHUP. Any other exception is a bug of ours and keeps
    its traceback."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    gc.set_threshold(GARBAGE_THRESHOLD)
    open_streams()
    try:
        with ending_as_interrupts():
            cli.main(args=arguments, prog_name="openrpt", standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        _fail(str(error), 2)
    except click.ClickException as error:
        _fail(error.format_message(), error.code if isinstance(error, Stopped) else 2)
    except (click.Abort, KeyboardInterrupt) as stop:
        _fail("interrupted", exit_code(stop.__cause__ or stop))
    except BrokenPipeError:  # whoever read our output (head, less) has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno not in REMEDIES:
            raise
        where = error.filename or "a file"
        _fail(f"{where}: cannot be read or written {reason_of(error)}", 2)
    sys.exit(0)


def _fail(message: str, exit_code: int) -> None:
    say_error(message)
    sys.exit(exit_code)


@contextmanager
def showing_progress(*, goes_on: bool = False) -> Iterator["Live"]:
    """Live progress; a stop becomes one line. `goes_on`: the same command takes up what is done."""
    from openrpt.progress import live_progress

    try:
        with live_progress() as progress:
            yield progress
    except Interrupted as stop:
        raise Stopped(str(stop), stop.exit_code) from None
    except KeyboardInterrupt as stop:
        text = "interrupted; the same command goes on" if goes_on else "interrupted"
        raise Stopped(text, exit_code(stop)) from None


def stage(name: str, *shows: str) -> Callable[[Callable[..., None]], click.Command]:
    """Makes a function the command `name`; `shows`: the sections and keys in its help."""
    return cli.command(name, cls=StageCommand, shows=shows)


@stage("score", "seed", "run", "model", "corpus", "score", "prompt.window", "prompt.min_context")
@click.argument("source", metavar="[CORPUS | CONFIG.toml]", type=PATH, required=False)
@click.pass_context
def score(ctx: click.Context, source: str | None, **options: Any) -> None:
    """Rate every token of a corpus: how hard is it to predict?

    \b
    openrpt score problems.jsonl --corpus.template '{problem}\\n\\n{solution}' --run runs/maths
    """
    corpus, file = config_file(source, options["config_file"])
    config = stage_config(ctx, file, more={"corpus.path": corpus} if corpus else None)
    from openrpt.corpus_size import expected_tokens
    from openrpt.run import open_run
    from openrpt.scoring import check_input, load_scored, score_corpus
    from openrpt.skipped import skipped_lines

    if _is_new(config):
        check_input(config)
    run = open_run(config)
    with run.at_work(), showing_progress(goes_on=True) as progress:
        progress.begin("score", expected_tokens(config), "tokens, at a guess")

        def update(tokens: int, note: str) -> None:
            progress.update(tokens, f"{tokens:,} tokens · {note}")

        summary = score_corpus(config, run.scored, progress=update)
    splits = ", ".join(f"{name} {count:,}" for name, count in summary.tokens.items())
    say(f"{summary.num_tokens:,} tokens of {summary.documents:,} documents ({splits})")
    for line in skipped_lines(load_scored(run.scored).metadata):
        say(line)
    say(f"scores: {run.scored}")


def _is_new(config: "Config") -> bool:
    """Whether the run's folder is still to be made: what a typo made would refuse the corrected
    command, so its input is checked before."""
    return not (Path(config.run) / "config.toml").is_file()


@stage(
    "warmup",
    *("seed", "run", "model", "prompt", "selection", "warmup"),
    *("train.microbatch_tokens", "train.max_grad_norm", "train.on_nonfinite"),
    *("train.nonfinite_limit", "train.checkpoint_minutes", "track"),
)
@click.argument("config_toml", metavar="[CONFIG.toml]", type=PATH, required=False)
@click.pass_context
def warmup(ctx: click.Context, config_toml: str | None, **options: Any) -> None:
    """Teach a model the form of a rollout: the cold start.

    \b
    openrpt warmup --run runs/maths --warmup.steps 40
    """
    config = stage_config(ctx, _only_config(config_toml, options["config_file"]))
    from openrpt.run import open_run
    from openrpt.warmup import warmup as run_warmup

    run = open_run(config)
    with showing_progress(goes_on=True) as progress:
        run_warmup(run, progress=progress)
    say(f"warmed up: {run.start}")


@stage(
    "train",
    *("seed", "run", "model", "prompt", "selection", "reward", "train", "evaluate", "track"),
    "cost",
)
@click.argument("config_toml", metavar="[CONFIG.toml]", type=PATH, required=False)
@click.pass_context
def train(ctx: click.Context, config_toml: str | None, **options: Any) -> None:
    """Train by reinforcement; the same command goes on after a stop.

    \b
    openrpt train configs/demo.toml --train.learning_rate 2e-5
    """
    config = stage_config(ctx, _only_config(config_toml, options["config_file"]))
    from openrpt.run import open_run
    from openrpt.train import train as run_train

    run = open_run(config)
    with showing_progress(goes_on=True) as progress:
        summary = run_train(run, progress=progress)
    say(f"{summary.steps} steps in {summary.seconds / 60:.1f} minutes: {summary.checkpoint}")


@stage(
    "finetune",
    *("seed", "run", "model", "questions", "answers", "finetune", "train", "track"),
    *("prompt.instruction", "prompt.chat_template", "prompt.thought_start", "prompt.thought_end"),
    "prompt.answer_start",
)
@click.argument("source", metavar="[MODEL | CONFIG.toml]", type=PATH, required=False)
@click.option(
    "--beside",
    metavar="RUN",
    type=PATH,
    multiple=True,
    help="A finished finetune run of another start model, for the same table; may be repeated",
)
@click.pass_context
def finetune(
    ctx: click.Context, source: str | None, beside: tuple[str, ...], **options: Any
) -> None:
    """Train on questions with known answers: before and after.

    \b
    openrpt finetune configs/finetune.toml --model.path runs/maths/checkpoints/best
    openrpt finetune --run runs/questions-rpt --beside runs/questions-start

    MODEL is a folder, a .gguf file or a Hub id. A run of its own (--run) holds everything; the same
    command goes on after a stop, and on a finished run only prints its table. Of [train],
    documents_per_step, positions_per_document and ntp_weight have no meaning here.
    """
    model, file = config_file(source, options["config_file"])
    config = stage_config(ctx, file, more={"model.path": model} if model else None)
    from openrpt.console import PlainConsole
    from openrpt.evaluation.questions import finished_record, print_finetuned
    from openrpt.run import open_run

    others = [Path(run) for run in beside]
    for other in others:  # before hours of training
        finished_record(other)
    from openrpt.finetune import finetune as run_finetune
    from openrpt.models import resolve_model
    from openrpt.questions import QuestionCounts, read_questions

    if _is_new(config):
        resolve_model(config.model.path)
        read_questions(config.questions, QuestionCounts(), seed=config.seed)
    run = open_run(config)
    with showing_progress(goes_on=True) as progress:
        run_finetune(run, progress=progress)
    print_finetuned([run.path, *others], PlainConsole())


@stage(
    "questions",
    *("seed", "run", "model", "questions", "answers"),
    *("finetune.question_tokens", "finetune.think_budget", "finetune.answer_budget"),
    *("finetune.eval_questions", "finetune.eval_samples", "finetune.eval_temperature"),
    *("prompt.instruction", "prompt.chat_template", "prompt.thought_start", "prompt.thought_end"),
    *("prompt.answer_start", "train.generation_rollouts"),
)
@click.argument("sources", metavar="[MODEL]... [CONFIG.toml]", type=PATH, nargs=-1)
@click.option("--out", type=PATH, metavar="DIR", help="Folder of the files [default RUN/questions]")
@click.pass_context
def questions(
    ctx: click.Context, sources: tuple[str, ...], out: str | None, **options: Any
) -> None:
    """Count right answers to questions, without training.

    \b
    openrpt questions start trained --run runs/maths \\
        --questions.path reasoning-gym:chain_sum@0-2,leg_counting

    The held-out ones of openrpt finetune, asked as there; by task and level, differences to the
    first model. MODEL is as in openrpt probe; without a run, a folder, a .gguf file or a Hub id.
    What was answered is kept beside the table, and not asked again.
    """
    sources, file = _models_and_config(sources, options["config_file"])
    config = stage_config(ctx, file)
    from openrpt.console import PlainConsole
    from openrpt.evaluation.question_table import (
        answer_side_by_side,
        print_questions,
        write_questions,
    )
    from openrpt.evaluation.side_by_side import named_models
    from openrpt.run import Run, existing_run

    path = Path(config.run)
    has_run = (path / "config.toml").is_file()
    run = existing_run(path) if has_run else Run(path=path, config=config)
    models = named_models(run, sources)
    folder = Path(out or (path / "questions" if has_run else "questions"))
    with run.at_work(), showing_progress(goes_on=True) as progress:
        answered = answer_side_by_side(folder, models, config, progress=progress)
        files = write_questions(folder, answered, config)
    print_questions(answered, config, PlainConsole())
    for path in files:
        say(path)


@stage(
    "pretrain",
    *("seed", "run", "model", "selection", "pretrain", "track"),
    *("train.weight_decay", "train.adam_beta1", "train.adam_beta2", "train.max_grad_norm"),
    *("train.on_nonfinite", "train.nonfinite_limit"),
    *("train.eval_positions", "train.checkpoint_minutes", "train.checkpoints_kept"),
)
@click.argument("config_toml", metavar="[CONFIG.toml]", type=PATH, required=False)
@click.pass_context
def pretrain(ctx: click.Context, config_toml: str | None, **options: Any) -> None:
    """Train on plain next tokens: the control for RPT.

    \b
    openrpt pretrain --run runs/maths --pretrain.steps 400
    openrpt pretrain --pretrain.match runs/maths --pretrain.match_by flops --run runs/ntp-flops

    A control is configured as the run that it matches, and reads its scores; without --run it
    is put there. The same command goes on after a stop.
    """
    file = _only_config(config_toml, options["config_file"])
    config = stage_config(ctx, file, base=_matched_config(ctx) if file is None else None)
    from openrpt.pretrain import pretrain as run_pretrain
    from openrpt.run import open_run

    run = open_run(config)
    with showing_progress(goes_on=True) as progress:
        summary = run_pretrain(run, progress=progress)
    say(f"{summary.steps} steps in {summary.seconds / 60:.1f} minutes: {summary.checkpoint}")


def _matched_config(ctx: click.Context) -> "Config | None":
    """The matched run's configuration, for a control whose run has none of its own yet."""
    given = ctx.meta.get(OVERRIDES, {})
    match, run = given.get("pretrain.match"), given.get("run")
    if not match or (run and (Path(run) / "config.toml").is_file()):
        return None
    from openrpt.run import existing_run

    return existing_run(Path(match)).config.model_copy(update={"run": match})


def _only_config(positional: str | None, option: str | None) -> str | None:
    other, file = config_file(positional, option)
    if other is not None:
        raise UserError(f"{other}: a configuration's name ends with .toml")
    return file


def _models_and_config(
    sources: tuple[str, ...], option: str | None
) -> tuple[tuple[str, ...], str | None]:
    """What stands among models and ends with .toml is the configuration."""
    models = tuple(source for source in sources if not source.endswith(".toml"))
    for source in sources:
        if source.endswith(".toml"):
            _, option = config_file(source, option)
    return models, option


@stage("evaluate", "seed", "run", "model", "prompt", "evaluate", "cost")
@click.argument("sources", metavar="[MODEL]... [CONFIG.toml]", type=PATH, nargs=-1)
@click.option(
    "--scores", type=PATH, metavar="DIR", help="A folder of scores in place of the run's own"
)
@click.option(
    "--label", type=LABEL, default="", help="Its name in evaluation.json [default made from MODEL]"
)
@click.pass_context
def evaluate(
    ctx: click.Context, sources: tuple[str, ...], scores: str | None, label: str, **options: Any
) -> None:
    """Measure next-token accuracy, with and without thinking.

    \b
    openrpt evaluate trained --run runs/maths
    openrpt evaluate start trained path/to/larger-model --run runs/maths
    openrpt evaluate start --run runs/maths --evaluate.templates v0,v6 --evaluate.samples 8
    openrpt evaluate trained --run runs/maths --evaluate.controls emptied,cut,swapped,ntp_voting

    MODEL is a folder, a .gguf file, a Hub id, or one of the run's own: start, warmup, trained,
    best, pretrained. Default: the run's latest. Several models stand side by side at the end, as
    in the paper's Table 1; several templates as in its Table 8.
    """
    models, file = _models_and_config(sources, options["config_file"])
    if label and len(models) > 1:
        raise UserError("--label names one model; give one, or leave it out")
    config = stage_config(ctx, file)
    from openrpt.console import PlainConsole
    from openrpt.evaluation.compare import compare, find_evaluated
    from openrpt.evaluation.sheets import print_sheet, table_1, table_8
    from openrpt.evaluation.stage import evaluate_templates, latest_model
    from openrpt.evaluation.tables import print_details
    from openrpt.run import existing_run, open_run
    from openrpt.show import print_evaluation

    path = Path(config.run)
    has_run = (path / "config.toml").is_file()
    run = open_run(config) if scores and not has_run else existing_run(path)
    found = []
    with showing_progress() as progress:
        for model in models or (latest_model(run),):
            found += evaluate_templates(
                run,
                model,
                config,
                label=label,
                scores=Path(scores) if scores else None,
                progress=progress,
            )
    settings, console = config.evaluate, PlainConsole()
    for name, result in found:
        title = f"{name}: accuracy on the {settings.split} split"
        print_evaluation(result, title, settings.modes, settings.samples, console)
        print_details(result, console)
    labels = [name for name, _ in found]
    if len(labels) > 1:
        recorded = [one for one in find_evaluated([str(run.path)]) if one.label in labels]
        if len(models) > 1:
            print_sheet(table_1(compare(recorded)), console)
        if len(settings.templates) > 1 and "reasoning" in settings.modes:
            print_sheet(table_8(recorded), console)
    for name in labels:
        say(f"recorded as '{name}' in {run.evaluation}")


@stage("control", "evaluate", "pretrain")
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
    from openrpt.control import CONTROLS, print_controls, run_controls
    from openrpt.run import existing_run

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


@cli.command()
@click.argument("sources", metavar="RUN_OR_MODEL...", type=PATH, nargs=-1, required=True)
@click.option("--against", default="", help="What differences are to [default: the first line]")
@click.option(
    "--layout",
    type=click.Choice(["differences", "table-1", "table-8", "figure-4"]),
    default="differences",
    help="What is printed: paired differences, or as the paper has it [default differences]",
)
@click.option(
    "--out", type=PATH, default="comparison", help="Folder of the files [default comparison]"
)
def compare(sources: tuple[str, ...], against: str, layout: str, out: str) -> None:
    """Put the evaluated models of runs into one table.

    \b
    openrpt compare runs/maths runs/no-think --against "maths/start ntp"

    openrpt compare runs/maths --layout table-1

    RUN_OR_MODEL is a run folder, or a model in one that `openrpt evaluate` has evaluated. Writes
    comparison.json, .csv, .md (every layout) and .svg; an earlier comparison of the same is
    replaced.
    """
    from openrpt.console import PlainConsole
    from openrpt.evaluation.compare import compare as compare_models
    from openrpt.evaluation.compare import find_evaluated
    from openrpt.evaluation.tables import print_comparison, write_comparison

    comparison = compare_models(find_evaluated(sources), against)
    files = write_comparison(comparison, Path(out), sources)
    print_comparison(comparison, PlainConsole(), layout)
    for path in files:
        say(path)


@stage(
    "perplexity",
    *("run", "model", "prompt.window", "evaluate.split", "score.max_tokens"),
    *("corpus.template", "corpus.separator", "corpus.block_characters", "corpus.limit"),
)
@click.argument("source", metavar="[MODEL | CONFIG.toml]", type=PATH, required=False)
@click.option(
    "--text", metavar="PATH", type=PATH, help="All of another text in place of the run's split"
)
@click.option(
    "--label", type=LABEL, default="", help="Its name in evaluation.json [default made from MODEL]"
)
@click.pass_context
def perplexity(
    ctx: click.Context, source: str | None, text: str | None, label: str, **options: Any
) -> None:
    """Measure how well a model predicts every token of a text.

    \b
    openrpt perplexity trained --run runs/maths
    openrpt perplexity trained --run runs/maths --text general.jsonl

    The first reads the run's held-out split; the second, another text, says what was forgotten
    (score.max_tokens and the corpus keys are about that text). MODEL is as in openrpt evaluate;
    with --text it needs no run, and is recorded only in one.
    """
    model, file = config_file(source, options["config_file"])
    config = stage_config(ctx, file)
    corpus = _other_corpus(ctx, text)
    from openrpt.evaluation.perplexity import model_perplexity
    from openrpt.run import Run, existing_run

    path = Path(config.run)
    has_run = corpus is None or (path / "config.toml").is_file()
    run = existing_run(path) if has_run else Run(path=path, config=config)
    with showing_progress() as progress:
        label, name, measured = model_perplexity(
            run, model, config, corpus=corpus, label=label, record=has_run, progress=progress
        )
    say(f"{label} on {name}: {measured.describe()}")
    if has_run:
        say(f"recorded in {run.evaluation}")


@stage(
    "writing",
    *("seed", "run", "model.threads", "model.device", "model.dtype", "model.generator", "writing"),
    *("prompt.window", "evaluate.split"),
    *("corpus.template", "corpus.separator", "corpus.block_characters", "corpus.limit"),
)
@click.argument("sources", metavar="[MODEL]... [CONFIG.toml]", type=PATH, nargs=-1)
@click.option(
    "--text", metavar="PATH", type=PATH, help="Documents of another text in place of the run's"
)
@click.pass_context
def writing(ctx: click.Context, sources: tuple[str, ...], text: str | None, **options: Any) -> None:
    """Measure how models write, beside how texts really go on.

    \b
    openrpt writing start trained ntp=runs/ntp --run runs/maths --text general.jsonl

    Perplexity, diversity, repetition and a MAUVE-like distance to the real continuations, which
    stand beside them; differences are to the first model. MODEL is as in openrpt probe. The same
    command goes on after a stop. Writes TEXT.json and .csv into RUN/writing.
    """
    sources, file = _models_and_config(sources, options["config_file"])
    config = stage_config(ctx, file)
    corpus = _other_corpus(ctx, text)
    from openrpt.console import PlainConsole
    from openrpt.evaluation.side_by_side import named_models
    from openrpt.evaluation.writing_table import print_writing, write_side_by_side, write_writing
    from openrpt.run import existing_run

    run = existing_run(Path(config.run))
    models = named_models(run, sources)
    with showing_progress(goes_on=True) as progress:
        name, written = write_side_by_side(run, models, config, corpus=corpus, progress=progress)
    files = write_writing(run, name, written)
    print_writing(name, written, PlainConsole())
    for path in files:
        say(path)


def _other_corpus(ctx: click.Context, text: str | None) -> "CorpusConfig | None":
    """Another text is read by the defaults and by what the command line says, not by the run's
    own template."""
    given = {k: v for k, v in ctx.meta.get(OVERRIDES, {}).items() if k.startswith("corpus.")}
    if text is None:
        if given:
            raise UserError(f"--{next(iter(given))}: about another text; give one by --text PATH")
        return None
    from openrpt.config import load_config

    return load_config(overrides={**given, "corpus.path": text}).corpus


@stage(
    "zeroshot",
    *("seed", "run", "model", "zeroshot", "prompt.chat_template", "prompt.thought_start"),
    *("prompt.thought_end", "prompt.answer_start", "cost"),
)
@click.argument("source", metavar="[MODEL | CONFIG.toml]", type=PATH, required=False)
@click.option(
    "--label", type=LABEL, default="", help="Its name in zero_shot.json [default made from MODEL]"
)
@click.pass_context
def zeroshot(ctx: click.Context, source: str | None, label: str, **options: Any) -> None:
    """Ask a model end tasks, directly and after a thought.

    \b
    openrpt zeroshot trained --run runs/maths --zeroshot.questions_per_category 20
    openrpt zeroshot path/to/model --run runs/maths \\
        --zeroshot.tasks mmlu_pro=mmlu_pro.jsonl,gsm8k,lm-eval:hellaswag

    MODEL is as in openrpt evaluate; a run folder that is not there is made. Models that are asked
    in one run stand in one table, with paired differences. The same command goes on after a stop.
    """
    model, file = config_file(source, options["config_file"])
    config = stage_config(ctx, file)
    from openrpt.console import PlainConsole
    from openrpt.evaluation.zero_shot import end_tasks, zero_shot
    from openrpt.evaluation.zero_shot_tables import print_zero_shot

    end_tasks(config.zeroshot.tasks)  # before a run folder is made
    run = _run_to_ask_in(config, model)
    with showing_progress(goes_on=True) as progress:
        zero_shot(run, model, config, label=label, progress=progress)
    print_zero_shot(run, PlainConsole())
    say(f"recorded in {run.path / 'zero_shot.json'}")


@stage(
    "coding",
    *("seed", "run", "model", "coding", "prompt.chat_template", "prompt.thought_start"),
    *("prompt.thought_end", "cost"),
)
@click.argument("source", metavar="[MODEL | CONFIG.toml]", type=PATH, required=False)
@click.option(
    "--label", type=LABEL, default="", help="Its name in coding.json [default made from MODEL]"
)
@click.pass_context
def coding(ctx: click.Context, source: str | None, label: str, **options: Any) -> None:
    """Let a model write functions, and test them if you say so.

    \b
    openrpt coding trained --run runs/maths
    openrpt coding trained --run runs/maths --coding.path humaneval.jsonl \\
        --coding.samples 20 --coding.run_code

    Without --coding.run_code nothing that a model wrote is run. With it, each program runs in a
    process of its own (Linux only): limits of time and memory, no network, none of your files.
    MODEL is as in openrpt zeroshot.
    """
    model, file = config_file(source, options["config_file"])
    config = stage_config(ctx, file)
    from openrpt.evaluation.coding import coding as run_coding
    from openrpt.evaluation.coding import describe, mode_name, read_tasks

    read_tasks(config.coding.path)  # before a run folder is made
    run = _run_to_ask_in(config, model)
    with showing_progress(goes_on=True) as progress:
        label, entry = run_coding(run, model, config, label=label, progress=progress)
    for line in describe(label, mode_name(config.coding), entry):
        say(line)
    say(f"programs: {run.path / 'coding' / label}")


@stage(
    "suite",
    *("seed", "run", "model", "suite", "zeroshot", "coding", "questions", "answers", "finetune"),
    *("prompt.instruction", "prompt.chat_template", "prompt.thought_start", "prompt.thought_end"),
    *("prompt.answer_start", "cost"),
)
@click.argument("source", metavar="[MODEL | CONFIG.toml]", type=PATH, required=False)
@click.option(
    "--label", type=LABEL, default="", help="Its name in suite.json [default made from MODEL]"
)
@click.pass_context
def suite(ctx: click.Context, source: str | None, label: str, **options: Any) -> None:
    """Measure a model on all end tasks, by type and difficulty.

    \b
    openrpt suite trained --run runs/maths
    openrpt suite trained --run runs/maths --suite.parts zeroshot,reasoning

    Of [finetune], eval_questions, eval_samples and the budgets count. The same command goes on
    after a stop. MODEL is as in openrpt zeroshot.
    """
    model, file = config_file(source, options["config_file"])
    config = stage_config(ctx, file)
    from openrpt.console import PlainConsole
    from openrpt.evaluation.suite import check_parts, print_suite, run_suite

    check_parts(config)
    run = _run_to_ask_in(config, model)
    with showing_progress(goes_on=True) as progress:
        label, lines = run_suite(run, model, config, label=label, progress=progress)
    print_suite(label, lines, PlainConsole())
    say(f"recorded in {run.path / 'suite.json'}")


def _run_to_ask_in(config: "Config", model: str | None) -> "Run":
    """The run that is there, or a new one whose model is MODEL."""
    from openrpt.evaluation.stage import OWN_MODELS
    from openrpt.options import with_overrides
    from openrpt.run import existing_run, open_run

    path = Path(config.run)
    if (path / "config.toml").is_file():
        return existing_run(path)
    named = {"model.path": model} if model and model not in OWN_MODELS else {}
    return open_run(with_overrides(config, named))


@stage(
    "probe",
    *("seed", "run", "model.threads", "model.device", "model.dtype", "model.generator", "probe"),
    *("prompt.window", "prompt.min_context", "evaluate.split"),
)
@click.argument("sources", metavar="[MODEL]... [CONFIG.toml]", type=PATH, nargs=-1)
@click.pass_context
def probe(ctx: click.Context, sources: tuple[str, ...], **options: Any) -> None:
    """Measure what hidden states hold, layer by layer.

    \b
    openrpt probe start trained ntp=runs/ntp --run runs/maths
    openrpt probe start trained --run runs/gsm8k --probe.answer_mark '####' --probe.layers 0

    Linear probes on the run's held-out documents, with baselines and control tasks; differences
    are to the first model. MODEL is as in openrpt evaluate, or a run folder, which stands for its
    latest model; NAME=MODEL names it. Writes probes.json, .csv and .svg into RUN/probes.
    """
    sources, file = _models_and_config(sources, options["config_file"])
    config = stage_config(ctx, file)
    from openrpt.console import PlainConsole
    from openrpt.evaluation.probe_table import print_probes, probe_models, write_probes
    from openrpt.evaluation.side_by_side import named_models
    from openrpt.run import existing_run

    run = existing_run(Path(config.run))
    models = named_models(run, sources)
    with showing_progress() as progress:
        probed = probe_models(run, models, config, progress=progress)
    files = write_probes(run, probed)
    print_probes(probed, PlainConsole())
    for path in files:
        say(path)


@cli.command()
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

    from openrpt.rollouts import read_evaluated, read_rollouts
    from openrpt.runs import look_at
    from openrpt.show import json_row, page, print_groups

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


@cli.command()
@click.argument("runs", metavar="RUN…", type=PATH, nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="JSON lines, one a run")
def status(runs: tuple[str, ...], as_json: bool) -> None:
    """Say how far runs are, when they end, and what looks wrong.

    \b
    openrpt status runs/maths runs/wiki
    """
    import json

    from openrpt.console import PlainConsole
    from openrpt.show import print_status
    from openrpt.status import read_status

    console, failed = PlainConsole(), []
    for run in runs:
        try:
            found = read_status(Path(run))
        except UserError as error:
            failed.append(str(error))
            continue
        if as_json:
            say(json.dumps(found.as_dict()))
        else:
            print_status(found, console)
    if failed:
        raise UserError("; ".join(failed))


@cli.command()
@click.argument("runs", metavar="RUN…", type=PATH, nargs=-1, required=True)
@click.option(
    "--keywords", type=PATH, metavar="FILE", help="Your groups: TOML or JSON, name = ['keyword', …]"
)
@click.option("--bins", type=click.IntRange(1, 1000), default=4, help="Ranges of steps [default 4]")
@click.option(
    "--evaluated", is_flag=True, help="The models evaluated in the runs, in place of training steps"
)
@click.option(
    "--out", type=PATH, metavar="STEM", help="STEM.json and STEM.csv [default RUN/patterns]"
)
def patterns(
    runs: tuple[str, ...], keywords: str | None, bins: int, evaluated: bool, out: str | None
) -> None:
    """Analyse thoughts over steps, between runs and models.

    \b
    openrpt patterns runs/maths
    openrpt patterns runs/maths runs/no-seed --keywords mine.toml --out compared
    openrpt patterns runs/maths --evaluated

    Keyword groups, length, leakage, copying, answer switching and diversity of the thoughts that
    training (or an evaluation) stored, and whether the predictions fit the verifier only.
    """
    from openrpt.console import PlainConsole
    from openrpt.evaluation.pattern_runs import Bin, evaluation_bins, run_bins
    from openrpt.evaluation.pattern_table import print_patterns, write_patterns
    from openrpt.evaluation.patterns import KEYWORDS, read_keywords
    from openrpt.runs import load_run

    groups = {**KEYWORDS, **(read_keywords(Path(keywords)) if keywords else {})}
    loaded = [load_run(run) for run in runs]
    found: list[list[Bin]] = []
    with showing_progress() as progress:
        for run in loaded:
            if evaluated:
                models = evaluation_bins(run.run, keywords=groups, progress=progress)
                found += [[model] for model in models]
            else:
                found.append(run_bins(run.run, bins=bins, keywords=groups, progress=progress))
    print_patterns(found, PlainConsole())
    for run in loaded:
        for note in run.notes:
            say(f"note: {run.path}: {note}", err=True)
        if not run.config.prompt.think_budget and not evaluated:
            say(f"note: {run.path}: no free thought (prompt.think_budget = 0)", err=True)
    paths = write_patterns(found, Path(out or f"{runs[0]}/patterns"), keywords=groups)
    say(f"written: {paths[0]}, {paths[1]}")


@stage(
    "estimate", "run", "model", "corpus", "score", "prompt", "warmup", "train", "evaluate", "cost"
)
@click.argument("config_toml", metavar="[CONFIG.toml]", type=PATH, required=False)
@click.option(
    "--gpu",
    default="",
    metavar="NAME",
    help="A GPU by name, e.g. h100-sxm, in place of this machine",
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
    utilisation: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Say what a run will take: time, memory, energy, money.

    \b
    openrpt estimate configs/demo.toml --train.steps 200 --cost.price_per_hour 0.40
    openrpt estimate configs/demo.toml --gpu h100-sxm --model.dtype bfloat16

    Without --gpu this machine is measured for about ten seconds. Nothing is written.
    """
    if utilisation is not None and not gpu:
        raise UserError("--utilisation is of a GPU's peak: name one with --gpu")
    config = stage_config(ctx, _only_config(config_toml, options["config_file"]))
    import json

    from openrpt.console import PlainConsole
    from openrpt.estimate import UTILISATION, print_estimate
    from openrpt.estimate import estimate as make_estimate

    with showing_progress() as progress:
        found = make_estimate(
            config, gpu=gpu, utilisation=utilisation or UTILISATION, progress=progress
        )
    if as_json:
        say_lines(json.dumps(found.as_dict(), indent=1))
    else:
        print_estimate(found, PlainConsole())


@cli.command()
@click.argument("sources", metavar="RUN…", type=PATH, nargs=-1, required=True)
@click.option(
    "--out", type=PATH, metavar="DIR", help="Where the files go [default RUN/scaling, or scaling]"
)
@click.option(
    "--resamples",
    type=click.IntRange(0, 100_000),
    default=500,
    help="Bootstrap resamples for the intervals [default 500]",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Of the resamples [default 0]"
)
def scaling(sources: tuple[str, ...], out: str | None, resamples: int, seed: int) -> None:
    """Fit how accuracy grows with training compute, by difficulty.

    \b
    openrpt scaling runs/maths
    openrpt scaling runs/small runs/medium runs/large --out results/scaling

    A run gives a point for each evaluation on the development split (train.eval_every).
    """
    from openrpt.console import PlainConsole
    from openrpt.evaluation.scaling import analyse
    from openrpt.evaluation.scaling_files import (
        output_folder,
        print_scaling,
        read_points,
        write_scaling,
    )

    folder = output_folder(sources, out)
    with showing_progress() as progress:
        points = read_points(sources)
        found = analyse(points, resamples=resamples, seed=seed, progress=progress)
    print_scaling(found, PlainConsole())
    for path in write_scaling(found, folder):
        say(f"written: {path}")


@stage("predict", "seed", "model", "prompt")
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
    openrpt predict runs/maths/checkpoints/best --text "The sum of 2 and 3" --continuation " is 5."

    MODEL is a folder, a .gguf file or a Hub id. A checkpoint is prompted as it was trained.
    """
    from openrpt.config import load_config
    from openrpt.predict import checkpoint_config

    config = stage_config(
        ctx, options["config_file"], base=checkpoint_config(model) or load_config()
    )
    if text == "-":
        text = _standard_input()
    from openrpt.console import PlainConsole
    from openrpt.models import freeze, load_policy
    from openrpt.predict import cut_at_end
    from openrpt.predict import predict as run_predict
    from openrpt.rollouts import evaluated_table
    from openrpt.show import group_lines

    policy = freeze(load_policy(config.model, path=model))
    cut = cut_at_end(policy.tokenizer, text, continuation)
    start = None
    if config.prompt.candidates and config.prompt.candidate_source == "start":
        start = freeze(load_policy(config.model))
    with showing_progress() as progress:
        group = run_predict(
            policy,
            cut,
            config,
            samples=1 if greedy else samples,
            temperature=0.0 if greedy else temperature,
            start=start,
            progress=progress,
        )
    if cut.note:
        say(f"note: {cut.note}", err=True)
    rows = evaluated_table([group], cut.token_bytes, policy.table).to_pylist()
    console = PlainConsole()
    for line in group_lines(rows):
        console.print(line, soft_wrap=True)


def _standard_input() -> str:
    """All of stdin as UTF-8, without the line break that ends a file or an `echo`."""
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UserError(f"--text -: not UTF-8 at byte {error.start}") from None


@cli.command()
@click.argument("run", metavar="RUN", type=PATH)
@click.argument("others", metavar="[OTHER]...", type=PATH, nargs=-1)
def report(run: str, others: tuple[str, ...]) -> None:
    """Write a run's report: one HTML file. The curves of other runs are drawn over its own.

    \b
    openrpt report runs/maths
    openrpt report runs/maths runs/random-reward
    """
    from openrpt.report import write_report
    from openrpt.runs import look_at

    found, notes = look_at(Path(run))
    for note in notes:
        say(f"note: {note}", err=True)
    overlaid = [look_at(Path(other))[0] for other in others]
    say(write_report(found, overlaid, notes))


@cli.command()
@click.argument("runs", metavar="RUN…", type=PATH, nargs=-1, required=True)
@click.option("--port", type=click.IntRange(1, 65535), help="Port [default the first free one]")
@click.option("--open", "open_browser", is_flag=True, help="Open it in the browser")
def watch(runs: tuple[str, ...], port: int | None, open_browser: bool) -> None:
    """Follow runs in the browser: their reports, kept up to date.

    \b
    openrpt watch runs/maths runs/wiki --open

    On this machine only (127.0.0.1), from the runs' files; the runs are not touched.
    """
    from openrpt.watch import serve

    serve([Path(run) for run in runs], port=port, open_browser=open_browser, say=say)


@cli.command()
@click.option("--budget", default="15m", help="Time that it may take: 90s, 15m, 1.5h [default 15m]")
@click.option("--run", metavar="DIR", type=PATH, help="Run folder")
def demo(budget: str, run: str | None) -> None:
    """Run the whole pipeline on a small model and real text.

    \b
    openrpt demo --budget 1h
    """
    minutes = parse_budget(budget)
    from openrpt.demo import print_outcome, run_demo

    with showing_progress(goes_on=True) as progress:
        done = run_demo(minutes, Path(run) if run else None, progress)
    print_outcome(done)


def parse_budget(text: str) -> float:
    """`90s`, `15m`, `1.5h` → minutes. Raises UserError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    minutes = float(match[1]) * {"s": 1 / 60, "m": 1.0, "h": 60.0}[match[2]] if match else 0.0
    if not 0 < minutes <= MOST_MINUTES:
        raise UserError(f"--budget {text}: a time such as 90s, 15m or 1.5h, at most 1000h")
    return minutes


@cli.command()
def doctor() -> None:
    """Say what machine this is, and what to do about anything wrong.

    \b
    openrpt doctor
    """
    from openrpt.doctor import diagnose, print_report

    print_report(diagnose())
