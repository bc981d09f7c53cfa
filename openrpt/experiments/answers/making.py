"""How an arm of an experiment is made: from the start or another arm, by one stage."""

import json
from pathlib import Path
from typing import Any

from openrpt.config.binding import first_change
from openrpt.experiments.alike import require_made_as
from openrpt.experiments.answers.experiment import START, Arm
from openrpt.experiments.answers.ground import QUESTIONS, Ground, LabGround, Origin
from openrpt.files import replacing
from openrpt.progress import Progress
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, existing_run, open_run
from openrpt.runs.spent import costs, together
from openrpt.runs.taken_over import link_folder

_MODELS = {"pretrain": "pretrained", "warmup": "warmup", "train": "trained", "finetune": "trained"}
"""The word for the model that a stage leaves."""


def problems_of(ground: Ground) -> Path:
    """Returns the run folder of a seed's held-out problems."""
    return Path(ground.problems("").run)


def require_made(ground: Ground, arm: Arm, origin: Origin) -> None:
    """Checks that an arm that is done was made as it would be now, since all seeds share a
    table."""
    run = existing_run(ground.folder / arm.name)
    require_made_as(run, ground.config(arm, origin), "arm", also=["train.steps"])


def make_arm(ground: Ground, arm: Arm, before: dict[str, Arm], progress: Progress) -> Run:
    """Trains an arm; returns its run."""
    if arm.name == START and not ground.scored_by_start:
        _score(open_run(ground.problems("")), progress)
    run = _trained(ground, arm, origin_of(ground, arm, before), progress)
    if arm.name == START and ground.scored_by_start:
        _score(open_run(ground.problems(model_of(run, arm))), progress)
    return run


def origin_of(ground: Ground, arm: Arm, before: dict[str, Arm]) -> Origin:
    """Returns what an arm goes on from: the models, FLOPs and steps of the arms before it."""
    if arm.name == START:
        return Origin()
    runs = {name: existing_run(ground.folder / name) for name in before}
    flops = sum(cost_of(runs[name])["flops"] for name in arm.match)
    steps = 0
    if flops and arm.stage in ("train", "finetune"):  # as many as the first of these took for it
        first = cost_of(runs[arm.match[0]])
        steps = round(flops / first["flops"] * first["steps"])
    return Origin(
        start=model_of(runs[START], before[START]),
        model=model_of(runs[arm.origin], before[arm.origin]) if arm.origin else "",
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
    if arm.stage == "warmup":
        _write_traces(run, progress)
    if arm.name == START or not _takes_scores(existing_run(problems_of(ground)), run):
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


def _write_traces(run: Run, progress: Progress) -> None:
    """Writes the calculator's thoughts about the training documents, unless they are there or the
    warmup takes the model's own."""
    from openrpt.stages.traces.calculator import calculator_traces

    traces = run.config.warmup.traces
    if traces and not Path(traces).is_file():
        calculator_traces(run.config, Path(traces), progress=progress)


def _score(run: Run, progress: Progress) -> None:
    from openrpt.stages.score.score import score_run

    score_run(run, progress)


def model_of(run: Run, arm: Arm) -> str:
    """Returns the path of the model that an arm's stage leaves."""
    from openrpt.evaluation.models import model_path

    return model_path(run, _MODELS[arm.stage])


def cost_of(run: Run) -> dict[str, float]:
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
