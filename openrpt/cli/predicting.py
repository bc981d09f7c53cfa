"""The commands that measure how models predict next tokens: evaluate, compare, perplexity."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openrpt.cli.arguments import LABEL, PATH, RunCommand
from openrpt.cli.main import command, showing_progress, stage
from openrpt.cli.scaling import cluster_of, opening, scalable
from openrpt.cli.stage_config import model_and_config, models_and_config, named_run, other_corpus
from openrpt.errors import UserError
from openrpt.terminal import say

if TYPE_CHECKING:
    from openrpt.evaluation.next_token.results import EvaluationResult


@stage("evaluate", "cost", reads="evaluation", after="pretrain")
@click.argument("sources", metavar="[MODEL]... [CONFIG.toml]", type=PATH, nargs=-1)
@click.option(
    "--scores", type=PATH, metavar="DIR", help="A folder of scores in place of the run's own"
)
@click.option(
    "--label", type=LABEL, default="", help="Its name in evaluation.json [default made from MODEL]"
)
@scalable
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
    best, pretrained. Default: the run's latest; openrpt evaluate RUN does as --run RUN. Several
    models stand side by side at the end, as in the paper's Table 1; several templates as in its
    Table 8.
    """
    cluster = cluster_of(options)
    models, config = models_and_config(ctx, sources, in_run=scores is None)
    if label and len(models) > 1:
        raise UserError("--label names one model; give one, or leave it out")
    from openrpt.console import PlainConsole
    from openrpt.evaluation.models import check_models, latest_model
    from openrpt.evaluation.next_token.shown import print_evaluations
    from openrpt.evaluation.next_token.stage import evaluate_templates, open_evaluated
    from openrpt.evaluation.outcome import next_command
    from openrpt.evaluation.records import read_evaluation
    from openrpt.report.verdict import model_sentences
    from openrpt.runs.run import is_run, open_run

    path, place = Path(config.run), Path(scores) if scores else None
    has_run = is_run(path)
    if place is None or has_run:
        run = named_run(ctx, config, models)
    else:
        run = open_run(config, check_input=lambda new: check_models(new, models, scores=place))
    asked = models or (latest_model(run),)
    open_model = opening(cluster, run.path, open_evaluated)
    found: list[tuple[str, EvaluationResult]] = []
    with showing_progress(goes_on=True) as progress:
        for model in asked:
            progress.begin(f"load {model}", 0)
            found += evaluate_templates(
                run,
                model,
                config,
                label=label,
                scores=place,
                open_model=open_model,
                progress=progress,
            )
    print_evaluations(run, found, config.evaluate, models=len(asked), console=PlainConsole())
    entries = read_evaluation(run.evaluation)["evaluations"]
    for name, _ in found:
        for sentence in model_sentences(name, entries[name], config.prompt):
            say(sentence)
    for name, _ in found:
        say(f"recorded as '{name}' in {run.evaluation}")
    say(f"next: {next_command(run)}")


@command("compare", after="experiment", cls=RunCommand)
@click.argument("sources", metavar="RUN_OR_MODEL...", type=PATH, nargs=-1, required=True)
@click.option("--against", default="", help="What differences are to [default: the first line]")
@click.option(
    "--layout",
    type=click.Choice(["differences", "table-1", "table-8", "figure-4"]),
    default="differences",
    help="What is printed: paired differences, or as the paper has it [default differences]",
)
@click.option("--out", type=PATH, metavar="DIR", help="Also writes the comparison into this folder")
def compare(sources: tuple[str, ...], against: str, layout: str, out: str | None) -> None:
    """Put the evaluated models of runs into one table.

    \b
    openrpt compare runs/maths runs/no-think --against "maths/start ntp"

    openrpt compare runs/maths --layout table-1

    RUN_OR_MODEL is a run folder, or a model in one that `openrpt evaluate` has evaluated. --out
    writes comparison.json, .csv, .md (every layout) and .svg into a folder; an earlier comparison
    of the same is replaced.
    """
    from openrpt.console import PlainConsole
    from openrpt.evaluation.next_token.compare import compare as compare_models
    from openrpt.evaluation.next_token.comparison_files import write_comparison
    from openrpt.evaluation.next_token.recorded import find_evaluated
    from openrpt.evaluation.next_token.tables import print_comparison

    comparison = compare_models(find_evaluated(sources), against)
    files = write_comparison(comparison, Path(out), sources) if out else []
    print_comparison(comparison, PlainConsole(), layout)
    for path in files:
        say(path)


@stage(
    "perplexity",
    "run",
    "model",
    "engine.trainer",
    "prompt.window",
    "evaluate.split",
    "score.max_tokens",
    "corpus.template",
    "corpus.separator",
    "corpus.block_characters",
    "corpus.limit",
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
    model, config = model_and_config(ctx, source, in_run=text is None)
    corpus = other_corpus(ctx, text)
    from openrpt.evaluation.perplexity.instrument import model_perplexity
    from openrpt.runs.run import Run, is_run

    path = Path(config.run)
    has_run = corpus is None or is_run(path)
    asked = (model,) if model else ()
    run = named_run(ctx, config, asked) if has_run else Run(path=path, config=config)
    with showing_progress() as progress:
        label, name, measured = model_perplexity(
            run, model, config, corpus=corpus, label=label, record=has_run, progress=progress
        )
    say(f"{label} on {name}: {measured.describe()}")
    if has_run:
        say(f"recorded in {run.evaluation}")
