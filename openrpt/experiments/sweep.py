"""Runs that differ in a few keys, one after another: the same scores, each trained and evaluated.

`RUN` holds what they share: the scores, the warmup where no key that it reads differs, and the
start model's evaluation. Each run lies in `RUN/sweep/NAME`, with what it shares linked.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from openrpt.config.binding import bindings, first_change
from openrpt.config.loading import with_overrides
from openrpt.config.sections import Config, StageName
from openrpt.errors import UserError
from openrpt.evaluation.models import default_label, model_path
from openrpt.evaluation.next_token.stage import evaluate_model
from openrpt.evaluation.records import read_evaluation
from openrpt.progress import SILENT, Named, Progress
from openrpt.runs.journal import read_stage
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, existing_run, is_run, open_run, require_same_run
from openrpt.runs.taken_over import begin_from
from openrpt.stages import train as train_stage
from openrpt.stages.score import score as score_stage
from openrpt.stages.warmup import warmup as warmup_stage

_STAGES = ("score", "warmup", "train")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One run of a sweep."""

    name: str
    """The values that it has and the others have not: `learning_rate=2e-05`."""
    config: Config


def variants_of(config: Config, swept: Mapping[str, Sequence[Any]]) -> list[Variant]:
    """Returns a run for each combination of the keys' values. Raises UserError where no key has
    several, or one is of no stage that a sweep runs."""
    if not swept:
        raise UserError("a sweep needs a key with several values: --train.learning_rate 1e-5,2e-5")
    for key in swept:
        if key.partition(".")[0] not in _STAGES and not set(_STAGES) & set(bindings()[key].what):
            raise UserError(f"--{key}: a sweep scores, warms up and trains, which do not read it")
    last = [key.rpartition(".")[2] for key in swept]
    names = [
        key if last.count(short) > 1 else short for key, short in zip(swept, last, strict=True)
    ]
    found = []
    for values in product(*swept.values()):
        told = ",".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        name = re.sub(r"[^\w.=,-]+", "_", told)
        changes = dict(zip(swept, values, strict=True))
        folder = str(Path(config.run) / "sweep" / name)
        found.append(Variant(name=name, config=with_overrides(config, changes | {"run": folder})))
    return found


def run_sweep(
    config: Config, variants: Sequence[Variant], *, progress: Progress = SILENT
) -> list[Run]:
    """Scores once, then warms up, trains and evaluates each variant; what is done already is passed
    over, so that the same call goes on. Returns the run that they share and theirs.

    Raises UserError for whatever its stages raise, before anything is written where the input can
    be checked.
    """
    shared = _open_shared(config)
    with shared.at_work():
        if not score_stage.is_scored(shared):
            score_stage.score_run(shared, progress)
        needed = any(_shares(shared, variant, "warmup") for variant in variants)
        if needed and not shared.start.is_dir():
            warmup_stage.warmup(shared, progress=progress)
        label = default_label(shared, "start", config)
        evaluate_model(shared, "start", config, label=label, progress=progress)
        runs = [shared]
        for number, variant in enumerate(variants, 1):
            bar = Named(inner=progress, name=f"{number}/{len(variants)} {variant.name}")
            runs.append(_run_variant(shared, variant, bar))
    return runs


def longer_command(runs: Sequence[Run]) -> str:
    """Returns the command that goes on with the most accurate of a sweep's runs, for as long
    again."""

    def accuracy(run: Run) -> float:
        summary = read_evaluation(run.evaluation)["evaluations"]["trained"]["summary"]
        return float(summary.get("reasoning", summary["ntp"])["all"]["value"])

    best = max(runs, key=accuracy)
    settings = best.config.train
    if settings.time_limit:
        more = f"--train.time_limit {2 * settings.time_limit:g}"
    else:
        more = f"--train.steps {2 * settings.steps}"
    return f"openrpt train --run {best.path} {more}"


def _open_shared(config: Config) -> Run:
    """Opens the run that the variants share. One that has a model of its own keeps the
    configuration that it was trained with: the keys of the sweep are the variants'."""
    path = Path(config.run)
    if is_run(path):
        run = existing_run(path)
        if {"pretrain", "train", "finetune"} & run.standing():
            require_same_run(run, config)
            config = run.config
    return open_run(config, check_input=score_stage.check_input)


def _shares(shared: Run, variant: Variant, stage: StageName) -> bool:
    return first_change(shared.config, variant.config, [stage]) is None


def _run_variant(shared: Run, variant: Variant, progress: Progress) -> Run:
    config = variant.config
    if _shares(shared, variant, "warmup"):
        run = begin_from(shared, config, "train", train_stage.check_input)
    elif _shares(shared, variant, "score"):
        run = begin_from(shared, config, "warmup", warmup_stage.check_input)
    else:
        run = open_run(config, check_input=score_stage.check_input)
        score_stage.score_run(run, progress)
    if _is_trained(run) and _is_evaluated(run):
        progress.say(f"{variant.name}: done before, taken from {run.path}")
        return run
    if not run.start.is_dir():
        warmup_stage.warmup(run, progress=progress)
    if not _is_trained(run):
        train_stage.train(run, progress=progress)
    evaluate_model(run, "trained", config, label="trained", progress=progress)
    return run


def _is_trained(run: Run) -> bool:
    """Returns whether training has taken all of its steps, or ended by its time."""
    record, settings = read_stage(run.path), run.config.train
    if record is None or record.stage != "train" or record.state != "done":
        return False
    steps = sum(row["stage"] == "train" for row in read_metrics(run.metrics))
    by_time = bool(record.seconds) and record.seconds >= settings.time_limit * 60 > 0
    return by_time or steps >= settings.steps


def _is_evaluated(run: Run) -> bool:
    known = read_evaluation(run.evaluation)["evaluations"].get("trained")
    return known is not None and known["model"] == model_path(run, "trained")
