"""A small run with its controls, from a corpus to tables and figures.

It scores, warms up and trains, then makes and evaluates the controls, the most telling first. It
stops cleanly at Ctrl-C, and the same command goes on.

    python -m openrpt.experiments.every_control --corpus omni_math_rule_dev.jsonl
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from openrpt.config.loading import load_config, with_overrides
from openrpt.config.sections import Config
from openrpt.errors import UserError
from openrpt.experiments.controls import run_controls
from openrpt.progress import Progress
from openrpt.runs.run import Run, open_run

_ORDER = [
    "start",
    "thought",
    "no-thought",
    "random-reward",
    "ntp-documents",
    "warmup-self",
    "warmup-truth",
    "ntp-flops",
]
"""The most telling first, so that a run which is broken off has said most."""


def _experiment_config(corpus: Path, run: Path, more: dict[str, Any]) -> Config:
    """Returns a configuration small enough for two cores; everything else is the default."""
    return load_config(
        overrides={
            "run": str(run),
            "corpus.path": str(corpus),
            "corpus.template": "{problem}\n\n{solution}",
            "corpus.kind": "domain",
            "corpus.kind_levels": 2,
            "score.max_tokens": 8_000,
            "warmup.steps": 12,
            "train.documents_per_step": 2,
            "train.eval_every": 1,
            "train.eval_positions": 32,
            "checkpoints.every": 4,
            "checkpoints.kept": 1,
            "checkpoints.minutes": 4.0,
            "pretrain.eval_every": 0,
        }
        | more
    )


def _run_experiment(run: Run, progress: Progress) -> None:
    """Scores, warms up and trains, then runs the controls in their order."""
    from openrpt.stages.score.score import score_run
    from openrpt.stages.train import train
    from openrpt.stages.warmup.warmup import warmup

    config = run.config
    score_run(run, progress)
    warmup(run, progress=progress)
    train(run, progress=progress)
    measured = with_overrides(config, {"evaluate.likelihood": True})
    for name in _ORDER:
        of_ntp = name.startswith("ntp")
        run_controls(run, [name], config if of_ntp else measured, progress=progress)


def _write_results(run: Run, out: Path, say: Callable[[str], None]) -> None:
    """Writes what `openrpt compare`, `patterns` and `scaling` write about the run."""
    from openrpt.evaluation.next_token.compare import compare
    from openrpt.evaluation.next_token.comparison_files import write_comparison
    from openrpt.evaluation.next_token.recorded import find_evaluated
    from openrpt.evaluation.patterns.bins import run_bins
    from openrpt.evaluation.patterns.table import write_patterns
    from openrpt.evaluation.scaling.files import read_points, write_scaling
    from openrpt.evaluation.scaling.scaling import analyse

    source = str(run.path)
    write_comparison(compare(find_evaluated([source]), "start ntp"), out, [source])
    write_patterns([run_bins(run, bins=2)], out / "patterns")
    try:
        write_scaling(analyse(read_points([source])), out)
    except UserError as error:  # too few evaluations yet
        say(f"no scaling fit: {error}")


@click.command(help=__doc__)
@click.option("--corpus", type=click.Path(path_type=Path), required=True, help="JSON lines")
@click.option("--run", "folder", type=click.Path(path_type=Path), default=Path("runs/controls"))
@click.option("--model", default="smollm2", help="Start model")
@click.option("--out", type=click.Path(path_type=Path), help="Where the tables go [RUN/results]")
@click.option("--steps", type=int, default=16, help="Steps of reinforcement [16]")
@click.option("--positions", type=int, default=320, help="Held-out positions [320]")
@click.option("--threads", type=int, default=0, help="As model.threads")
def _main(
    corpus: Path,
    folder: Path,
    model: str,
    out: Path | None,
    steps: int,
    positions: int,
    threads: int,
) -> None:
    """The experiment as a command: it goes on where it was stopped."""
    from openrpt.progress import live_progress
    from openrpt.stages.score.score import check_input
    from openrpt.terminal import say

    more = {"model.path": model, "model.threads": threads}
    more |= {"train.steps": steps, "evaluate.positions": positions}
    run = open_run(_experiment_config(corpus, folder, more), check_input=check_input)
    with live_progress() as progress:
        _run_experiment(run, progress)
    _write_results(run, out or run.path / "results", say)


if __name__ == "__main__":
    _main()
