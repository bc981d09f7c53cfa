"""Runs a laboratory: every arm at every seed, side by side; what is done is passed over."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from openrpt.config.loading import with_overrides
from openrpt.config.sections import Config
from openrpt.experiments.alike import require_made_as
from openrpt.experiments.control import Control, control_named
from openrpt.experiments.controls import measured_as, train_control
from openrpt.experiments.lab.files import write_files
from openrpt.experiments.lab.lab import ARMS, CONTROLS, LONGEST_FIRST, TEXT_ARMS, Lab, LabSeed
from openrpt.experiments.lab.outcome import Outcome, finished_runs, outcome_of
from openrpt.experiments.side_by_side import Job, run_jobs
from openrpt.extras import require
from openrpt.progress import SILENT, Progress
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, existing_run, open_run

_BEFORE = "text and rpt"
"""The job that all arms of a seed wait for."""
_AMOUNTS = ("pretrain.steps", "train.steps", "evaluate.positions")
"""The keys beside those that a run's results bind: a finished seed is given no more of these."""


def run_lab(lab: Lab, *, workers: int = 1, progress: Progress = SILENT) -> Outcome:
    """Runs, or goes on with, the whole comparison, and writes `lab.json`, `lab.md` and `lab.svg`
    whenever all arms of a seed are done; returns what they say, of all such seeds in the folder.

    A seed whose arms are all recorded is passed over: no model is loaded for it. `workers`:
    processes at a time; results do not depend on it. Raises UserError for a world that is unknown,
    for a folder whose seeds were made otherwise, and whatever the stages raise.
    """
    if len(lab.seeds) > 1:  # before hours of work
        require("scipy", extra="scaling", what="openrpt lab --seeds")
    world = lab.opened
    finished = finished_runs(lab)
    _require_same_settings(lab, finished)
    jobs = [job for seed in lab.seeds if seed not in finished for job in _jobs(lab.at(seed))]
    left = {seed: set(ARMS) for seed in lab.seeds}
    with ExitStack() as held:

        def ended(key: tuple[int, str], result: Any) -> None:
            seed, name = key
            run = existing_run(lab.at(seed).rpt_folder)
            if name == _BEFORE:  # what its arms find is recorded here alone
                held.enter_context(run.at_work())
                return
            if result is not None:
                _record(run, result)
            left[seed].discard(name)
            if not left[seed]:
                write_files(lab.folder, outcome_of(lab.world, world, finished_runs(lab)))

        run_jobs(jobs, workers=workers, ended=ended, progress=progress)
    outcome = outcome_of(lab.world, world, finished_runs(lab))
    if not jobs:  # the files may have been lost since
        write_files(lab.folder, outcome)
    return outcome


def _require_same_settings(lab: Lab, finished: Mapping[int, Run]) -> None:
    """Checks that the seeds in the folder were made as these would be, since they share a table."""
    for seed, rpt in finished.items():
        own = lab.at(seed)
        pairs = [(existing_run(own.folder / "text"), own.text())]
        pairs += [(rpt, own.rpt(rpt.config.model.path))]
        for run, config in pairs:
            require_made_as(run, config, "seed", also=_AMOUNTS)


def _jobs(lab: LabSeed) -> list[Job[tuple[int, str]]]:
    """Returns the jobs of a seed: start and reinforcement, then the arms, the longest first."""
    before = Job(
        key=(lab.seed, _BEFORE),
        title=f"seed {lab.seed}, {_BEFORE}",
        work=partial(_make_rpt, lab),
    )
    arms = [
        Job(
            key=(lab.seed, arm),
            title=f"seed {lab.seed}, {arm}",
            work=partial(_run_arm, lab, arm),
            after=(before.key,),
        )
        for arm in LONGEST_FIRST
    ]
    return [before, *arms]


def _make_rpt(lab: LabSeed, progress: Progress) -> None:
    from openrpt.stages.train import train

    _use_threads(lab)
    _, start = _pretrained(lab.text(), progress)
    train(_scored(lab.rpt(start), progress), progress=progress)


def _run_arm(lab: LabSeed, arm: str, progress: Progress) -> Any:
    """Trains an arm and evaluates it; returns what is to be recorded, None where it is already."""
    from openrpt.evaluation.models import model_path
    from openrpt.evaluation.next_token.stage import measure_model

    _use_threads(lab)
    rpt = existing_run(lab.rpt_folder)
    config, start = rpt.config, rpt.config.model.path
    control = _control(lab, arm)
    if control is not None:
        model = str(train_control(rpt, control, arm, config, progress=progress))
        config = measured_as(control, config)
    elif arm in TEXT_ARMS:
        _, model = _pretrained(lab.text_arm(arm, start, rpt), progress)
    elif arm == "deeper":
        _, model = _pretrained(lab.deeper(_flops_of_both(lab, rpt)), progress)
        config = with_overrides(config, {"evaluate.modes": ["ntp"], "evaluate.controls": []})
    else:
        model = start if arm == "start" else model_path(rpt, "trained")
    return measure_model(rpt, model, config, label=arm, progress=progress)


def _control(lab: LabSeed, arm: str) -> Control | None:
    if arm == "filler":
        return lab.filler()
    return control_named(arm) if arm in CONTROLS else None


def _record(run: Run, found: Any) -> None:
    from openrpt.evaluation.next_token.stage import record_measured

    record_measured(run, found)


def _use_threads(lab: LabSeed) -> None:
    from openrpt.engine.cpu import use_cpu

    use_cpu(lab.text().model.threads)


def _flops_of_both(lab: LabSeed, rpt: Run) -> float:
    """Returns the FLOPs of the start's training and of reinforcement."""
    from openrpt.stages.pretrain.matched import spent_flops

    text = existing_run(lab.folder / "text")
    return spent_flops(rpt) + sum(row["flops/update"] for row in read_metrics(text.metrics))


def _scored(config: Config, progress: Progress) -> Run:
    from openrpt.stages.score.score import score_corpus

    run = open_run(config)
    progress.begin(f"score {run.path.name}", 0, "tokens")
    score_corpus(config, run.scored, progress=lambda tokens, text: progress.update(tokens, text))
    return run


def _pretrained(config: Config, progress: Progress) -> tuple[Run, str]:
    """Pretrains; returns the run of plain next-token training, and the folder of the model that it
    ends with."""
    from openrpt.stages.pretrain.pretrain import pretrain

    run = _scored(config, progress)
    return run, str(pretrain(run, progress=progress).checkpoint)
