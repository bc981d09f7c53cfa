"""The commands that measure models: evaluate, compare, perplexity, writing, zeroshot, coding,
suite, probe, questions, patterns, scaling.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openrpt.cli.arguments import LABEL, PATH
from openrpt.cli.main import _models_and_config, cli, showing_progress, stage
from openrpt.cli.options import OVERRIDES, config_file, stage_config
from openrpt.errors import UserError
from openrpt.terminal import say

if TYPE_CHECKING:
    from openrpt.config.corpus import CorpusConfig
    from openrpt.config.sections import Config
    from openrpt.runs.run import Run


@stage(
    "questions",
    *("seed", "run", "model", "questions", "answers"),
    *("finetune.question_tokens", "finetune.think_budget", "finetune.answer_budget"),
    *("finetune.eval_questions", "finetune.eval_samples", "finetune.eval_temperature"),
    *("prompt.instruction", "prompt.chat_template", "prompt.thought_start", "prompt.thought_end"),
    *("prompt.answer_start", "memory.generation_rollouts"),
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
    from openrpt.evaluation.models import named_models
    from openrpt.evaluation.questions.table import (
        answer_side_by_side,
        print_questions,
        write_questions,
    )
    from openrpt.runs.run import Run, existing_run

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


@stage("evaluate", "cost", reads="evaluation")
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
    from openrpt.evaluation.models import latest_model
    from openrpt.evaluation.next_token.compare import compare, find_evaluated
    from openrpt.evaluation.next_token.stage import evaluate_templates
    from openrpt.evaluation.next_token.tables import (
        print_details,
        print_evaluation,
        table_1,
        table_8,
    )
    from openrpt.evaluation.records import read_evaluation
    from openrpt.runs.run import existing_run, open_run
    from openrpt.sheets import print_sheet

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
    entries = read_evaluation(run.evaluation)["evaluations"]
    for name, result in found:
        title = f"{name}: accuracy on the {settings.split} split"
        print_evaluation(result, title, settings.modes, settings.samples, console)
        print_details(result, console)
        if seen := entries[name]["supervision"]:
            say(f"{name} comes of a supervised warmup: it saw {seen}")
    labels = [name for name, _ in found]
    if len(labels) > 1:
        recorded = [one for one in find_evaluated([str(run.path)]) if one.label in labels]
        if len(models) > 1:
            print_sheet(table_1(compare(recorded)), console)
        if len(settings.templates) > 1 and "reasoning" in settings.modes:
            print_sheet(table_8(recorded), console)
    for name in labels:
        say(f"recorded as '{name}' in {run.evaluation}")


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
    from openrpt.evaluation.next_token.compare import compare as compare_models
    from openrpt.evaluation.next_token.compare import find_evaluated
    from openrpt.evaluation.next_token.tables import print_comparison, write_comparison

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
    from openrpt.runs.run import Run, existing_run

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
    from openrpt.evaluation.models import named_models
    from openrpt.evaluation.writing.table import print_writing, write_side_by_side, write_writing
    from openrpt.runs.run import existing_run

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
    from openrpt.config.loading import load_config

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
    from openrpt.evaluation.end_tasks.tables import print_zero_shot
    from openrpt.evaluation.end_tasks.zero_shot import end_tasks, zero_shot

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
    from openrpt.evaluation.end_tasks.coding import coding as run_coding
    from openrpt.evaluation.end_tasks.coding import describe, mode_name, read_tasks

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
    from openrpt.evaluation.end_tasks.suite import check_parts, print_suite, run_suite

    check_parts(config)
    run = _run_to_ask_in(config, model)
    with showing_progress(goes_on=True) as progress:
        label, lines = run_suite(run, model, config, label=label, progress=progress)
    print_suite(label, lines, PlainConsole())
    say(f"recorded in {run.path / 'suite.json'}")


def _run_to_ask_in(config: "Config", model: str | None) -> "Run":
    """The run that is there, or a new one whose model is MODEL."""
    from openrpt.config.loading import with_overrides
    from openrpt.evaluation.models import OWN_MODELS
    from openrpt.runs.run import existing_run, open_run

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
    from openrpt.evaluation.models import named_models
    from openrpt.evaluation.probes.table import print_probes, probe_models, write_probes
    from openrpt.runs.run import existing_run

    run = existing_run(Path(config.run))
    models = named_models(run, sources)
    with showing_progress() as progress:
        probed = probe_models(run, models, config, progress=progress)
    files = write_probes(run, probed)
    print_probes(probed, PlainConsole())
    for path in files:
        say(path)


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
    from openrpt.evaluation.patterns.bins import Bin, evaluation_bins, run_bins
    from openrpt.evaluation.patterns.measures import KEYWORDS, read_keywords
    from openrpt.evaluation.patterns.table import print_patterns, write_patterns
    from openrpt.loaded import load_run

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
    from openrpt.evaluation.scaling.files import (
        output_folder,
        print_scaling,
        read_points,
        write_scaling,
    )
    from openrpt.evaluation.scaling.scaling import analyse

    folder = output_folder(sources, out)
    with showing_progress() as progress:
        points = read_points(sources)
        found = analyse(points, resamples=resamples, seed=seed, progress=progress)
    print_scaling(found, PlainConsole())
    for path in write_scaling(found, folder):
        say(f"written: {path}")
