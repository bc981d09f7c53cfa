"""Curves of accuracy over compute: the paper's form, its alternatives, and the joint one.

A curve is a function of x = ln(C / C₀), C₀ the geometric mean of the points' compute, so that its
numbers are near 1; `natural` turns its parameters back: A = A₀ · C₀^α.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_EXPONENT = (1e-3, 10.0)
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
    """The curve: (parameters, x [n]) → P [n]."""
    starts: Callable[[Array, Array], list[Array]]
    """The starts of the search: (x [n], P [n]) → parameters."""
    natural: Callable[[dict[str, float], Any], dict[str, float]]
    """The way back to FLOPs: (parameters in x, the logarithms that x is taken from) → parameters
    in FLOPs"""


def _exp(value: float) -> float:
    """Returns e to this power; infinite where it overflows."""
    return math.exp(value) if value < 709 else math.inf


def _line(basis: Array, y: Array) -> Array:
    """Returns the slope and intercept of y over a basis, by least squares."""
    columns = np.stack([basis, np.ones_like(basis)], axis=1)
    found: Array = np.linalg.lstsq(columns, y, rcond=None)[0].astype(np.float64)
    return found


def power_starts(x: Array, y: Array) -> list[Array]:
    """Returns starts of a power law: given α the form is linear in A₀ and P*, so only α has to be
    guessed."""
    found = []
    for alpha in (0.03, 0.1, 0.3, 1.0, 3.0):
        scale, limit = _line(np.exp(-alpha * x), y)
        found.append(np.array([scale, alpha, limit]))
    return found


def _sigmoid_starts(x: Array, y: Array) -> list[Array]:
    """Returns starts of a sigmoid: given its ceiling, a sigmoid is a line in the log-odds."""
    found = []
    greatest = max(float(y.max()), 1e-3)  # where nothing was ever right, there is no ceiling yet
    for ceiling in (1.02 * greatest, 1.3 * greatest, 1.0):
        share = np.clip(y / ceiling, 1e-3, 1 - 1e-3)
        slope, at_zero = _line(x, np.log(share / (1 - share)))
        rate = max(slope, 1e-2)
        found.append(np.array([ceiling, rate, -at_zero / rate]))
    return found


PAPER = Form(
    name="power law with a limit",
    formula="P = A / C^α + P*",
    parameters=("A", "α", "P*"),
    lower=(-1.0, _EXPONENT[0], 0.0),
    upper=(1.0, _EXPONENT[1], 1.0),
    predict=lambda p, x: p[0] * np.exp(-p[1] * x) + p[2],
    starts=power_starts,
    natural=lambda p, origin: p | {"A": p["A"] * _exp(p["α"] * origin)},
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
        lower=(0.0, _EXPONENT[0], -50.0),
        upper=(1.0, _EXPONENT[1], 50.0),
        predict=lambda p, x: p[0] / (1 + np.exp(np.clip(-p[1] * (x - p[2]), -500, 500))),
        starts=_sigmoid_starts,
        natural=lambda p, origin: p | {"ln C½": p["ln C½"] + origin},
    ),
    Form(
        name="power law",
        formula="P = A · C^β",
        parameters=("A", "β"),
        lower=(0.0, -_EXPONENT[1]),
        upper=(1.0, _EXPONENT[1]),
        predict=lambda p, x: p[0] * np.exp(p[1] * x),
        starts=lambda x, y: [np.array([y.mean(), 0.1]), np.array([y.mean(), 0.01])],
        natural=lambda p, origin: p | {"A": p["A"] * _exp(-p["β"] * origin)},
    ),
)


def _joint_starts(x: Array, y: Array) -> list[Array]:
    """Returns starts of the joint form: given α and β it is linear in A₀, B₀ and P*."""
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
    lower=(-1.0, _EXPONENT[0], -1.0, _EXPONENT[0], 0.0),
    upper=(1.0, _EXPONENT[1], 1.0, _EXPONENT[1], 1.0),
    predict=lambda p, x: p[0] * np.exp(-p[1] * x[0]) + p[2] * np.exp(-p[3] * x[1]) + p[4],
    starts=_joint_starts,
    natural=lambda p, origin: (
        p | {"A": p["A"] * _exp(p["α"] * origin[0]), "B": p["B"] * _exp(p["β"] * origin[1])}
    ),
)
"""The joint form, additive in compute and size, as Hoffmann et al. (arXiv 2203.15556, equation 2)
have the loss."""
