"""What a stage has found, in one line, and the command that usually comes next."""

from openrpt.config.sections import STAGES, StageName
from openrpt.data.scored import load_scored
from openrpt.evaluation.models import latest_model, model_path
from openrpt.evaluation.records import read_evaluation
from openrpt.runs.metrics import numbers, read_metrics
from openrpt.runs.run import Run

_SHOWN = {
    "reward/mean": "reward",
    "loss/imitation": "imitation loss",
    "loss/ntp": "NTP loss",
    "development/reasoning_accuracy": "development accuracy",
}
"""Metrics in short, where their own names are long."""


def outcome(run: Run, stage: StageName) -> str:
    """Returns how a stage's metrics went from their first value to their last:
    `reward 0.312 → 0.498`; empty where it took no step."""
    rows = [numbers(row) for row in read_metrics(run.metrics) if row["stage"] == stage]
    parts = []
    for key in STAGES[stage].shown:
        values = [row[key] for row in rows if key in row]
        if values:
            parts.append(f"{_SHOWN.get(key, key)} {values[0]:.3f} → {values[-1]:.3f}")
    return ", ".join(parts)


def next_command(run: Run) -> str:
    """Returns the command that usually comes next, as it is typed."""
    standing, latest = run.standing(), latest_model(run)
    if "finetune" in standing:
        return f"openrpt report {run.path}"
    if latest == "start" and "score" in standing:
        stage = "warmup" if run.config.score.has_scores else "pretrain"
        return f"openrpt {stage} --run {run.path}"
    if latest == "warmup":
        return f"openrpt train --run {run.path}"
    entries = read_evaluation(run.evaluation)["evaluations"].values()
    evaluated = {entry["model"] for entry in entries}  # under whatever label
    asked = [model for model in ("start", latest) if model_path(run, model) not in evaluated]
    if latest in asked and _has_evaluated_split(run):
        return f"openrpt evaluate {' '.join(asked)} --run {run.path}"
    return f"openrpt report {run.path}"


def _has_evaluated_split(run: Run) -> bool:
    """Returns whether there is a document to evaluate on; a run without scores of its own has
    those of another."""
    if "score" not in run.standing():
        return True
    return bool(len(load_scored(run.scored).numbers(run.config.evaluate.split)))
