"""`evaluation.json` of a run: every model evaluated there, and paired differences between them.

The outcome of each position lies beside it (`evaluation/LABEL.parquet`), so that any two models
of a run are compared on the same positions; and what the model thought and predicted there
(`evaluation/rollouts/LABEL.parquet`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openrpt.errors import UserError
from openrpt.evaluation.results import EvaluationResult, paired_differences
from openrpt.evaluation.statistics import Difference
from openrpt.files import read_json, write_json
from openrpt.rollouts import evaluated_path, write_rollout_table
from openrpt.run import Run

FORMAT = 1

Column = tuple[str, str]
"""(label, column of the result): ("trained", "reasoning")."""


def read_evaluation(path: Path) -> dict[str, Any]:
    """Raises UserError for a damaged file; an absent one is empty."""
    if not path.is_file():
        return {"format": FORMAT, "evaluations": {}, "differences": []}
    return read_json(path, advice="delete it and evaluate again")


def result_path(run: Run, label: str) -> Path:
    return run.path / "evaluation" / f"{label}.parquet"


def record(
    run: Run,
    label: str,
    result: EvaluationResult,
    *,
    model: str,
    note: str = "",
    split: str,
    template: str = "",
    cost: Mapping[str, float | None] | None = None,
) -> None:
    """Adds (or replaces) a model's results under a label. Atomic.

    `cost`: of the training that made the model (`stage.training_cost`); None where not known.
    """
    result.save(result_path(run, label))
    if result.rollouts is not None:
        write_rollout_table(evaluated_path(run.path, label), result.rollouts)
    else:  # those of an earlier evaluation of that label would be another's
        evaluated_path(run.path, label).unlink(missing_ok=True)
    document = read_evaluation(run.evaluation)
    document["evaluations"][label] = {
        "model": model,
        "note": note,
        "split": split,
        "template": template,
        "positions": result.num_positions,
        "evaluation_cost": result.cost,
        "summary": result.summary(),
        "calibration": result.calibration(),
        "cost": cost,
    }
    write_json(run.evaluation, document)


def record_differences(run: Run, pairs: Sequence[tuple[Column, Column]]) -> list[dict[str, Any]]:
    """Paired differences a − b by difficulty, with intervals; writes and returns them."""
    document = read_evaluation(run.evaluation)
    document["differences"] = [
        {
            "a": {"label": a[0], "mode": a[1]},
            "b": {"label": b[0], "mode": b[1]},
            "difference": {k: d.as_dict() for k, d in differences(run, a, b).items()},
        }
        for a, b in pairs
    ]
    write_json(run.evaluation, document)
    return document["differences"]


def differences(run: Run, a: Column, b: Column) -> dict[str, Difference]:
    """By slice, on the positions that both evaluated."""
    left = EvaluationResult.load(result_path(run, a[0]))
    right = EvaluationResult.load(result_path(run, b[0]))
    same = left.num_positions == right.num_positions and all(
        (left.columns[name] == right.columns[name]).all() for name in ("document_id", "position")
    )
    if not same:
        raise UserError(
            f"{run.path}: '{a[0]}' and '{b[0]}' were evaluated at different positions; evaluate"
            " both again with the same settings"
        )
    return paired_differences(left, a[1], right, b[1])


def read_models(path: Path) -> dict[str, Any]:
    """What a record of end tasks (`zero_shot.json` and its like) holds by model; empty where there
    is none. Raises UserError for a damaged file."""
    if not path.is_file():
        return {}
    try:
        return read_json(path, advice="delete it and measure again")["models"]
    except (KeyError, TypeError):
        raise UserError(f"{path}: holds no models; delete it and measure again") from None


def add_model_result(path: Path, label: str, name: str, result: Any) -> dict[str, Any]:
    """Adds (or replaces) a model's result of that name; returns all of the model's. Atomic."""
    models = read_models(path)
    models.setdefault(label, {})[name] = result
    write_json(path, {"format": FORMAT, "models": models})
    return models[label]
