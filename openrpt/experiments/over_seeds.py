"""Means and differences over seeds: each seed is one observation, whatever it measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openrpt.sheets import NOTHING, points

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
    """A paired difference over seeds; the interval holds 95 % by Student's t (NaN: one seed, or
    all seeds differ by the same)."""

    value: float
    low: float
    high: float
    p: float
    """The two-sided p-value of the same t (NaN: one seed)."""
    seeds: int

    @property
    def distinguishable(self) -> bool:
        """The interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    @property
    def text(self) -> str:
        """The difference and its interval, in points.

        >>> seed_difference([0.5, 0.7], [0.4, 0.5]).text, seed_difference([1, 1], [1, 1]).text
        ('+15.0 [−48.5, +78.5]', '+0.0 at each of 2 seeds')
        """
        alike = self.seeds > 1 and math.isnan(self.low)
        told = points({"value": self.value, "low": self.low, "high": self.high})
        return f"{told} at each of {self.seeds} seeds" if alike else told


def seed_difference(a: Sequence[float], b: Sequence[float]) -> SeedDifference:
    """Compares a with b, both [seeds] in the same order: the mean of a − b, ± t · s / √n with
    n − 1 degrees of freedom; of one seed no interval.

    Where all seeds differ by the same, t has no spread to go by: no interval, and the p-value is
    that of the sign test, 2^(1 − n), or 1 where that difference is 0.
    """
    differences = np.subtract(a, b)
    value, seeds = float(differences.mean()), len(differences)
    if seeds < 2:
        return SeedDifference(value=value, low=math.nan, high=math.nan, p=math.nan, seeds=seeds)
    if np.ptp(differences) < 1e-9:  # equal but for what subtracting has rounded
        p = 2.0 ** (1 - seeds) if value else 1.0
        return SeedDifference(value=value, low=math.nan, high=math.nan, p=p, seeds=seeds)
    from scipy import stats

    error, free = float(differences.std(ddof=1)) / math.sqrt(seeds), seeds - 1
    wide = float(stats.t.ppf(0.975, free)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, free))
    return SeedDifference(value=value, low=value - wide, high=value + wide, p=p, seeds=seeds)


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
