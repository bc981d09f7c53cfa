"""Runs a laboratory: every arm at every seed, one after another; what is done is passed over."""

from openrpt.config.loading import with_overrides
from openrpt.config.sections import Config
from openrpt.experiments.controls import run_control, run_controls
from openrpt.experiments.lab.lab import ARMS, CONTROLS, TEXT_ARMS, Lab, LabSeed
from openrpt.experiments.lab.outcome import Outcome, outcome_of, write_outcome
from openrpt.extras import require
from openrpt.progress import SILENT, Progress
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, open_run


def run_lab(lab: Lab, *, progress: Progress = SILENT) -> Outcome:
    """Runs, or goes on with, the whole comparison, and writes `lab.json` and `lab.svg` after each
    seed; returns what they say.

    Raises UserError for a world that is unknown, and whatever the stages raise.
    """
    if len(lab.seeds) > 1:  # before hours of work
        require("scipy", extra="scaling", what="openrpt lab --seeds")
    world, runs = lab.opened, {}
    outcome = None
    for seed in lab.seeds:
        runs[seed] = _run_seed(lab.at(seed), progress)
        outcome = outcome_of(lab.world, world, runs)
        write_outcome(lab.folder, outcome)
    assert outcome is not None
    return outcome


def _run_seed(lab: LabSeed, progress: Progress) -> Run:
    """Returns the run that holds the seed's evaluations."""
    from openrpt.evaluation.models import model_path
    from openrpt.stages.pretrain.matched import spent_flops
    from openrpt.stages.train import train

    text, start = _pretrained(lab.text(), progress)
    rpt = _scored(lab.rpt(start), progress)
    train(rpt, progress=progress)
    models = {"start": start, "rpt": model_path(rpt, "trained")}
    for name in TEXT_ARMS:
        _, models[name] = _pretrained(lab.text_arm(name, start, rpt), progress)
    both = _pretraining_flops(text) + spent_flops(rpt)
    _, models["deeper"] = _pretrained(lab.deeper(both), progress)
    plain = with_overrides(rpt.config, {"evaluate.modes": ["ntp"], "evaluate.controls": []})
    for name in filter(models.__contains__, ARMS):
        config = plain if name == "deeper" else rpt.config
        _evaluate(rpt, models[name], name, config, progress)
    run_controls(rpt, CONTROLS, rpt.config, progress=progress)
    run_control(rpt, lab.filler(), "filler", rpt.config, progress=progress)
    return rpt


def _pretraining_flops(run: Run) -> float:
    return sum(row["flops/update"] for row in read_metrics(run.metrics))


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


def _evaluate(run: Run, model: str, label: str, config: Config, progress: Progress) -> None:
    from openrpt.evaluation.next_token.stage import evaluate_model

    evaluate_model(run, model, config, label=label, progress=progress)
