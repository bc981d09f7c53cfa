"""The controls of a run: what else could have made its gain, at the same data, positions and
budget.

A control is a run like the one that it is for, with one thing changed (see `experiments.control`),
in `RUN/controls/NAME`. It reads that run's scores, takes as many steps of the same documents and
positions (or the same FLOPs or time), and is evaluated beside the run's own models, so that
`openrpt compare RUN` shows all of them. What is not changed is taken over: a random-reward run
starts from the run's own warmup.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from openrpt.config.binding import settings_of
from openrpt.config.loading import with_overrides
from openrpt.config.sections import Config
from openrpt.console import PlainConsole
from openrpt.errors import UserError
from openrpt.experiments.control import CONTROLS, THOUGHTS, Control, control_named
from openrpt.progress import SILENT, Progress
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, open_run
from openrpt.runs.taken_over import link_folder, take_warmup
from openrpt.sheets import Sheet, print_sheet


def run_controls(
    run: Run,
    names: Sequence[str],
    config: Config,
    *,
    label: str = "",
    progress: Progress = SILENT,
) -> list[str]:
    """Trains and evaluates the named controls of a run; what is done already is passed over.

    `config`: the run's own, or changed in what a control may change (a learning rate of
    `pretrain`, what `evaluate` measures). `label`: another name than the control's own for its
    folder and its line, where there is one name. Returns the labels under which they are recorded.
    Raises UserError for unknown names, for a run that has not come so far, and whatever its stages
    raise.
    """
    if label and len(names) > 1:
        raise UserError("--label names one control; give one, or leave it out")
    found = [(name, control_named(name)) for name in names]  # before anything is run
    return [
        run_control(run, control, label or name, config, progress=progress)
        for name, control in found
    ]


def run_control(
    run: Run, control: Control, label: str, config: Config, *, progress: Progress = SILENT
) -> str:
    """Trains and evaluates one control, under `label`; see `run_controls`."""
    from openrpt.evaluation.models import latest_model, model_path
    from openrpt.evaluation.next_token.stage import evaluate_model

    if control.stage == "evaluate":
        label = "start" if control is CONTROLS["start"] else latest_model(run)
        model = model_path(run, label)
    else:
        model = str(train_control(run, control, label, config, progress=progress))
    measured = _keeping_recorded(run, label, measured_as(control, config))
    evaluate_model(run, model, measured, label=label, progress=progress)
    return label


def measured_as(control: Control, config: Config) -> Config:
    """Returns the configuration under which a control is evaluated."""
    return with_overrides(config, control.prompt | control.evaluate)


def _keeping_recorded(run: Run, label: str, config: Config) -> Config:
    """Returns the configuration with what the label's earlier evaluation measured: the new one
    takes its place, so that is measured again."""
    from openrpt.evaluation.records import read_evaluation

    entry = read_evaluation(run.evaluation)["evaluations"].get(label)
    if entry is None:
        return config
    asked, there = config.evaluate, entry["summary"]
    controls = [name for name in THOUGHTS if name in there or name in asked.controls]
    likelihood = asked.likelihood or "nll_ntp" in there
    return with_overrides(
        config, {"evaluate.controls": controls, "evaluate.likelihood": likelihood}
    )


def train_control(
    run: Run, control: Control, label: str, config: Config, *, progress: Progress = SILENT
) -> Path:
    """Trains a control, in `RUN/controls/LABEL`, and returns the folder of its model."""
    from openrpt.stages.pretrain.pretrain import pretrain
    from openrpt.stages.train import train
    from openrpt.stages.warmup.warmup import warmup

    own = open_run(_control_config(run, control, label, config))
    if control.stage == "pretrain":
        return pretrain(own, progress=progress).checkpoint
    link_folder(run.scored, own.scored)
    if settings_of("warmup", own.config) == settings_of("warmup", run.config):
        take_warmup(run, own)
    elif control.stage == "warmup" or run.start.is_dir():
        warmup(own, progress=progress)
    if control.stage == "warmup":
        return own.start
    return train(own, progress=progress).checkpoint


def _control_config(run: Run, control: Control, label: str, config: Config) -> Config:
    """Returns the run's configuration with the control's change, and the steps that the run has
    taken.

    Raises UserError where the run has not been trained.
    """
    rows = read_metrics(run.metrics)
    steps = {stage: sum(row["stage"] == stage for row in rows) for stage in ("warmup", "train")}
    if not steps["train"] and control.stage != "warmup":
        raise UserError(f"{run.path}: not trained yet, so there is no budget to match; run train")
    budget: dict[str, Any] = {"warmup.time_limit": 0.0, "train.time_limit": 0.0}
    budget |= {f"{stage}.steps": count for stage, count in steps.items() if count}
    folder = {"run": str(run.path / "controls" / label), "pretrain.match": ""}
    if control.stage == "pretrain":
        folder["pretrain.match"] = str(run.path)
    return with_overrides(config, budget | folder | control.changes)


def print_controls(run: Run) -> None:
    """Prints the controls that there are, and how to run them."""
    console = PlainConsole()
    print_sheet(_controls_sheet(run), console)
    for line in (
        f"run them: openrpt control {run.path} NAME…",
        "a larger model's standard prediction (the paper's Figure 4): openrpt evaluate MODEL --run"
        f" {run.path} --evaluate.modes ntp",
        f"all in one table: openrpt compare {run.path}",
    ):
        console.print(Text(line), soft_wrap=True)


def _controls_sheet(run: Run) -> Sheet:
    """Returns a row a control, and whether it is recorded already."""
    from openrpt.evaluation.models import latest_model
    from openrpt.evaluation.records import read_evaluation

    recorded = read_evaluation(run.evaluation)["evaluations"]
    rows = []
    for name, control in CONTROLS.items():
        label = latest_model(run) if name == "thought" else name
        wanted = control.evaluate.get("evaluate.controls", [])
        summary = recorded.get(label, {"summary": {}})["summary"]
        there = bool(summary) and all(measure in summary for measure in wanted)
        rows.append([name, control.question, "yes" if there else ""])
    return Sheet(
        title=f"controls of {run.path}",
        headings=["control", "what it answers", "recorded"],
        rows=rows,
        labels=3,
    )
