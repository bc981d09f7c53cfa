"""Runs an experiment: every arm at every seed; what is done is passed over.

Each arm is a run folder, `SEED/NAME`, and is measured on the same held-out problems, whose scores
and evaluations lie in `SEED/problems`. `SEED/NAME.json` says that it is done, and what it measured.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from openrpt.config.binding import first_change
from openrpt.config.loading import flatten, with_overrides
from openrpt.errors import UserError
from openrpt.experiments.answers.experiment import START, Arm, Experiment, Size, arms_of
from openrpt.experiments.answers.files import (
    claim_folder,
    read_measured,
    write_measured,
    write_outcome,
)
from openrpt.experiments.answers.ground import QUESTIONS, Ground, LabGround, Origin, ground_of
from openrpt.experiments.answers.outcome import (
    ArmRow,
    Measured,
    Outcome,
    last_of_metrics,
    measured_values,
)
from openrpt.experiments.side_by_side import Job, run_jobs
from openrpt.extras import require
from openrpt.files import replacing
from openrpt.progress import SILENT, Progress
from openrpt.runs.environment import environment
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, existing_run, open_run
from openrpt.runs.spent import costs, together
from openrpt.runs.taken_over import link_folder

_MODELS = {"pretrain": "pretrained", "warmup": "warmup", "train": "trained", "finetune": "trained"}
"""The word for the model that a stage leaves."""


@dataclass(frozen=True, kw_only=True)
class _Done:
    """What a job found."""

    measured: Measured
    evaluated: Any = None
    """The evaluation that is to be recorded; None where it is already."""


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
    jobs = [job for seed in seeds for job in _jobs(ground_of(size, folder, seed), arms, seed)]
    with ExitStack() as held:

        def ended(key: tuple[int, str], done: _Done) -> None:
            seed, name = key
            ground = ground_of(size, folder, seed)
            run = existing_run(_problems(ground))
            if name == START:  # what the arms find is recorded here alone
                held.enter_context(run.at_work())
            if done.evaluated is not None:
                _record(run, done.evaluated)
            write_measured(ground.folder, done.measured)
            left[seed].discard(name)
            if not left[seed]:
                write_outcome(folder, experiment, outcome_in(experiment, size, folder))

        run_jobs(jobs, workers=workers, ended=ended, progress=progress)
    return outcome_in(experiment, size, folder)


def outcome_in(experiment: Experiment, size: Size, folder: Path) -> Outcome:
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
    text = config.corpus.path
    if isinstance(ground, LabGround):
        recipe = ground.lab.lab.recipe
        text = f"lab:{ground.size.world}, the start's text {recipe.shares}, width {recipe.width}"
    return {
        "text": text,
        "reinforcement": f"{train.steps} steps of {train.documents} documents,"
        f" {train.positions_per_document} position(s) each, {train.group_size} rollouts;"
        f" {train.algorithm}, learning rate {train.learning_rate:g}",
        "measured at": f"{config.evaluate.positions} held-out positions a seed",
    }


def _jobs(ground: Ground, arms: Sequence[Arm], seed: int) -> list[Job[tuple[int, str]]]:
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
                work=partial(_do, ground, arm, [by_name[name] for name in sorted(needed)], seed),
                after=tuple((seed, name) for name in sorted(needed)),
            )
        )
    return found


def _problems(ground: Ground) -> Path:
    return Path(ground.problems("").run)


def _do(ground: Ground, arm: Arm, before: Sequence[Arm], seed: int, progress: Progress) -> _Done:
    """Makes an arm and measures it, where that is not done."""
    from openrpt.engine.cpu import use_cpu

    known = read_measured(ground.folder, arm.name)
    by_name = {one.name: one for one in before}
    if known is not None:
        _require_same(ground, arm, _origin(ground, arm, by_name))
        return _Done(measured=known)
    use_cpu(ground.problems("").model.threads)
    run = _make(ground, arm, by_name, progress)
    if arm.stage == "finetune":
        return _Done(measured=_asked(run, arm, seed))
    return _measure(ground, run, arm, seed, progress)


def _require_same(ground: Ground, arm: Arm, origin: Origin) -> None:
    """Checks that an arm that is done was made as it would be now, since all seeds share a
    table."""
    run, config = existing_run(ground.folder / arm.name), ground.config(arm, origin)
    key = first_change(run.config, config, run.standing())
    if key is None and run.config.train.steps != config.train.steps:
        key = "train.steps"
    if key is not None:
        was, now = (flatten(one.model_dump(mode="json"))[key] for one in (run.config, config))
        raise UserError(
            f"{run.path}: the arm was made with {key} = {was!r}, not {now!r}; choose another --run"
        )


def _make(ground: Ground, arm: Arm, before: dict[str, Arm], progress: Progress) -> Run:
    """Trains an arm; returns its run."""
    if arm.name == START and not ground.scored_by_start:
        _score(open_run(ground.problems("")), progress)
    run = _trained(ground, arm, _origin(ground, arm, before), progress)
    if arm.name == START and ground.scored_by_start:
        _score(open_run(ground.problems(_model(run, arm))), progress)
    return run


def _origin(ground: Ground, arm: Arm, before: dict[str, Arm]) -> Origin:
    if arm.name == START:
        return Origin()
    runs = {name: existing_run(ground.folder / name) for name in before}
    flops = sum(_cost(runs[name])["flops"] for name in arm.match)
    steps = 0
    if flops and arm.stage in ("train", "finetune"):  # as many as the first of these took for it
        first = _cost(runs[arm.match[0]])
        steps = round(flops / first["flops"] * first["steps"])
    return Origin(
        start=_model(runs[START], before[START]),
        model=_model(runs[arm.origin], before[arm.origin]) if arm.origin else "",
        flops=flops,
        steps=steps,
    )


def _trained(ground: Ground, arm: Arm, origin: Origin, progress: Progress) -> Run:
    from openrpt.stages.finetune import finetune
    from openrpt.stages.pretrain.pretrain import pretrain
    from openrpt.stages.train import train
    from openrpt.stages.warmup.warmup import warmup

    run = open_run(ground.config(arm, origin))
    if arm.stage == "finetune":
        if isinstance(ground, LabGround):
            _write_questions(ground)
        finetune(run, progress=progress)
        return run
    if arm.name == START or not _takes_scores(existing_run(_problems(ground)), run):
        _score(run, progress)
    stages: dict[str, Any] = {"pretrain": pretrain, "warmup": warmup, "train": train}
    stages[arm.stage](run, progress=progress)
    return run


def _takes_scores(problems: Run, run: Run) -> bool:
    """Links the scores of the problems where an arm's would be the same: those that go on from the
    start, since scores belong to a model."""
    if first_change(problems.config, run.config, ["score"]) is not None:
        return False
    link_folder(problems.scored, run.scored)
    return True


def _write_questions(ground: LabGround) -> None:
    lines = [json.dumps(row) + "\n" for row in ground.question_rows()]
    with replacing(ground.folder / QUESTIONS, shared=True) as partial:  # other arms write it, too
        partial.write_text("".join(lines), encoding="utf-8")


def _score(run: Run, progress: Progress) -> None:
    from openrpt.stages.score.score import score_run

    score_run(run, progress)


def _model(run: Run, arm: Arm) -> str:
    from openrpt.evaluation.models import model_path

    return model_path(run, _MODELS[arm.stage])


def _measure(ground: Ground, run: Run, arm: Arm, seed: int, progress: Progress) -> _Done:
    """Evaluates an arm on the seed's problems."""
    from openrpt.evaluation.next_token.stage import measure_model
    from openrpt.evaluation.records import read_evaluation

    problems = existing_run(_problems(ground))
    config = with_overrides(problems.config, dict(arm.asked))
    found = measure_model(problems, _model(run, arm), config, label=arm.name, progress=progress)
    if found is not None:
        summary = found.result.summary()
    else:
        summary = read_evaluation(problems.evaluation)["evaluations"][arm.name]["summary"]
    return _Done(
        measured=_measured(run, arm, seed, measured_values(summary, ground.shown)),
        evaluated=found,
    )


