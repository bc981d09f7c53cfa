"""Means and differences over seeds: each seed is one observation, whatever it measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openrpt.sheets import NOTHING

LEVEL = 0.05
"""The p-value, after the correction for several comparisons, up to which a difference is said."""


def mean_over_seeds(values: Sequence[float] | np.ndarray) -> str:
    """Returns the mean in % ± its standard error over seeds; of one seed no error, of none a dash.

    >>> mean_over_seeds([0.5, 0.7]), mean_over_seeds([1.0, 1.0]), mean_over_seeds([0.2])
    ('60.0 ± 10.0', '100.0 ± 0.0', '20.0')
    """
    # Seeds are no trials, so a mean of 1 has no binomial interval: not `sheets.share`.
    n = len(values)
    if not n:
        return NOTHING
    error = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    spread = "" if math.isnan(error) else f" ± {100 * error:.1f}"
    return f"{100 * float(np.mean(values)):.1f}{spread}"


@dataclass(frozen=True, kw_only=True)
class SeedDifference:
    """A paired difference over seeds; the interval holds 95 % by Student's t (NaN: one seed)."""

    value: float
    low: float
    high: float
    p: float
    """The two-sided p-value of the same t (NaN: one seed)."""

    @property
    def distinguishable(self) -> bool:
        """The interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def seed_difference(a: Sequence[float], b: Sequence[float]) -> SeedDifference:
    """Compares a with b, both [seeds] in the same order: the mean of a − b, ± t · s / √n with
    n − 1 degrees of freedom; of one seed no interval."""
    differences = np.subtract(a, b)
    value = float(differences.mean())
    if len(differences) < 2:
        return SeedDifference(value=value, low=math.nan, high=math.nan, p=math.nan)
    from scipy import stats

    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    free = len(differences) - 1
    wide = float(stats.t.ppf(0.975, free)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, free)) if error else float(value == 0)
    return SeedDifference(value=value, low=value - wide, high=value + wide, p=p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values corrected for their number by Holm's step-down procedure (1979), in the
    same order: the smallest times n, the next times n − 1, none below one before it, at most 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, greatest = [math.nan] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        greatest = max(greatest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = greatest
    return corrected
