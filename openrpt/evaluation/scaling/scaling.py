"""Accuracy over training compute: the paper's fit, its uncertainty, and what else would fit.

Equation 5 of arXiv 2506.08007: P(C) = A / C^α + P*, with P the next-token accuracy, C the training
compute in FLOPs, one fit a difficulty. Accuracy rises, so A < 0 and P* is where it levels off. The
paper publishes R² alone; here every parameter has a bootstrap interval, the last point is predicted
from those before it, and three other forms compete on the same points.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from openrpt.errors import UserError
from openrpt.evaluation.scaling.curves import (
    ALTERNATIVES,
    JOINT,
    PAPER,
    Array,
    power_starts,
)
from openrpt.evaluation.scaling.fitting import Fit, fit_form, least_squares
from openrpt.progress import SILENT, Progress

_FEWEST_SIZES = 3
"""Model sizes that a joint fit needs: of two, B and β cannot be told from P*."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One evaluation of one model in training."""

    compute: float
    """FLOPs of the training so far."""
    accuracy: float
    """The accuracy, 0 to 1."""
    difficulty: str = "all"
    model_size: float | None = None
    """The number of the model's parameters."""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Series:
    """The points of one difficulty and model size, and what was found of them."""

    difficulty: str
    model_size: float | None
    points: list[Point]
    fits: list[Fit]
    """The paper's form first, then the alternatives."""
    best: str
    """The form with the least AICc (AIC where that is undefined)."""
    predicted_last: float | None
    """Accuracy at the greatest compute, from the paper's form on all other points."""
    prediction_error: float | None
    curve: list[tuple[float, float, float, float]]
    """(compute, P, low, high) of the paper's form; low and high hold 95 % of the resamples."""
    remarks: list[str]
    """Remarks on what the points can't tell."""