def _asked(run: Run, arm: Arm, seed: int) -> Measured:
    """Returns what a fine-tuning recorded of its held-out questions."""
    from openrpt.evaluation.questions.results import finished_record

    record = finished_record(run.path)
    values = {
        "accuracy": record["after"]["summary"]["accuracy"]["all"]["value"],
        "before": record["before"]["summary"]["accuracy"]["all"]["value"],
    }
    return _measured(run, arm, seed, values)


def _measured(run: Run, arm: Arm, seed: int, values: dict[str, float]) -> Measured:
    from openrpt.evaluation.scaling.files import parameters_in

    rows = [row for row in read_metrics(run.metrics) if row["stage"] == arm.stage]
    cost = _cost(run)
    return Measured(
        arm=arm.name,
        seed=seed,
        values=values | last_of_metrics(rows),
        parameters=parameters_in(Path(_model(run, arm))),
        steps=int(cost["steps"]),
        flops=cost["flops"],
        seconds=cost["seconds"],
        joules=cost["joules"],
        warnings=[
            f"{warning['name']} at step {warning['step']}: {warning['seen']}"
            for row in rows
            for warning in row.get("warnings", [])
        ],
    )


def _cost(run: Run) -> dict[str, float]:
    """Returns what the steps of a run took."""
    parts = costs(read_metrics(run.metrics))
    whole = together(parts)
    steps = sum(part.steps for part in parts)
    return {
        "flops": whole.flops,
        "seconds": whole.total_seconds,
        "joules": whole.joules,
        "steps": steps,
    }


def _record(run: Run, found: Any) -> None:
    from openrpt.evaluation.next_token.stage import record_measured

    record_measured(run, found)
