"""Fits of accuracy over compute: against scipy's curve_fit, numpy's polyfit and known truths."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import curve_fit

from openrpt.cli.main import main
from openrpt.errors import UserError
from openrpt.evaluation.scaling.curves import PAPER
from openrpt.evaluation.scaling.files import read_points
from openrpt.evaluation.scaling.fitting import information
from openrpt.evaluation.scaling.scaling import Point, Series, analyse, analyse_joint, analyse_series
from openrpt.runs.metrics import append_metrics
from openrpt.runs.run import Run
from tests.helpers.tiny_model import tiny_run

COMPUTE = np.geomspace(1e15, 1e18, 9)


def paper_form(c: Any, a: float, alpha: float, limit: float) -> Any:
    return a / c**alpha + limit


def points_of(accuracy: Any, compute: Any = COMPUTE, size: float | None = None) -> list[Point]:
    pairs = zip(compute, accuracy, strict=True)
    return [Point(compute=float(c), accuracy=float(p), model_size=size) for c, p in pairs]


def noisy(scale: float = 0.004) -> Any:
    noise = np.random.default_rng(3).normal(0, scale, len(COMPUTE))
    return paper_form(COMPUTE / 1e15, -0.2, 0.3, 0.45) + noise


def fitted(series: Series, form: str) -> dict[str, float]:
    return next(fit.parameters for fit in series.fits if fit.form == form)


def test_the_papers_form_against_scipy() -> None:
    y = noisy()
    best, _ = curve_fit(paper_form, COMPUTE / 1e15, y, p0=(-0.1, 0.5, 0.4), maxfev=10_000)
    series = analyse_series(points_of(y), resamples=0)
    found = fitted(series, PAPER.name)
    assert found["α"] == pytest.approx(best[1], rel=1e-4)
    assert found["P*"] == pytest.approx(best[2], rel=1e-4)
    assert found["A"] == pytest.approx(best[0] * 1e15 ** found["α"], rel=1e-3)
    residuals = y - paper_form(COMPUTE / 1e15, *best)
    fit = series.fits[0]
    assert fit.residual_sum == pytest.approx((residuals**2).sum(), rel=1e-6)
    assert fit.r_squared == pytest.approx(1 - (residuals**2).sum() / ((y - y.mean()) ** 2).sum())
    before, _ = curve_fit(paper_form, COMPUTE[:-1] / 1e15, y[:-1], p0=best, maxfev=10_000)
    assert series.predicted_last == pytest.approx(paper_form(1e3, *before), abs=1e-5)


def test_alternatives_against_numpy_and_scipy() -> None:
    y = noisy()
    series = analyse_series(points_of(y), resamples=0)
    slope, intercept = np.polyfit(np.log(COMPUTE), y, 1)
    logarithm = fitted(series, "logarithm")
    assert logarithm["b"] == pytest.approx(slope) and logarithm["a"] == pytest.approx(intercept)

    def power(c: Any, a: float, beta: float) -> Any:
        return a * c**beta

    best, _ = curve_fit(power, COMPUTE / 1e15, y, p0=(0.3, 0.05))
    assert fitted(series, "power law")["β"] == pytest.approx(best[1], rel=1e-4)

    def sigmoid(c: Any, top: float, k: float, middle: float) -> Any:
        return top / (1 + np.exp(-k * (np.log(c) - middle)))

    best, _ = curve_fit(sigmoid, COMPUTE / 1e15, y, p0=(0.45, 0.5, 0.0), maxfev=10_000)
    found = fitted(series, "sigmoid")
    assert found["k"] == pytest.approx(best[1], rel=1e-3)
    assert found["ln C½"] == pytest.approx(best[2] + math.log(1e15), rel=1e-3)


def test_information_criteria_by_hand() -> None:
    aic, aicc = information(0.5, 10, 3)
    assert aic == pytest.approx(10 * math.log(0.05) + 8)
    assert aicc == pytest.approx(aic + 2 * 4 * 5 / 5)
    assert information(0.5, 5, 3)[1] is None


@pytest.mark.parametrize(
    ("truth", "form"),
    [
        (paper_form(COMPUTE / 1e15, -0.2, 0.6, 0.45), PAPER.name),
        (0.1 + 0.04 * np.log(COMPUTE / 1e15), "logarithm"),
    ],
)
def test_the_form_that_made_the_points_is_preferred(truth: Any, form: str) -> None:
    y = truth + np.random.default_rng(0).normal(0, 5e-4, len(truth))
    assert analyse_series(points_of(y), resamples=0).best == form


def test_intervals_hold_the_truth_and_widen_with_noise() -> None:
    quiet = analyse_series(points_of(noisy(0.001)), resamples=100).fits[0].intervals
    loud = analyse_series(points_of(noisy(0.01)), resamples=100).fits[0].intervals
    assert quiet and loud
    assert quiet["α"][0] < 0.3 < quiet["α"][1] and quiet["P*"][0] < 0.45 < quiet["P*"][1]
    assert loud["α"][1] - loud["α"][0] > 2 * (quiet["α"][1] - quiet["α"][0])


def test_what_the_points_cannot_tell_is_said() -> None:
    three = analyse_series(points_of([0.2, 0.3, 0.35], [1e15, 2e15, 4e15]), resamples=10)
    assert three.fits[0].intervals is None and three.predicted_last is None
    assert any("as many points as parameters" in remark for remark in three.remarks)
    assert any("spans a factor of 4" in remark for remark in three.remarks)
    with pytest.raises(UserError, match="2 points of different compute"):
        analyse_series(points_of([0.2, 0.3, 0.3], [1e15, 2e15, 2e15]))


@pytest.mark.parametrize("accuracy", [0.0, 0.3, 1.0])
def test_an_accuracy_that_never_moves_is_fitted(accuracy: float) -> None:
    points = [Point(compute=10.0**k, accuracy=accuracy) for k in range(5, 12)]
    found = analyse_series(points, resamples=3)
    for _, middle, low, high in found.curve:
        assert (middle, low, high) == pytest.approx((accuracy,) * 3, abs=1e-4)
    assert found.predicted_last == pytest.approx(accuracy, abs=1e-4)


def test_sizes_are_fitted_jointly() -> None:
    sizes, points = (1e8, 4e8, 1e9, 4e9), []
    for size in sizes:
        y = 0.6 - 0.2 / (COMPUTE / 1e15) ** 0.3 - 0.1 / (size / 1e8) ** 0.4
        points += points_of(y, size=size)
    (joint,) = analyse(points, resamples=0).joint
    assert joint.fit is not None
    found = joint.fit.parameters
    assert found["α"] == pytest.approx(0.3, rel=0.01) and found["β"] == pytest.approx(0.4, rel=0.01)
    assert found["P*"] == pytest.approx(0.6, rel=0.01)
    two = analyse_joint([p for p in points if p.model_size in sizes[:2]])
    assert two.fit is None and "2 model sizes" in two.remarks[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose metrics hold five evaluations."""
    run = tiny_run(tmp_path_factory.mktemp("scaling"))
    append_metrics(run.metrics, {"stage": "warmup", "step": 1, "flops/generate": 7.0})
    for step in range(1, 11):
        row: dict[str, Any] = {"stage": "train", "step": step}
        row |= {"flops/generate": 1e9, "flops/update": 3e9}
        if step % 2 == 0:
            for name, limit in (("", 0.5), ("/easy", 0.7), ("/hard", 0.3)):
                accuracy = limit - 0.2 / step**0.5
                row[f"development/reasoning_accuracy{name}"] = accuracy
        append_metrics(run.metrics, row)
    return run


