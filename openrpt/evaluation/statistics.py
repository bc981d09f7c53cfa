"""Means and differences whose errors are by document: positions of one document are not
independent, so documents are the unit that is resampled. NumPy only."""

from dataclasses import asdict, dataclass

import numpy as np

RESAMPLES = 4000


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean over positions; `standard_error` by document (cluster-robust)."""

    value: float
    standard_error: float
    n: int
    documents: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A paired difference of means; the interval holds 95 % of resamples of documents."""

    value: float
    low: float
    high: float
    standard_error: float
    n: int
    documents: int

    @property
    def distinguishable(self) -> bool:
        """The interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    def as_dict(self) -> dict[str, float | int | bool]:
        return asdict(self) | {"distinguishable": self.distinguishable}


def mean_by_document(values: np.ndarray, documents: np.ndarray) -> Estimate:
    """values [n] and the document of each [n] → the mean over positions.

    The error is that of a ratio of document sums: sqrt(Σ_d (Σ_i (x_i − mean))² · D / (D − 1)) / n.
    Not a number where there is a single document, and everything is where there is none.
    """
    n = len(values)
    if n == 0:
        return Estimate(value=float("nan"), standard_error=float("nan"), n=0, documents=0)
    mean = float(values.mean())
    sums = _sums(values - mean, documents)
    count = len(sums)
    error = float("nan")
    if count > 1:
        error = float(np.sqrt(np.square(sums).sum() * count / (count - 1)) / n)
    return Estimate(value=mean, standard_error=error, n=n, documents=count)


def paired_difference(
    a: np.ndarray, b: np.ndarray, documents: np.ndarray, *, seed: int = 0
) -> Difference:
    """mean(a) − mean(b) on the same positions, with a bootstrap over documents."""
    estimate = mean_by_document(a.astype(float) - b.astype(float), documents)
    if estimate.documents < 2:  # nothing to resample: no interval, nothing is distinguishable
        nan = float("nan")
        return Difference(
            value=estimate.value,
            low=nan,
            high=nan,
            standard_error=nan,
            n=estimate.n,
            documents=estimate.documents,
        )
    sums = _sums(a.astype(float) - b.astype(float), documents)
    sizes = _sums(np.ones(len(documents)), documents)
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[draws].sum(1) / sizes[draws].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(
        value=estimate.value,
        low=float(low),
        high=float(high),
        standard_error=estimate.standard_error,
        n=estimate.n,
        documents=estimate.documents,
    )


def _sums(values: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Sums by document."""
    _, index = np.unique(documents, return_inverse=True)
    return np.bincount(index, weights=values)
