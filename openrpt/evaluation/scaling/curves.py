"""Curves of accuracy over compute, and how they are fitted: bounded least squares of several
starts, a bootstrap over residuals, information criteria. NumPy, and scipy for the search.

A curve is a function of x = ln(C / C₀), C₀ the geometric mean of the points' compute, so that its
numbers are near 1; `natural` turns its parameters back: A = A₀ · C₀^α.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openrpt.extras import require

Array = NDArray[np.float64]
EXPONENT = (1e-3, 10.0)
"""Bounds of α and β."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Form:
    """P as a function of x; parameters in order, with their bounds."""

    name: str
    formula: str
    parameters: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    predict: Callable[[Array, Array], Array]
    """(parameters, x [n]) → P [n]"""
    starts: Callable[[Array, Array], list[Array]]
    """(x [n], P [n]) → where the search begins"""
    natural: Callable[[dict[str, float], Any], dict[str, float]]
    """(parameters in x, the logarithms that x is taken from) → parameters in FLOPs"""


def exp(value: float) -> float:
    """Infinite where it overflows."""
    return math.exp(value) if value < 709 else math.inf


def _line(basis: Array, y: Array) -> Array:
    """Slope and intercept of y over a basis, by least squares."""
    columns = np.stack([basis, np.ones_like(basis)], axis=1)
    found: Array = np.linalg.lstsq(columns, y, rcond=None)[0].astype(np.float64)
    return found


def power_starts(x: Array, y: Array) -> list[Array]:
    """Given α the form is linear in A₀ and P*, so only α has to be guessed."""
    found = []
    for alpha in (0.03, 0.1, 0.3, 1.0, 3.0):
        scale, limit = _line(np.exp(-alpha * x), y)
        found.append(np.array([scale, alpha, limit]))
    return found


def _sigmoid_starts(x: Array, y: Array) -> list[Array]:
    """Given its ceiling, a sigmoid is a line in the log-odds."""
    found = []
    for ceiling in (1.02 * y.max(), 1.3 * y.max(), 1.0):
        share = np.clip(y / ceiling, 1e-3, 1 - 1e-3)
        slope, at_zero = _line(x, np.log(share / (1 - share)))
        rate = max(slope, 1e-2)
        found.append(np.array([ceiling, rate, -at_zero / rate]))
    return found


PAPER = Form(
    name="power law with a limit",
    formula="P = A / C^α + P*",
    parameters=("A", "α", "P*"),
    lower=(-1.0, EXPONENT[0], 0.0),
    upper=(1.0, EXPONENT[1], 1.0),
    predict=lambda p, x: p[0] * np.exp(-p[1] * x) + p[2],
    starts=power_starts,
    natural=lambda p, origin: p | {"A": p["A"] * exp(p["α"] * origin)},
)
ALTERNATIVES = (
    Form(
        name="logarithm",
        formula="P = a + b · ln C",
        parameters=("b", "a"),
        lower=(-np.inf, -np.inf),
        upper=(np.inf, np.inf),
        predict=lambda p, x: p[0] * x + p[1],
        starts=lambda x, y: [_line(x, y)],
        natural=lambda p, origin: p | {"a": p["a"] - p["b"] * origin},
    ),
    Form(
        name="sigmoid",
        formula="P = L / (1 + (C / C½)^−k)",
        parameters=("L", "k", "ln C½"),
        lower=(0.0, EXPONENT[0], -50.0),
        upper=(1.0, EXPONENT[1], 50.0),
        predict=lambda p, x: p[0] / (1 + np.exp(np.clip(-p[1] * (x - p[2]), -500, 500))),
        starts=_sigmoid_starts,
        natural=lambda p, origin: p | {"ln C½": p["ln C½"] + origin},
    ),
    Form(
        name="power law",
        formula="P = A · C^β",
        parameters=("A", "β"),
        lower=(0.0, -EXPONENT[1]),
        upper=(1.0, EXPONENT[1]),
        predict=lambda p, x: p[0] * np.exp(p[1] * x),
        starts=lambda x, y: [np.array([y.mean(), 0.1]), np.array([y.mean(), 0.01])],
        natural=lambda p, origin: p | {"A": p["A"] * exp(-p["β"] * origin)},
    ),
)


def _joint_starts(x: Array, y: Array) -> list[Array]:
    found = []
    for alpha in (0.1, 0.3, 1.0):
        for beta in (0.1, 0.3, 1.0):
            columns = np.stack([np.exp(-alpha * x[0]), np.exp(-beta * x[1]), np.ones_like(y)], 1)
            a, b, limit = np.linalg.lstsq(columns, y, rcond=None)[0]
            found.append(np.array([a, alpha, b, beta, limit]))
    return found


JOINT = Form(
    name="joint",
    formula="P = A / C^α + B / N^β + P*",
    parameters=("A", "α", "B", "β", "P*"),
    lower=(-1.0, EXPONENT[0], -1.0, EXPONENT[0], 0.0),
    upper=(1.0, EXPONENT[1], 1.0, EXPONENT[1], 1.0),
    predict=lambda p, x: p[0] * np.exp(-p[1] * x[0]) + p[2] * np.exp(-p[3] * x[1]) + p[4],
    starts=_joint_starts,
    natural=lambda p, origin: (
        p | {"A": p["A"] * exp(p["α"] * origin[0]), "B": p["B"] * exp(p["β"] * origin[1])}
    ),
)
"""Additive in compute and size, as Hoffmann et al. (arXiv 2203.15556, equation 2) have the loss."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One form on the points of one difficulty (and one model size)."""

    form: str
    formula: str
    parameters: dict[str, float]
    intervals: dict[str, tuple[float, float]] | None
    """95 % of the resamples; None where there is nothing to resample."""
    residual_sum: float
    r_squared: float
    aic: float
    aicc: float | None
    """None where the points are too few for the correction."""
    at_bound: list[str]


def least_squares(form: Form, x: Any, y: Array, starts: Sequence[Array]) -> Array:
    """The parameters of the least sum of squares within the form's bounds, of several starts."""
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


def resampled(
    form: Form, x: Any, y: Array, best: Array, *, resamples: int, seed: int
) -> list[Array]:
    """Parameters of fits to resampled residuals [resamples]; none where points = parameters.

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
    """(AIC, AICc) of a least-squares fit: n ln(RSS / n) + 2k, k = parameters and the variance.

    The correction for few points is 2k(k + 1) / (n − k − 1) (Hurvich and Tsai, 1989); None where
    n ≤ k + 1.
    """
    k = parameters + 1
    aic = n * math.log(max(residual_sum / n, 1e-24)) + 2 * k  # 1e-24: rounding, not a fit
    if n <= k + 1:
        return aic, None
    return aic, aic + 2 * k * (k + 1) / (n - k - 1)


def _intervals(samples: Sequence[dict[str, float]]) -> dict[str, tuple[float, float]] | None:
    if not samples:
        return None
    found = {}
    for name in samples[0]:
        low, high = np.quantile([sample[name] for sample in samples], [0.025, 0.975])
        found[name] = (float(low), float(high))
    return found


def _at_bound(form: Form, parameters: Array) -> list[str]:
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
    """The fit, its parameters in x, and those of the resamples; `x` is taken from `origin`."""
    best = least_squares(form, x, y, form.starts(x, y))
    samples = resampled(form, x, y, best, resamples=resamples, seed=seed)
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
