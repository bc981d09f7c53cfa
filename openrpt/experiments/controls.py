"""The controls of a run: what else could have made its gain, at the same data, positions and
budget.

A control is a run like the one that it is for, with one thing changed, in `RUN/controls/NAME`. It
reads that run's scores, takes as many steps of the same documents and positions (or the same
FLOPs or time), and is evaluated beside the run's own models, so that `openrpt compare RUN` shows
all of them. What is not changed is taken over: a random-reward run starts from the run's own
warmup.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import click

from openrpt.config.binding import settings_of
from openrpt.config.loading import load_config, with_overrides
from openrpt.config.sections import Config
from openrpt.errors import UserError, nearest
from openrpt.files import replacing_folder
from openrpt.progress import SILENT, Progress
from openrpt.runs.metrics import append_metrics, read_metrics
from openrpt.runs.run import Run, open_run

Stage = Literal["evaluate", "warmup", "train", "pretrain"]
THOUGHTS = ["emptied", "cut", "swapped", "ntp_voting"]


@dataclass(frozen=True, kw_only=True)
class Control:
    """One thing that is changed, and which of the stages it takes."""

    question: str
    """What it answers."""
    stage: Stage
    """The last one that it runs before it is evaluated."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Keys of the run's configuration that it changes, dotted."""
    evaluate: dict[str, Any] = field(default_factory=dict)
    """Keys that only its evaluation changes."""

    @property
    def prompt(self) -> dict[str, Any]:
        """The changes that its evaluation shares."""
        return {key: value for key, value in self.changes.items() if key.startswith("prompt.")}


NTP_ONLY = {"evaluate.modes": ["ntp"]}
CONTROLS = {
    "start": Control(question="was it there before, plain or under the prompt?", stage="evaluate"),
    "thought": Control(
        question="is it the thought? emptied, cut, swapped with another's; NTP voting",
        stage="evaluate",
        evaluate={"evaluate.controls": THOUGHTS},
    ),
    "warmup-self": Control(
        question="is it the form alone, learned from the model's own predictions?",
        stage="warmup",
        changes={"warmup.target": "self", "warmup.ntp_weight": 0.0},
    ),
    "warmup-truth": Control(
        question="is it what a supervised warmup learns?",
        stage="warmup",
        changes={"warmup.target": "truth"},
    ),
    "random-reward": Control(
        question="is it the reward? a coin in its place",
        stage="train",
        changes={"reward.terms": {"random": 1.0}},
    ),
    "no-thought": Control(
        question="is it the thought? the same reinforcement, predicting at once",
        stage="train",
        changes={"prompt.candidates": 0, "prompt.think_budget": 0},
    ),
    "ntp-documents": Control(
        question="is it the text? plain next-token training on the same windows",
        stage="pretrain",
        changes={"pretrain.match_by": "documents"},
        evaluate=NTP_ONLY,
    ),
    "ntp-flops": Control(
        question="is it worth its FLOPs? plain next-token training for as many",
        stage="pretrain",
        changes={"pretrain.match_by": "flops"},
        evaluate=NTP_ONLY,
    ),
    "ntp-time": Control(
        question="is it worth its time? plain next-token training for as long",
        stage="pretrain",
        changes={"pretrain.match_by": "time"},
        evaluate=NTP_ONLY,
    ),
}
"""In the order in which they are run and shown."""


def control_named(name: str) -> Control:
    """Raises UserError, which names the nearest."""
    if name not in CONTROLS:
        hint = nearest(name, CONTROLS, otherwise=f"there are: {', '.join(CONTROLS)}")
        raise UserError(f"no control '{name}'{hint}")
    return CONTROLS[name]


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
    """One control, trained and evaluated under `label`; see `run_controls`."""
    from openrpt.evaluation.models import latest_model, model_path
    from openrpt.evaluation.next_token.stage import evaluate_model

    if control.stage == "evaluate":
        label = "start" if control is CONTROLS["start"] else latest_model(run)
        model = model_path(run, label)
    else:
        model = str(train_control(run, control, label, config, progress=progress))
    measured = with_overrides(config, control.prompt | control.evaluate)
    measured = keeping_recorded(run, label, measured)
    evaluate_model(run, model, measured, label=label, progress=progress)
    return label