def test_points_of_a_run(run: Run) -> None:
    points = read_points([str(run.path)])
    hard = [point for point in points if point.difficulty == "hard"]
    assert [point.compute for point in hard] == [8e9, 16e9, 24e9, 32e9, 40e9]
    assert {point.difficulty for point in points} == {"easy", "hard"}


def test_command(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["scaling", str(run.path), "--resamples", "20"])
    assert not stopped.value.code
    assert "can't tell" in capsys.readouterr().out
    folder = run.path / "scaling"
    written = json.loads((folder / "scaling.json").read_text(encoding="utf-8"))
    assert [series["difficulty"] for series in written["series"]] == ["easy", "hard"]
    assert written["series"][0]["fits"][0]["parameters"]["P*"] == pytest.approx(0.7, abs=1e-3)
    assert len((folder / "scaling.csv").read_text(encoding="utf-8").splitlines()) == 1 + 2 * 4
    assert (folder / "scaling.svg").read_text(encoding="utf-8").startswith("<svg")


def test_errors_are_one_line(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    empty = tiny_run(tmp_path / "empty")
    append_metrics(empty.metrics, {"stage": "train", "step": 1} | dict.fromkeys(FLOPS, 1.0))
    capsys.readouterr()
    for arguments, expected in (
        ([str(run.path), "--out", str(tmp_path)], "not empty"),
        ([str(empty.path)], "no development evaluation"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["scaling", *arguments])
        error = capsys.readouterr().err.strip()
        assert stopped.value.code == 2 and expected in error and "\n" not in error


FLOPS = ("flops/generate", "flops/update")
