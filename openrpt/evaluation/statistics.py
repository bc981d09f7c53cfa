"""Means and differences whose errors are by document: positions of one document are not
independent, so documents are the unit that is resampled. NumPy only."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from openrpt.evaluation.resamples import RESAMPLES, drawn_documents, means_of_draws
from openrpt.sheets import alike_bounds

_BINS = 10
_ALIKE = 1e-12
"""The greatest width of what is one number but for rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean over positions; `standard_error` by document (cluster-robust)."""

    value: float
    standard_error: float
    n: int
    documents: int

    def as_dict(self) -> dict[str, float | int]:
        """Returns the estimate as JSON holds it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A paired difference of means; the interval holds 95 % of resamples of documents (where all
    are alike: `alike_bounds`)."""

    value: float
    low: float
    high: float
    p: float
    """The two-sided p-value: the level at which the interval would just reach 0."""
    standard_error: float
    n: int
    documents: int

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    def as_dict(self) -> dict[str, float | int | bool]:
        """Returns the difference as JSON holds it, and whether it is distinguishable from 0."""
        return asdict(self) | {"distinguishable": self.distinguishable}


def error_bar(estimate: Mapping[str, Any]) -> dict[str, float]:
    """Returns an accuracy in percent with one standard error around it, as figures draw them: no
    bar where the error is not a number. `estimate`: `Estimate.as_dict`, or a row with its keys."""
    value, error = estimate["value"], estimate["standard_error"]
    error = 0.0 if np.isnan(error) else error
    return {"accuracy": 100 * value, "low": 100 * (value - error), "high": 100 * (value + error)}


def mean_by_document(values: np.ndarray, documents: np.ndarray) -> Estimate:
    """Returns, of values [n] and the document of each [n], the mean over positions, as
    `ratio_by_document` with sizes of 1."""
    return ratio_by_document(values, np.ones(len(values)), documents)


def estimates_by(
    values: np.ndarray, marks: np.ndarray, documents: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Returns the means of the values [n] that bear the same mark [n], by mark; "" is none."""
    parts = {str(mark): marks == mark for mark in np.unique(marks) if mark}
    return {
        part: mean_by_document(values[inside], documents[inside]).as_dict()
        for part, inside in parts.items()
    }