def keeping_recorded(run: Run, label: str, config: Config) -> Config:
    """An evaluation takes the place of the one under its label, so what that one measured is
    measured again."""
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
    """The folder of the control's model."""
    from openrpt.stages.pretrain.pretrain import pretrain
    from openrpt.stages.train import train
    from openrpt.stages.warmup import warmup

    own = open_run(control_config(run, control, label, config))
    if control.stage == "pretrain":
        return pretrain(own, progress=progress).checkpoint
    take_over(run.scored, own.scored)
    if settings_of("warmup", own.config) == settings_of("warmup", run.config):
        take_over_warmup(run, own)
    elif control.stage == "warmup" or run.start.is_dir():
        warmup(own, progress=progress)
    if control.stage == "warmup":
        return own.start
    return train(own, progress=progress).checkpoint


def control_config(run: Run, control: Control, label: str, config: Config) -> Config:
    """The run's configuration with the control's change, and the steps that the run has taken.

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


def take_over(source: Path, target: Path) -> None:
    """The folder's files under another path; no second copy where the disk can link them."""
    if not source.is_dir() or target.is_dir():
        return
    with replacing_folder(target) as partial:
        shutil.copytree(source, partial, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copy2(source, target)


def take_over_warmup(run: Run, own: Run) -> None:
    """The run's warmed-up policy, and what it cost."""
    if not run.start.is_dir() or own.start.is_dir():
        return
    own.metrics.unlink(missing_ok=True)  # of a start that was broken off here
    for row in read_metrics(run.metrics):
        if row["stage"] == "warmup":
            append_metrics(own.metrics, row)
    take_over(run.start, own.start)


def print_controls(run: Run) -> None:
    """What there is to run, and what is recorded already."""
    from rich.table import Table

    from openrpt.console import PlainConsole
    from openrpt.evaluation.models import latest_model
    from openrpt.evaluation.records import read_evaluation

    recorded = read_evaluation(run.evaluation)["evaluations"]
    table = Table(title=f"controls of {run.path}", title_justify="left")
    for heading in ("control", "what it answers", "recorded"):
        table.add_column(heading, overflow="fold")
    for name, control in CONTROLS.items():
        label = latest_model(run) if name == "thought" else name
        wanted = control.evaluate.get("evaluate.controls", [])
        summary = recorded.get(label, {"summary": {}})["summary"]
        there = bool(summary) and all(measure in summary for measure in wanted)
        table.add_row(name, control.question, "yes" if there else "")
    console = PlainConsole()
    console.print(table)
    console.print(f"run them: openrpt control {run.path} NAME…", soft_wrap=True, highlight=False)
    console.print(
        "a larger model's standard prediction (the paper's Figure 4): openrpt evaluate MODEL --run"
        f" {run.path} --evaluate.modes ntp",
        soft_wrap=True,
        highlight=False,
    )
    console.print(f"all in one table: openrpt compare {run.path}", soft_wrap=True, highlight=False)


ORDER = [
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
            "checkpoints.every": 4,
            "checkpoints.kept": 1,
            "checkpoints.minutes": 4.0,
            "pretrain.eval_every": 0,
        }
        | more
    )


def run_experiment(run: Run, progress: Progress) -> None:
    """Score, warm up, train; then the controls in their order."""
    from openrpt.config.loading import with_overrides
    from openrpt.data.scored import load_scored
    from openrpt.data.skipped import skipped_lines
    from openrpt.stages.score import score_corpus
    from openrpt.stages.train import train
    from openrpt.stages.warmup import warmup

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
    from openrpt.evaluation.next_token.compare import compare, find_evaluated
    from openrpt.evaluation.next_token.tables import write_comparison
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
    from openrpt.progress import live_progress
    from openrpt.terminal import say

    more = {"model.path": model, "model.threads": threads}
    more |= {"train.steps": steps, "evaluate.positions": positions}
    run = open_run(experiment_config(corpus, folder, more))
    with live_progress() as progress:
        run_experiment(run, progress)
    write_results(run, out or run.path / "results", say)


if __name__ == "__main__":
    main()
