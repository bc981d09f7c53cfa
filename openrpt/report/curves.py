"""The data of the charts: the metrics column by column, with what is derived from them, and
warnings; of one run, or of several to be overlaid."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openrpt.data.positions import DIFFICULTIES
from openrpt.evaluation.statistics import ratio_by_document
from openrpt.report.chunks import finite
from openrpt.report.plans import NTP, REASONING, RL_STAGES
from openrpt.report.stored import Stored
from openrpt.runs.reading import NO_METRICS

_Row = Mapping[str, Any]

_KINDS = ("standard", "candidate", "other", "none")
"""The kinds of a prediction: standard prediction's, another candidate, neither, or absent."""


def find_warnings(rows: Sequence[_Row]) -> list[dict[str, Any]]:
    """Returns [{stage, step, name, text}]: the failure signatures that the rows have recorded."""
    return [
        {
            "stage": row["stage"],
            "step": row["step"],
            "name": warning["name"],
            "text": f"{warning['seen']}. What usually helps: {warning['helps']}",
        }
        for row in rows
        for warning in row.get("warnings", [])
    ]


def with_speed(rows: Sequence[_Row]) -> list[dict[str, Any]]:
    """Adds FLOPs a second by phase, where both are known."""
    found = []
    for row in rows:
        more = {}
        for phase in ("generate", "update"):
            seconds = row.get(f"time/{phase}", 0.0)
            if seconds and f"flops/{phase}" in row:
                more[f"speed/{phase}"] = row[f"flops/{phase}"] / seconds
        found.append({**row, **more})
    return found


def with_errors(rows: Sequence[_Row]) -> list[dict[str, Any]]:
    """Adds standard errors of the development accuracies, overall and by difficulty: binomial, as
    if positions were independent (those of one document are not, so the truth is somewhat
    wider); half the width of Wilson's interval, which is not 0 at 0 and 1."""
    found = []
    for row in rows:
        more = {}
        for slice in ("", *(f"/{name}" for name in DIFFICULTIES)):
            count = row.get(f"development/positions{slice}", 0.0)
            for mode in (REASONING, NTP):
                key = f"{mode}{slice}"
                if count and key in row:
                    variance = row[key] * (1 - row[key]) / count + 1 / (2 * count) ** 2
                    more[f"{key}_error"] = math.sqrt(variance) / (1 + 1 / count)
        found.append({**row, **more})
    return found


def predicted_kinds(stored: Stored) -> dict[int, dict[str, float]]:
    """Returns, by step, the share of rollouts whose prediction is of each kind, and how many are
    right."""
    table = stored.trained
    if not table.num_rows:
        return {}
    prediction, standard = table["prediction"], table["ntp_prediction"]
    empty = pc.is_null(prediction)
    same = pc.fill_null(pc.equal(prediction, standard), False)
    lengths = pc.list_value_length(table["candidates"])
    among = pc.and_(pc.equal(lengths, -1), False)
    for k in range(pc.min(lengths).as_py() or 0):
        candidate = pc.list_element(table["candidates"], k)
        among = pc.or_(among, pc.fill_null(pc.equal(prediction, candidate), False))
    kind = pc.case_when(
        pc.make_struct(empty, same, among),
        _constant(3, table),
        _constant(0, table),
        _constant(1, table),
        _constant(2, table),
    )
    exact = pc.greater(table["reward"], 0)  # of rollouts that were stored before `exact` was
    if "exact" in table.column_names:
        exact = pc.coalesce(table["exact"], exact)
    exact = pc.cast(exact, pa.float64())
    counts = (
        pa.table({"step": table["step"], "kind": kind, "exact": exact})
        .group_by(["step", "kind"])
        .aggregate([("exact", "count"), ("exact", "sum")])
        .to_pylist()
    )
    totals: dict[int, int] = {}
    for row in counts:
        totals[row["step"]] = totals.get(row["step"], 0) + row["exact_count"]
    found: dict[int, dict[str, float]] = {step: {} for step in totals}
    for row in counts:
        name = _KINDS[row["kind"]]
        values = found[row["step"]]
        values[f"predicted/{name}"] = row["exact_count"] / totals[row["step"]]
        values[f"predicted_right/{name}"] = row["exact_sum"] / row["exact_count"]
    for values in found.values():
        values |= {f"predicted/{name}": values.get(f"predicted/{name}", 0.0) for name in _KINDS}
    return found


def reward_errors(stored: Stored) -> dict[int, float]:
    """Returns, by step, the standard error of the mean reward by document: a step's documents are
    others than the last one's, and the reward moves with them. None for a single document."""
    sums = (
        stored.trained.select(["step", "document_id", "reward"])
        .group_by(["step", "document_id"])
        .aggregate([("reward", "sum"), ("reward", "count")])
    )
    steps, totals = sums["step"].to_numpy(), sums["reward_sum"].to_numpy()
    counts = sums["reward_count"].to_numpy().astype(float)
    documents = np.arange(len(steps))  # a row each
    errors = {
        int(step): ratio_by_document(totals[own], counts[own], documents[own]).standard_error
        for step in np.unique(steps)
        for own in [steps == step]
    }
    return {step: error for step, error in errors.items() if math.isfinite(error)}


def with_stored(rows: Sequence[_Row], stored: Stored | None) -> list[dict[str, Any]]:
    """Adds to the rows of their steps what stored rollouts predicted, and the error of their mean
    reward."""
    if stored is None or not stored.trained.num_rows:
        return [{**row} for row in rows]
    found, reward = predicted_kinds(stored), "reward/mean"
    for step, error in reward_errors(stored).items():
        found[step][f"{reward}_error"] = error
    return [
        {**row, **(found.get(row["step"], {}) if row["stage"] in RL_STAGES else {})} for row in rows
    ]


def _constant(value: int, table: pa.Table) -> pa.Array:
    return pa.array([value] * table.num_rows, pa.int8())


_TEXT = {"stage"} | NO_METRICS


def columns(rows: Sequence[_Row]) -> dict[str, dict[str, list[float | None]]]:
    """Returns, by stage and metric, a value a row, None where the row has none."""
    found: dict[str, dict[str, list[float | None]]] = {}
    for stage in dict.fromkeys(row["stage"] for row in rows):
        own = [row for row in rows if row["stage"] == stage]
        keys = dict.fromkeys(key for row in own for key in row if key not in _TEXT)
        found[stage] = {key: finite([_number(row.get(key)) for row in own]) for key in keys}
    return found


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
