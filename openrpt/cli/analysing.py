"""The commands that analyse what runs have stored: patterns, scaling."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from openrpt.cli.arguments import PATH, RunCommand
from openrpt.cli.main import command, showing_progress
from openrpt.terminal import say

if TYPE_CHECKING:
    from openrpt.evaluation.patterns.bins import Bin


@command("patterns", after="status", cls=RunCommand)
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
    from openrpt.evaluation.patterns.bins import evaluation_bins, run_bins
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


@command("scaling", after="estimate", cls=RunCommand)
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
