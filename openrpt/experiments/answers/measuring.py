"""What an arm of an experiment measured, on the held-out problems of its seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrpt.config.loading import with_overrides
from openrpt.experiments.answers.experiment import Arm
from openrpt.experiments.answers.ground import Ground
from openrpt.experiments.answers.making import cost_of, model_of, problems_of
from openrpt.experiments.answers.outcome import (
    OF_FIRST_ROLLOUTS,
    Measured,
    first_rollouts,
    last_of_metrics,
    measured_values,
)
from openrpt.experiments.lab.sampled import sampled_at
from openrpt.progress import Progress
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, existing_run


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a job found."""

    measured: Measured
    evaluated: Any = None
    """The evaluation that is to be recorded; None where it is already."""


def measure_arm(
    ground: Ground, run: Run, arm: Arm, seed: int, measures: Sequence[str], progress: Progress
) -> Done:
    """Evaluates an arm on the seed's problems. `measures`: the experiment's; what reinforcement's
    first rollouts were is counted where one of them says so."""
    from openrpt.evaluation.next_token.stage import measure_model
    from openrpt.evaluation.records import read_evaluation

    problems = existing_run(problems_of(ground))
    config = with_overrides(problems.config, dict(arm.asked))
    found = measure_model(problems, model_of(run, arm), config, label=arm.name, progress=progress)
    if found is not None:
        summary = found.result.summary()
    else:
        summary = read_evaluation(problems.evaluation)["evaluations"][arm.name]["summary"]
    world = ground.world
    values = measured_values(summary, None if world is None else world.shown)
    if world is not None and arm.stage == "train" and set(OF_FIRST_ROLLOUTS) & set(measures):
        values |= first_rollouts(sampled_at(seed, run, world))
    return Done(measured=_measured(run, arm, seed, values), evaluated=found)


def asked(run: Run, arm: Arm, seed: int) -> Measured:
    """Returns what a fine-tuning recorded of its held-out questions."""
    from openrpt.evaluation.questions.finetuned import finished_record

    record = finished_record(run.path)
    values = {
        "accuracy": record["after"]["summary"]["accuracy"]["all"]["value"],
        "before": record["before"]["summary"]["accuracy"]["all"]["value"],
    }
    return _measured(run, arm, seed, values)


def _measured(run: Run, arm: Arm, seed: int, values: dict[str, float]) -> Measured:
    from openrpt.evaluation.scaling.files import parameters_in

    rows = [row for row in read_metrics(run.metrics) if row["stage"] == arm.stage]
    cost = cost_of(run)
    return Measured(
        arm=arm.name,
        seed=seed,
        values=values | last_of_metrics(rows),
        parameters=parameters_in(Path(model_of(run, arm))),
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
