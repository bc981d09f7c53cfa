"""Windows of steps: the means of a metric over some steps, and how far they move by chance."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, stdev

from openrpt.json_lines import Row
from openrpt.runs.metrics import is_number

WINDOW = 5
"""Steps that a mean is taken over: a step has few documents, and its reward moves by ten points
with them; five steps bring that below five."""


def values_of(rows: Sequence[Row], key: str) -> list[float]:
    """Returns the values of the rows that have the key, finite ones."""
    return [row[key] for row in rows if is_number(row.get(key))]


def first_and_last(rows: Sequence[Row], key: str) -> tuple[float, float] | None:
    """Returns (mean of the first window, mean of the last); None where they overlap."""
    values = values_of(rows, key)
    if len(values) < 2 * WINDOW:
        return None
    return fmean(values[:WINDOW]), fmean(values[-WINDOW:])


def last_window(rows: Sequence[Row], key: str) -> list[float]:
    """Returns the values of the last window; empty before it is full."""
    values = values_of(rows[-WINDOW:], key)
    return values if len(values) == WINDOW else []


def window_means(values: Sequence[float], steps: int) -> list[float]:
    """Returns the mean of each window of `steps` values."""
    return [fmean(values[i : i + steps]) for i in range(len(values) - steps + 1)]


def difference_error(values: Sequence[float], steps: int) -> float:
    """Returns the standard error of the difference of two windows of `steps` values: √(2 / steps)
    times the deviation of a step, σ² = mean of (x_t - x_{t-1})² / 2 (von Neumann 1941), which a
    slow trend does not enlarge."""
    squares = [(after - before) ** 2 for before, after in pairwise(values)]
    return math.sqrt(fmean(squares) / steps)


def standard_error(values: Sequence[float]) -> float:
    """Returns the standard error of the mean; 0 where one value says nothing of it."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
