"""The commands that put models side by side: writing, budgets, probe, questions."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openrpt.cli.arguments import PATH
from openrpt.cli.main import showing_progress, stage
from openrpt.cli.stage_config import models_and_config, named_run, other_corpus
from openrpt.terminal import say

if TYPE_CHECKING:
    from openrpt.evaluation.instrument import Comparing
    from openrpt.evaluation.models import NamedModel
    from openrpt.evaluation.reports import Report
    from openrpt.progress import Progress


_COMPARED = (
    "seed",
    "run",
    "model.threads",
    "model.device",
    "model.dtype",
    "model.compute_dtype",
    "engine.trainer",
)
"""The keys that every measurement of given models reads: the models' paths are its arguments."""


class _TokenCounts(click.ParamType):
    """Numbers of tokens: `0,8,16`."""

    name = "counts"

    def convert(self, value: Any, param: Any, ctx: Any) -> list[int]:
        """Returns the numbers; fails where one is none, or there are none."""
        counts = [item.strip() for item in value.split(",")]
        for count in counts:
            if not re.fullmatch("[0-9]{1,7}", count):
                self.fail(f"'{count}' is no number of tokens; give some, as in 0,8,16", param, ctx)
        return [int(count) for count in counts]


@stage(
    "writing",
    *_COMPARED,
    "writing",
    "prompt.window",
    "evaluate.split",
    "corpus.template",
    "corpus.separator",
    "corpus.block_characters",
    "corpus.limit",
    after="perplexity",
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

    Perplexity, diversity, repetition and a MAUVE-like similarity to the real continuations, which
    stand beside them; differences are to the first model. MODEL is as in openrpt probe. The same
    command goes on after a stop. Writes TEXT.json, .md and .csv into RUN/writing.
    """
    sources, config = models_and_config(ctx, sources, in_run=True)
    corpus = other_corpus(ctx, text)
    from openrpt.evaluation.models import named_models
    from openrpt.evaluation.writing.instrument import writing_of

    run = named_run(ctx, config, sources)
    models = named_models(run, sources)
    with run.at_work(), showing_progress(goes_on=True) as progress:
        instrument = writing_of(run, models, config, corpus=corpus, progress=progress)
        report, files = _side_by_side(instrument, models, run.path / "writing", progress)
    _show(report, files)


@stage(
    "budgets",
    *_COMPARED,
    "prompt",
    "evaluate.split",
    "evaluate.positions",
    "evaluate.positions_per_document",
    "evaluate.min_entropy",
    "evaluate.samples",
    "evaluate.temperature",
    after="compare",
)
@click.argument("sources", metavar="[MODEL]... [CONFIG.toml]", type=PATH, nargs=-1)
@click.option(
    "--think",
    type=_TokenCounts(),
    metavar="TOKENS,…",
    default="0,8,16,32,64",
    help="Think budgets in tokens, in place of prompt.think_budget [default 0,8,16,32,64]",
)
@click.pass_context
def budgets(ctx: click.Context, sources: tuple[str, ...], think: list[int], **options: Any) -> None:
    """Measure accuracy over thought at test time.

    \b
    openrpt budgets start trained --run runs/maths
    openrpt budgets trained --run runs/maths --think 0,16,64,256 --evaluate.positions 256

    At the held-out positions of openrpt evaluate, each model thinks with one budget after another;
    a thought that has not ended by then is closed. Differences are to the standard prediction of
    the same weights. MODEL is as in openrpt probe. The same command goes on after a stop. Writes
    budgets.json, .csv, .md and .svg into RUN/budgets.
    """
    sources, config = models_and_config(ctx, sources, in_run=True)
    from openrpt.evaluation.budgets.instrument import budgets_of
    from openrpt.evaluation.models import named_models

    run = named_run(ctx, config, sources)
    models = named_models(run, sources)
    instrument = budgets_of(run, config, think)
    with run.at_work(), showing_progress(goes_on=True) as progress:
        report, files = _side_by_side(instrument, models, run.path / "budgets", progress)
    _show(report, files)


@stage(
    "probe",
    *_COMPARED,
    "probe",
    "prompt.window",
    "prompt.min_context",
    "evaluate.split",
    after="suite",
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
    latest model; NAME=MODEL names it. Writes probes.json, .csv, .md and .svg into RUN/probes.
    """
    sources, config = models_and_config(ctx, sources, in_run=True)
    from openrpt.evaluation.models import named_models
    from openrpt.evaluation.probes.instrument import probes_of

    run = named_run(ctx, config, sources)
    models = named_models(run, sources)
    with run.at_work(), showing_progress() as progress:
        instrument = probes_of(run, models, config, progress=progress)
        report, files = _side_by_side(instrument, models, run.path / "probes", progress)
    _show(report, files)


@stage(
    "questions",
    "seed",
    "run",
    "model",
    "engine.trainer",
    "questions",
    "answers",
    "finetune.question_tokens",
    "finetune.think_budget",
    "finetune.answer_budget",
    "finetune.eval_questions",
    "finetune.eval_samples",
    "finetune.eval_temperature",
    "prompt.instruction",
    "prompt.examples",
    "prompt.chat_template",
    "prompt.thought_start",
    "prompt.thought_end",
    "prompt.answer_start",
    "memory.generation_rollouts",
    after="finetune",
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
    sources, config = models_and_config(ctx, sources)
    from openrpt.evaluation.models import named_models
    from openrpt.evaluation.questions.heldout import open_heldout
    from openrpt.runs.run import Run, existing_run, is_run

    path = Path(config.run)
    has_run = is_run(path)
    run = existing_run(path) if has_run else Run(path=path, config=config)
    models = named_models(run, sources)
    folder = Path(out or (path / "questions" if has_run else "questions"))
    with (
        run.at_work(),
        showing_progress(goes_on=True) as progress,
        open_heldout(config, progress=progress) as instrument,
    ):
        report, files = _side_by_side(instrument, models, folder, progress)
    _show(report, files)


def _side_by_side(
    instrument: "Comparing[Any]",
    models: "Sequence[NamedModel]",
    folder: Path,
    progress: "Progress",
) -> "tuple[Report, list[Path]]":
    """Measures the models, as far as the folder does not hold it, and writes their report there."""
    from openrpt.evaluation.instrument import measure_models

    report = instrument.report(measure_models(instrument, models, folder, progress=progress))
    return report, report.write(folder)


def _show(report: "Report", files: "Sequence[Path]") -> None:
    from openrpt.console import PlainConsole

    report.show(PlainConsole())
    for path in files:
        say(path)
