"""A small run with all of its controls, and every table and figure about it.

    python -m openrpt.experiments.controls --corpus omni_math_rule_dev.jsonl --run runs/controls

About two hours on two cores by itself, some minutes with --steps 4. Ctrl-C stops it after the step
that runs; the same command goes on. What comes out is written to `--out`: tables in markdown with
n, errors and costs, and the figures.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from openrpt.config import Config, load_config
from openrpt.errors import UserError
from openrpt.progress import Progress
from openrpt.run import Run, open_run

ORDER = [
    *("start", "thought", "no-thought", "random-reward", "ntp-documents"),
    *("warmup-self", "warmup-truth", "ntp-flops"),
]
"""The most telling first, so that a run which is broken off has said most."""


def experiment_config(corpus: Path, run: Path, more: dict[str, Any]) -> Config:
    """Small enough for two cores; everything else is the default."""
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
            "train.checkpoint_every": 4,
            "train.checkpoints_kept": 1,
            "train.checkpoint_minutes": 4.0,
            "pretrain.eval_every": 0,
        }
        | more
    )


def run_experiment(run: Run, progress: Progress) -> None:
    """Score, warm up, train; then the controls in their order."""
    from openrpt.control import run_controls
    from openrpt.options import with_overrides
    from openrpt.scoring import load_scored, score_corpus
    from openrpt.skipped import skipped_lines
    from openrpt.train import train
    from openrpt.warmup import warmup

    config = run.config
    progress.begin("score", config.score.max_tokens * len(config.score.splits), "tokens")
    score_corpus(config, run.scored, progress=lambda tokens, text: progress.update(tokens, text))
    for line in skipped_lines(load_scored(run.scored).metadata):
        progress.say(line)
    warmup(run, progress=progress)
    train(run, progress=progress)
    measured = with_overrides(config, {"evaluate.likelihood": True})
    for name in ORDER:
        of_ntp = name.startswith("ntp")
        run_controls(run, [name], config if of_ntp else measured, progress=progress)


def write_results(run: Run, out: Path, say: Callable[[str], None]) -> None:
    """What `openrpt compare`, `patterns` and `scaling` write of the run."""
    from openrpt.evaluation.compare import compare, find_evaluated
    from openrpt.evaluation.pattern_runs import run_bins
    from openrpt.evaluation.pattern_table import write_patterns
    from openrpt.evaluation.scaling import analyse
    from openrpt.evaluation.scaling_files import read_points, write_scaling
    from openrpt.evaluation.tables import write_comparison

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
@click.option("--steps", type=int, default=16, help="Of reinforcement [16]")
@click.option("--positions", type=int, default=320, help="Held-out positions [320]")
@click.option("--threads", type=int, default=0, help="As model.threads")
def main(
    corpus: Path,
    folder: Path,
    model: str,
    out: Path | None,
    steps: int,
    positions: int,
    threads: int,
) -> None:
    from openrpt.cli import showing_progress
    from openrpt.terminal import say

    more = {"model.path": model, "model.threads": threads}
    more |= {"train.steps": steps, "evaluate.positions": positions}
    run = open_run(experiment_config(corpus, folder, more))
    with showing_progress() as progress:
        run_experiment(run, progress)
    write_results(run, out or run.path / "results", say)


if __name__ == "__main__":
    main()
