"""Runs an experiment: every arm at every seed; what is done is passed over.

Each arm is a run folder, `SEED/NAME`, and is measured on the same held-out problems, whose scores
and evaluations lie in `SEED/problems`. `SEED/NAME.json` says that it is done, and what it measured.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from openrpt.errors import UserError
from openrpt.experiments.answers.experiment import START, Arm, Experiment, Size, arms_of
from openrpt.experiments.answers.files import (
    claim_folder,
    read_measured,
    write_measured,
    write_outcome,
)
from openrpt.experiments.answers.ground import Ground, LabGround, ground_of
from openrpt.experiments.answers.making import make_arm, origin_of, problems_of, require_made
from openrpt.experiments.answers.measuring import Done, asked, measure_arm
from openrpt.experiments.answers.outcome import ArmRow, Measured, Outcome
from openrpt.experiments.side_by_side import Job, run_jobs
from openrpt.extras import require
from openrpt.progress import SILENT, Progress
from openrpt.runs.environment import environment
from openrpt.runs.run import Run, existing_run


def run_experiment(
    experiment: Experiment,
    size: Size,
    folder: Path,
    *,
    seeds: Sequence[int] = (),
    workers: int = 1,
    progress: Progress = SILENT,
) -> Outcome:
    """Runs, or goes on with, an experiment, and writes its results, page and figure whenever all
    arms of a seed are done; returns what they say, of all such seeds in the folder.

    `seeds`: empty = those of the size. Raises UserError for another experiment's folder, for
    runs that were made otherwise, and whatever the stages raise.
    """
    seeds = seeds or range(size.seeds)
    if size.seeds > 1:  # before hours of work
        require("scipy", extra="scaling", what="openrpt experiment")
    claim_folder(folder, experiment, size)
    arms = arms_of(experiment, size)
    left = {seed: {arm.name for arm in arms} for seed in seeds}
    jobs = [
        job
        for seed in seeds
        for job in _jobs(experiment, ground_of(size, folder, seed), arms, seed)
    ]
    with ExitStack() as held:

        def ended(key: tuple[int, str], done: Done) -> None:
            seed, name = key
            ground = ground_of(size, folder, seed)
            run = existing_run(problems_of(ground))
            if name == START:  # what the arms find is recorded here alone
                held.enter_context(run.at_work())
            if done.evaluated is not None:
                _record(run, done.evaluated)
            write_measured(ground.folder, done.measured)
            left[seed].discard(name)
            if not left[seed]:
                write_outcome(folder, experiment, _outcome_in(experiment, size, folder))

        run_jobs(jobs, workers=workers, ended=ended, progress=progress)
    return _outcome_in(experiment, size, folder)


def _outcome_in(experiment: Experiment, size: Size, folder: Path) -> Outcome:
    """Returns the results of all whole seeds in a folder."""
    arms = arms_of(experiment, size)
    measured: list[Measured] = []
    for path in sorted(folder.glob("seed-*"), key=lambda path: (len(path.name), path.name)):
        found = [read_measured(path, arm.name) for arm in arms]
        if all(found):
            shown = {arm.name for arm in arms if arm.measured}
            measured += [one for one in found if one is not None and one.arm in shown]
    return Outcome(
        experiment=experiment.name,
        budget=size.name,
        planned=size.seeds,
        setting=_setting(ground_of(size, folder, 0)),
        environment=environment(),
        arms=[
            ArmRow(name=arm.name, what=arm.what, origin=arm.origin, series=arm.series)
            for arm in arms
        ],
        measured=measured,
    )


def _setting(ground: Ground) -> dict[str, str]:
    config = ground.problems("")
    train = config.train
    if isinstance(ground, LabGround):
        recipe = ground.lab.lab.recipe
        text = f"lab:{ground.size.world}, the start's text {recipe.shares}, width {recipe.width}"
        begun = {"text": text}
    else:
        warmup = config.warmup
        begun = {
            "text": f"{config.corpus.path} (seed 0)",
            "start": f"{config.model.path}, {warmup.steps} steps of warmup of"
            f" {warmup.documents_per_step} documents, {warmup.positions_per_document} position(s)"
            f" each, learning rate {warmup.learning_rate:g}",
        }
    return {
        **begun,
        "reinforcement": f"{train.steps} steps of {train.documents} documents,"
        f" {train.positions_per_document} position(s) each, {train.group_size} rollouts;"
        f" {train.algorithm}, learning rate {train.learning_rate:g}",
        "measured at": f"{config.evaluate.positions} held-out positions a seed",
    }


def _jobs(
    experiment: Experiment, ground: Ground, arms: Sequence[Arm], seed: int
) -> list[Job[tuple[int, str]]]:
    """Returns the jobs of a seed, each behind those that it is made from."""
    by_name = {arm.name: arm for arm in arms}
    found = []
    for arm in arms:
        needed = {START, arm.origin, *arm.match} - {"", arm.name}
        if unknown := needed - set(by_name):
            raise UserError(f"arm '{arm.name}' goes on from '{min(unknown)}', which is no arm")
        found.append(
            Job(
                key=(seed, arm.name),
                title=f"seed {seed}, {arm.name}",
                work=partial(
                    _do,
                    ground,
                    arm,
                    [by_name[name] for name in sorted(needed)],
                    seed,
                    experiment.measures,
                ),
                after=tuple((seed, name) for name in sorted(needed)),
            )
        )
    return found


def _do(
    ground: Ground,
    arm: Arm,
    before: Sequence[Arm],
    seed: int,
    measures: Sequence[str],
    progress: Progress,
) -> Done:
    """Makes an arm and measures it, where that is not done."""
    from openrpt.engine.cpu import use_cpu

    known = read_measured(ground.folder, arm.name)
    by_name = {one.name: one for one in before}
    if known is not None:
        require_made(ground, arm, origin_of(ground, arm, by_name))
        return Done(measured=known)
    use_cpu(ground.problems("").model.threads)
    run = make_arm(ground, arm, by_name, progress)
    if arm.stage == "finetune":
        return Done(measured=asked(run, arm, seed))
    return measure_arm(ground, run, arm, seed, measures, progress)


def _record(run: Run, found: Any) -> None:
    from openrpt.evaluation.next_token.stage import record_measured

    record_measured(run, found)
