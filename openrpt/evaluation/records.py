"""`evaluation.json` of a run: every model evaluated there, and paired differences between them.

The outcome of each position lies beside it (`evaluation/LABEL.parquet`), so that any two models
of a run are compared on the same positions; and what the model thought and predicted there
(`evaluation/rollouts/LABEL.parquet`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from openrpt.errors import UserError
from openrpt.evaluation.next_token.results import SIDES, EvaluationResult, paired_differences
from openrpt.json_files import checked_as, read_json, write_sealed
from openrpt.runs.rollouts import evaluated_path, write_rollout_table
from openrpt.runs.run import Run

_FORMAT = 1


class Evaluation(BaseModel):
    """The part of an entry that every reader reads."""

    model: str
    note: str
    split: str
    where: str = ""
    template: str = ""
    supervision: str = ""
    summary: dict[str, dict[str, Any]]
    thought_value: dict[str, dict[str, Any]] = {}
    evaluation_cost: dict[str, Any] | None = None
    cost: dict[str, Any] | None = None


class Evaluations(BaseModel):
    """The part of the file that every reader reads."""

    evaluations: dict[str, Evaluation]
    differences: list[dict[str, Any]]


_Column = tuple[str, str]
"""A column by its place: (label, column of the result): ("trained", "reasoning")."""
_AFTER: _Column = ("trained", "reasoning")
COMPARED: tuple[_Column, ...] = (("warmup", "reasoning"), ("trained", "ntp"), ("start", "ntp"))
"""The results that reasoning after RPT is compared with before all else."""


def read_evaluation(path: Path) -> dict[str, Any]:
    """Reads a run's evaluation. Raises UserError for a file that is damaged or of another version;
    an absent one is empty."""
    if not path.is_file():
        return {"format": _FORMAT, "evaluations": {}, "differences": []}
    advice = "delete it and evaluate again"
    values = read_json(path, advice=advice)
    if values.get("format") != _FORMAT:
        raise UserError(
            f"{path}: format {values.get('format')!r}, not {_FORMAT}: written by another version of"
            " OpenRPT; evaluate again, or use that version"
        )
    checked_as(Evaluations, values, path, advice=advice)
    return values


def result_path(run: Run, label: str) -> Path:
    """Returns the file of an evaluation's columns."""
    return run.path / "evaluation" / f"{label}.parquet"


def record(
    run: Run,
    label: str,
    result: EvaluationResult,
    *,
    model: str,
    note: str = "",
    split: str,
    where: str = "",
    template: str = "",
    supervision: str = "",
    cost: Mapping[str, float | None] | None = None,
) -> None:
    """Adds (or replaces) a model's results under a label, and all paired differences anew. Atomic.

    `supervision`: what its warmup saw beside the model's own predictions
    (`models.supervision_of`). `cost`: what training the model took (`models.training_cost`); None
    where that is not known.
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
        "where": where,
        "template": template,
        "supervision": supervision,
        "positions": result.num_positions,
        "evaluation_cost": result.cost,
        "summary": result.summary(),
        "thought_value": result.thought_value(),
        "calibration": result.calibration(),
        "cost": cost,
    }
    document["differences"] = _trained_differences(run, document["evaluations"])
    write_sealed(run.evaluation, document)


def record_perplexity(run: Run, label: str, text: str, entry: Mapping[str, Any]) -> None:
    """Adds (or replaces) a model's perplexity of a text, by both names. Atomic."""
    document = read_evaluation(run.evaluation)
    document.setdefault("perplexity", {}).setdefault(label, {})[text] = entry
    write_sealed(run.evaluation, document)


def _trained_differences(run: Run, evaluations: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns reasoning after RPT − what else was evaluated at its positions: paired, by slice,
    with intervals, by prefix match and by whole span; COMPARED first, then every other label."""
    if "reasoning" not in evaluations.get(_AFTER[0], {"summary": {}})["summary"]:
        return []
    after = EvaluationResult.load(result_path(run, _AFTER[0]))
    known = {_AFTER[0], *(label for label, _ in COMPARED)}
    others = [
        (label, "reasoning" if "reasoning" in entry["summary"] else "ntp")
        for label, entry in evaluations.items()
        if label not in known
    ]
    found = []
    for label, mode in [*COMPARED, *others]:
        if mode not in evaluations.get(label, {"summary": {}})["summary"]:
            continue
        other = EvaluationResult.load(result_path(run, label))
        if not _at_same_positions(after, other):
            continue
        span = "span" if mode == "reasoning" else SIDES["span"]
        found.append(
            {
                "a": {"label": _AFTER[0], "mode": _AFTER[1]},
                "b": {"label": label, "mode": mode},
                "difference": _by_slice(after, _AFTER[1], other, mode),
                "by_span": _by_slice(after, "span", other, span),
            }
        )
    return found


def _by_slice(
    after: EvaluationResult, column: str, other: EvaluationResult, other_column: str
) -> dict[str, Any]:
    """Returns the differences of two columns by slice; empty where one was not graded so."""
    if column not in after.columns or other_column not in other.columns:
        return {}
    differences = paired_differences(after, column, other, other_column)
    return {part: difference.as_dict() for part, difference in differences.items()}


def _at_same_positions(a: EvaluationResult, b: EvaluationResult) -> bool:
    """Returns whether the rows of both are the same positions of the same tokens."""
    return a.num_positions == b.num_positions and all(
        (a.columns[name] == b.columns[name]).all() for name in ("document_id", "position")
    )


def read_models(path: Path) -> dict[str, Any]:
    """Reads what a record of end tasks (`zero_shot.json` and its like) holds by model; empty where
    there is none. Raises UserError for a damaged file."""
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
    write_sealed(path, {"format": _FORMAT, "models": models})
    return models[label]
