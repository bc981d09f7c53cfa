"""The fitting of curves: bounded least squares of several starts, a bootstrap over residuals,
information criteria. NumPy, and scipy for the search."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openrpt.evaluation.scaling.curves import Array, Form
from openrpt.extras import require


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One form on the points of one difficulty (and one model size)."""

    form: str
    formula: str
    parameters: dict[str, float]
    intervals: dict[str, tuple[float, float]] | None
    """(low, high) of each parameter, which hold 95 % of the resamples; None where there is nothing
    to resample."""
    residual_sum: float
    r_squared: float
    aic: float
    aicc: float | None
    """The AICc; None where the points are too few for the correction."""
    at_bound: list[str]
    """Parameters at the edge of what is allowed."""


def least_squares(form: Form, x: Any, y: Array, starts: Sequence[Array]) -> Array:
    """Returns the parameters of the least sum of squares within the form's bounds, of several
    starts."""
    require("scipy", extra="scaling", what="openrpt scaling")
    from scipy import optimize

    lower, upper = np.array(form.lower), np.array(form.upper)
    width = np.where(np.isfinite(upper - lower), 1e-6 * (upper - lower), 0.0)
    best, least = starts[0], math.inf
    for start in starts:
        found = optimize.least_squares(
            lambda p: form.predict(p, x) - y,
            np.clip(start, lower + width, upper - width),
            bounds=(lower, upper),
            x_scale="jac",
            ftol=1e-12,
            xtol=1e-12,
            gtol=1e-12,
        )
        if found.cost < least:
            best, least = found.x, found.cost
    return best


def _resampled(
    form: Form, x: Any, y: Array, best: Array, *, resamples: int, seed: int
) -> list[Array]:
    """Returns the parameters of fits to resampled residuals [resamples]; none where points =
    parameters.

    Residuals are widened by √(n / (n − parameters)), since a fit's own are too small.
    """
    n, free = len(y), len(y) - len(form.parameters)
    if free <= 0:
        return []
    fitted = form.predict(best, x)
    residuals = y - fitted
    residuals = (residuals - residuals.mean()) * math.sqrt(n / free)
    rng = np.random.default_rng(seed)
    draws = rng.integers(n, size=(resamples, n))
    return [least_squares(form, x, fitted + residuals[draw], [best]) for draw in draws]


def information(residual_sum: float, n: int, parameters: int) -> tuple[float, float | None]:
    """Returns (AIC, AICc) of a least-squares fit: n ln(RSS / n) + 2k, k = parameters and the
    variance.

    The correction for few points is 2k(k + 1) / (n − k − 1) (Hurvich and Tsai, 1989); None where
    n ≤ k + 1.
    """
    k = parameters + 1
    aic = n * math.log(max(residual_sum / n, 1e-24)) + 2 * k  # 1e-24: rounding, not a fit
    if n <= k + 1:
        return aic, None
    return aic, aic + 2 * k * (k + 1) / (n - k - 1)


def _intervals(samples: Sequence[dict[str, float]]) -> dict[str, tuple[float, float]] | None:
    """Returns the middle 95 % of each parameter; None without samples."""
    if not samples:
        return None
    found = {}
    for name in samples[0]:
        low, high = np.quantile([sample[name] for sample in samples], [0.025, 0.975])
        found[name] = (float(low), float(high))
    return found


def _at_bound(form: Form, parameters: Array) -> list[str]:
    """Returns the names of those parameters that lie at one of their bounds."""
    names = []
    for name, value, low, high in zip(
        form.parameters, parameters, form.lower, form.upper, strict=True
    ):
        near = 1e-4 * (high - low) if math.isfinite(high - low) else 0.0
        if near and (value < low + near or value > high - near):
            names.append(name)
    return names


def fit_form(
    form: Form, x: Array, y: Array, origin: Any, *, resamples: int, seed: int
) -> tuple[Fit, Array, list[Array]]:
    """Returns the fit, its parameters in x, and those of the resamples; `x` is taken from
    `origin`."""
    best = least_squares(form, x, y, form.starts(x, y))
    samples = _resampled(form, x, y, best, resamples=resamples, seed=seed)
    fitted = form.predict(best, x)
    residual_sum = float(np.square(y - fitted).sum())
    total = float(np.square(y - y.mean()).sum())
    aic, aicc = information(residual_sum, len(y), len(form.parameters))

    def natural(parameters: Array) -> dict[str, float]:
        named = dict(zip(form.parameters, parameters.tolist(), strict=True))
        return form.natural(named, origin)

    fit = Fit(
        form=form.name,
        formula=form.formula,
        parameters=natural(best),
        intervals=_intervals([natural(sample) for sample in samples]),
        residual_sum=residual_sum,
        r_squared=1 - residual_sum / total if total else math.nan,
        aic=aic,
        aicc=aicc,
        at_bound=_at_bound(form, best),
    )
    return fit, best, samples