def mean_of_means(estimates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the mean of independent estimates, each counting the same; n is that of all
    together."""
    errors = np.array([estimate["standard_error"] for estimate in estimates], dtype=float)
    return {
        "value": float(np.mean([estimate["value"] for estimate in estimates])),
        "standard_error": float(np.sqrt(np.square(errors).sum()) / len(errors)),
        "n": sum(estimate["n"] for estimate in estimates),
    }


def ratio_by_document(values: np.ndarray, sizes: np.ndarray, documents: np.ndarray) -> Estimate:
    """Returns the ratio Σ values / Σ sizes, each [n], and the document of each [n].

    The error is that of a ratio of document sums, with R the ratio and s the sizes:
    sqrt(Σ_d (Σ_i (x_i − R·s_i))² · D / (D − 1)) / Σ s. Not a number where there is a single
    document, and everything is where there is none.
    """
    n = len(values)
    if n == 0:
        return Estimate(value=float("nan"), standard_error=float("nan"), n=0, documents=0)
    total = float(sizes.sum())
    ratio = float(values.sum()) / total
    sums = _sums(values - ratio * sizes, documents)
    count = len(sums)
    error = float("nan")
    if count > 1:
        error = float(np.sqrt(np.square(sums).sum() * count / (count - 1)) / total)
    return Estimate(value=ratio, standard_error=error, n=n, documents=count)


def mean_of_slices(
    values: np.ndarray, masks: Sequence[np.ndarray], documents: np.ndarray
) -> Estimate:
    """Returns the plain mean of the means over slices, which may overlap: values [n], masks [n],
    documents [n]; slices without a position are left out.

    Its error is by document as well: sqrt(Σ_d (Σ_i u_i)² · D / (D − 1)), with
    u_i = Σ_s [i in s] (x_i − m_s) / (S n_s) over the S slices s of n_s positions and mean m_s.
    """
    masks = [inside for inside in masks if inside.any()]
    if not masks:
        return Estimate(value=float("nan"), standard_error=float("nan"), n=0, documents=0)
    influence = np.zeros(len(values))
    for inside in masks:
        centred = values[inside] - values[inside].mean()
        influence[inside] += centred / (len(masks) * inside.sum())
    anywhere = np.any(masks, axis=0)
    sums = _sums(influence[anywhere], documents[anywhere])
    count, error = len(sums), float("nan")
    if count > 1:
        error = float(np.sqrt(np.square(sums).sum() * count / (count - 1)))
    return Estimate(
        value=float(np.mean([values[inside].mean() for inside in masks])),
        standard_error=error,
        n=int(anywhere.sum()),
        documents=count,
    )


def paired_difference(a: np.ndarray, b: np.ndarray, documents: np.ndarray) -> Difference:
    """Returns mean(a) − mean(b) on the same positions, with a bootstrap over documents.

    Positions where either is not a number are left out. With m* the resampled means,
    p = 2 · min(#(m* ≤ 0) + 1, #(m* ≥ 0) + 1) / (RESAMPLES + 1), at most 1 (Davison and Hinkley
    1997, section 4.4, for the added 1).

    Where all resamples are alike they say nothing of the error. Of shares the interval is then
    `alike_bounds`, which reaches 0 at p = 2 · (1 + |difference|)^−D: the sign test's over documents
    where the difference is 1. Of values that are no shares there is none.
    """
    a, b = a.astype(float), b.astype(float)
    both = ~(np.isnan(a) | np.isnan(b))
    a, b, documents = a[both], b[both], documents[both]
    difference = a - b
    estimate = mean_by_document(difference, documents)
    low = high = p = error = float("nan")
    if estimate.documents > 1:  # else nothing to resample: no interval, nothing distinguishable
        _, index = np.unique(documents, return_inverse=True)
        means = means_of_draws(difference, index, drawn_documents(estimate.documents))
        low, high = map(float, np.quantile(means, [0.025, 0.975]))
        rarer = min(int((means <= 0).sum()), int((means >= 0).sum()))
        p = min(1.0, 2 * (rarer + 1) / (RESAMPLES + 1))
        error = estimate.standard_error
        if np.ptp(means) < _ALIKE:
            shares = min(a.min(), b.min()) >= 0 and max(a.max(), b.max()) <= 1
            low, high = (
                alike_bounds(estimate.value, estimate.documents) if shares else (np.nan,) * 2
            )
            p = min(1.0, 2 * (1 + abs(estimate.value)) ** -estimate.documents) if shares else np.nan
    return Difference(
        value=estimate.value,
        low=low,
        high=high,
        p=p,
        standard_error=error,
        n=estimate.n,
        documents=estimate.documents,
    )


def calibration(confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Returns how far a predicted rate can be believed: both [n], confidence in (0, 1].

    The expected calibration error is Σ_b n_b / n · |accuracy_b − confidence_b| over _BINS bins
    (low, high] of equal width (arXiv 1706.04599, section 2). Positions that are not a number are
    left out; empty bins are not listed.
    """
    known = ~(np.isnan(confidence) | np.isnan(right))
    confidence, right = confidence[known], right[known]
    # 7 of 10 samples are 0.7, which is not exactly 7 bins of a tenth.
    index = np.clip(np.ceil(confidence * _BINS - 1e-9).astype(int) - 1, 0, _BINS - 1)
    bins = [
        {
            "low": b / _BINS,
            "high": (b + 1) / _BINS,
            "n": int((index == b).sum()),
            "confidence": float(confidence[index == b].mean()),
            "accuracy": float(right[index == b].mean()),
        }
        for b in np.unique(index).tolist()
    ]
    gaps = [one["n"] * abs(one["accuracy"] - one["confidence"]) for one in bins]
    error = sum(gaps) / len(right) if len(right) else float("nan")
    return {"expected_calibration_error": error, "n": len(right), "bins": bins}


def _sums(values: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Returns the sums by document."""
    _, index = np.unique(documents, return_inverse=True)
    return np.bincount(index, weights=values)
