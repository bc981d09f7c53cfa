"""The commands that ask a model end tasks: zeroshot, coding, suite."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openrpt.cli.arguments import LABEL, PATH
from openrpt.cli.main import showing_progress, stage
from openrpt.cli.stage_config import model_and_config
from openrpt.terminal import say

if TYPE_CHECKING:
    from openrpt.config.sections import Config
    from openrpt.runs.run import Run


@stage(
    "zeroshot",
    "seed",
    "run",
    "model",
    "engine.trainer",
    "zeroshot",
    "prompt.chat_template",
    "prompt.thought_start",
    "prompt.thought_end",
    "prompt.answer_start",
    "cost",
    after="writing",
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
    model, config = model_and_config(ctx, source)
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
    "seed",
    "run",
    "model",
    "engine.trainer",
    "coding",
    "prompt.chat_template",
    "prompt.thought_start",
    "prompt.thought_end",
    "cost",
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
    model, config = model_and_config(ctx, source)
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
    "seed",
    "run",
    "model",
    "engine.trainer",
    "suite",
    "zeroshot",
    "coding",
    "questions",
    "answers",
    "finetune",
    "prompt.instruction",
    "prompt.chat_template",
    "prompt.thought_start",
    "prompt.thought_end",
    "prompt.answer_start",
    "cost",
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
    model, config = model_and_config(ctx, source)
    from openrpt.console import PlainConsole
    from openrpt.evaluation.end_tasks.suite import check_parts, print_suite, run_suite

    check_parts(config)
    run = _run_to_ask_in(config, model)
    with showing_progress(goes_on=True) as progress:
        label, lines = run_suite(run, model, config, label=label, progress=progress)
    print_suite(label, lines, PlainConsole())
    say(f"recorded in {run.path / 'suite.json'}")


def _run_to_ask_in(config: "Config", model: str | None) -> "Run":
    """Opens the run that is there, or a new one whose model is MODEL."""
    from openrpt.config.loading import with_overrides
    from openrpt.config.sections import OWN_MODELS
    from openrpt.evaluation.models import check_models
    from openrpt.runs.run import existing_run, is_run, open_run

    path = Path(config.run)
    if is_run(path):
        return existing_run(path)
    named = {"model.path": model} if model and model not in OWN_MODELS else {}
    return open_run(
        with_overrides(config, named),
        check_input=lambda run: check_models(run, [model] if model else []),
    )
