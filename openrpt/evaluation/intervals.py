"""Intervals of 95 % whose bounds are percentiles over documents drawn anew. NumPy only."""

from dataclasses import asdict, dataclass

import numpy as np

from openrpt.evaluation.resamples import drawn_documents, means_of_draws


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean, or a difference of two on different positions; `low` and `high` hold 95 % of
    resamples of documents (not a number where there are too few to resample)."""

    value: float
    low: float
    high: float
    n: int
    documents: int

    def as_dict(self) -> dict[str, float | int]:
        """Returns the interval as JSON holds it."""
        return asdict(self)


def mean_interval(values: np.ndarray, documents: np.ndarray) -> Interval:
    """Returns the mean of values [n], with the document of each [n]; not a number where there are
    none."""
    names, index = np.unique(documents, return_inverse=True)
    low = high = float("nan")
    if len(names) > 1:
        means = means_of_draws(values, index, drawn_documents(len(names)))
        low, high = np.quantile(means, [0.025, 0.975]).tolist()
    value = float(values.mean()) if len(values) else float("nan")
    return Interval(value=value, low=low, high=high, n=len(values), documents=len(names))


def difference_of_means(
    a: np.ndarray,
    a_documents: np.ndarray,
    b: np.ndarray,
    b_documents: np.ndarray,
) -> Interval:
    """Returns mean(a) − mean(b) on different positions; a document that both have is drawn for
    both. `n` and `documents` count a and b together."""
    names, index = np.unique(np.concatenate([a_documents, b_documents]), return_inverse=True)
    count, cut = len(names), len(a)
    low = high = float("nan")
    if min(len(np.unique(a_documents)), len(np.unique(b_documents))) > 1:
        draws = drawn_documents(count)
        of_a, of_b = means_of_draws(a, index[:cut], draws), means_of_draws(b, index[cut:], draws)
        differences = of_a - of_b
        low, high = np.nanquantile(differences, [0.025, 0.975]).tolist()
    value = float(a.mean() - b.mean()) if len(a) and len(b) else float("nan")
    return Interval(value=value, low=low, high=high, n=len(a) + len(b), documents=count)


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampled:
    """A statistic of documents that need be no mean, and what it is on resamples of them: so that
    two of them on the same resamples can be compared in pairs."""

    value: float
    draws: np.ndarray
    """The values [RESAMPLES] on bootstrap resamples; [D] with one document left out, where
    `jackknife`; empty where there are none, and so no interval."""
    documents: int
    jackknife: bool = False

    def minus(self, other: "Resampled") -> "Resampled":
        """Returns the difference on the same resamples of the same documents."""
        return Resampled(
            value=self.value - other.value,
            draws=self.draws - other.draws,
            documents=self.documents,
            jackknife=self.jackknife,
        )

    def interval(self) -> Interval:
        """Returns the 95 % interval: the basic bootstrap interval, which takes out the resamples'
        own bias (Davison and Hinkley 1997, section 2.4); by the jackknife, 1.96 standard
        errors."""
        low = high = float("nan")
        if self.documents < 2 or not len(self.draws):
            pass
        elif self.jackknife:
            spread = np.square(self.draws - self.draws.mean()).sum()
            error = float(np.sqrt((self.documents - 1) / self.documents * spread))
            low, high = self.value - 1.96 * error, self.value + 1.96 * error
        else:
            lower, upper = np.nanquantile(self.draws, [0.025, 0.975]).tolist()
            low, high = 2 * self.value - upper, 2 * self.value - lower
        return Interval(
            value=self.value, low=low, high=high, n=self.documents, documents=self.documents
        )