@dataclass(frozen=True, kw_only=True)
class Joint:
    """P(N, C) = A / C^α + B / N^β + P* over all model sizes of one difficulty."""

    difficulty: str
    sizes: list[float]
    fit: Fit | None
    """The fit; None where the points can't determine it."""
    remarks: list[str]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The fits of all series, and those over model sizes."""

    series: list[Series]
    joint: list[Joint]


def analyse_series(points: Sequence[Point], *, resamples: int = 500, seed: int = 0) -> Series:
    """Fits all forms to points of one difficulty and size.

    Raises UserError where there are fewer points than the paper's form has parameters, or fewer
    distinct amounts of compute.
    """
    points = sorted(points, key=lambda point: point.compute)
    name = _describe(points[0])
    needed = len(PAPER.parameters)
    distinct = len({point.compute for point in points})
    if distinct < needed:
        raise UserError(
            f"scaling, {name}: {distinct} points of different compute, but {PAPER.formula} has"
            f" {needed} parameters; evaluate more often (train.eval_every) or give more runs"
        )
    compute = np.array([point.compute for point in points])
    y = np.array([point.accuracy for point in points])
    log_c0 = float(np.log(compute).mean())
    x = np.log(compute) - log_c0
    paper, best, samples = fit_form(PAPER, x, y, log_c0, resamples=resamples, seed=seed)
    others = [fit_form(form, x, y, log_c0, resamples=0, seed=seed)[0] for form in ALTERNATIVES]
    fits = [paper, *others]
    predicted = None
    before = x < x[-1]
    if len(set(x[before].tolist())) >= needed:
        earlier = least_squares(PAPER, x[before], y[before], power_starts(x[before], y[before]))
        predicted = float(PAPER.predict(earlier, x[-1:])[0])
    return Series(
        difficulty=points[0].difficulty,
        model_size=points[0].model_size,
        points=points,
        fits=fits,
        best=min(fits, key=_criterion(fits)).form,
        predicted_last=predicted,
        prediction_error=None if predicted is None else predicted - float(y[-1]),
        curve=_curve(best, samples, x, log_c0),
        remarks=_remarks(fits, x, len(points)),
    )


def _describe(point: Point) -> str:
    return f"difficulty '{point.difficulty}'{size_words(point.model_size)}"


def size_words(model_size: float | None) -> str:
    """Returns the size in words, `, 1.35e+08 parameters` behind a name; nothing where the size is
    not known."""
    return "" if model_size is None else f", {model_size:.3g} parameters"


def _criterion(fits: Sequence[Fit]) -> Callable[[Fit], float]:
    """Returns AICc where all of the fits have one, else AIC."""
    if any(fit.aicc is None for fit in fits):
        return lambda fit: fit.aic
    return lambda fit: fit.aicc if fit.aicc is not None else math.inf


def _curve(
    best: Array, samples: Sequence[Array], x: Array, log_c0: float
) -> list[tuple[float, float, float, float]]:
    """Returns (compute, P, low, high) at 60 places from the least to the greatest x."""
    grid = np.linspace(x[0], x[-1], 60)
    middle = PAPER.predict(best, grid)
    low, high = middle, middle
    if samples:
        drawn = np.stack([PAPER.predict(sample, grid) for sample in samples])
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    columns = np.stack([np.exp(grid + log_c0), middle, low, high], axis=1)
    return [(float(c), float(p), float(a), float(b)) for c, p, a, b in columns]


def _remarks(fits: Sequence[Fit], x: Array, n: int) -> list[str]:
    """Returns what these points are too few, too close or too noisy to tell."""
    paper, found = fits[0], []
    if n == len(PAPER.parameters):
        found.append("as many points as parameters: the curve meets them all and tells nothing")
    elif any(fit.aicc is None for fit in fits):
        found.append(f"{n} points: too few for AICc (6), so no form can be preferred")
    else:
        values = sorted(fit.aicc for fit in fits if fit.aicc is not None)
        if values[1] - values[0] < 2:
            found.append("two forms within 2 of AICc: the points do not tell them apart")
    if x[-1] - x[0] < math.log(10):
        found.append(f"compute spans a factor of {math.exp(x[-1] - x[0]):.2g}: no extrapolation")
    if paper.at_bound:
        found.append(f"{', '.join(paper.at_bound)} at the edge of what is allowed: not determined")
    elif paper.intervals and n > len(PAPER.parameters):
        low, high = paper.intervals["α"]
        if high > 10 * low:
            found.append(f"α is anywhere from {low:.2g} to {high:.2g}: not determined")
    return found


def analyse_joint(points: Sequence[Point], *, resamples: int = 500, seed: int = 0) -> Joint:
    """Makes one fit over model sizes; without parameters where the points can't determine it."""
    sizes = sorted({p.model_size for p in points if p.model_size is not None})
    difficulty, remarks = points[0].difficulty, []
    if len(sizes) < _FEWEST_SIZES:
        remarks.append(f"{len(sizes)} model sizes: {JOINT.formula} needs {_FEWEST_SIZES}")
    if len(points) < len(JOINT.parameters):
        remarks.append(f"{len(points)} points for {len(JOINT.parameters)} parameters")
    if remarks:
        return Joint(difficulty=difficulty, sizes=sizes, fit=None, remarks=remarks)
    log_c = np.log([p.compute for p in points])
    log_n = np.log([p.model_size or math.nan for p in points])
    x = np.stack([log_c - log_c.mean(), log_n - log_n.mean()])
    y = np.array([p.accuracy for p in points])
    origin = (float(log_c.mean()), float(log_n.mean()))
    fit, _, _ = fit_form(JOINT, x, y, origin, resamples=resamples, seed=seed)
    if fit.at_bound:
        remarks.append(f"{', '.join(fit.at_bound)} at the edge of what is allowed: not determined")
    return Joint(difficulty=difficulty, sizes=sizes, fit=fit, remarks=remarks)


def analyse(
    points: Sequence[Point], *, resamples: int = 500, seed: int = 0, progress: Progress = SILENT
) -> Analysis:
    """Fits every difficulty and model size by itself, and jointly where there are several sizes.

    Raises UserError for fewer points than parameters (which ones is said), and without scipy.
    """
    groups: dict[tuple[str, float | None], list[Point]] = {}
    for point in points:
        groups.setdefault((point.difficulty, point.model_size), []).append(point)
    progress.begin("fits", len(groups), "series")
    series = []
    for group in groups.values():
        series.append(analyse_series(group, resamples=resamples, seed=seed))
        progress.update(len(series))
    joint = []
    for difficulty in dict.fromkeys(name for name, _ in groups):
        own = [p for p in points if p.difficulty == difficulty and p.model_size is not None]
        if len({p.model_size for p in own}) > 1:
            joint.append(analyse_joint(own, resamples=resamples, seed=seed))
    return Analysis(series=series, joint=joint)
