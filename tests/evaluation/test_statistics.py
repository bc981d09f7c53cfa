"""Errors by document, paired bootstrap and calibration, against scipy and by hand."""

import numpy as np
import pytest

from openrpt.evaluation.statistics import (
    calibration,
    mean_by_document,
    paired_difference,
    ratio_by_document,
)


def test_ratio_of_sums() -> None:
    found = ratio_by_document(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 4.0]), np.arange(3))
    assert found.value == 1.0
    # Residuals 0, 1, −1: sqrt(2 · 3 / 2) / 6.
    assert found.standard_error == pytest.approx(np.sqrt(3) / 6)
    assert np.isnan(ratio_by_document(np.ones(0), np.ones(0), np.ones(0)).value)


@pytest.fixture(scope="module")
def stats():
    return pytest.importorskip("scipy.stats")


def test_one_position_a_document_is_the_ordinary_error(stats) -> None:
    values = np.random.default_rng(0).normal(size=50)
    found = mean_by_document(values, np.arange(50))
    assert found.standard_error == pytest.approx(stats.sem(values))


def test_p_and_interval_are_near_the_t_test(stats) -> None:
    """With independent documents of one position and a normal difference."""
    rng = np.random.default_rng(1)
    for shift in (0.0, 0.15, 0.3):
        a = rng.normal(shift, 1.0, size=200)
        found = paired_difference(a, np.zeros(200), np.arange(200))
        reference = stats.ttest_1samp(a, 0.0)
        interval = reference.confidence_interval()
        assert found.p == pytest.approx(reference.pvalue, abs=0.02)
        assert (found.low, found.high) == pytest.approx(tuple(interval), abs=0.02)


def test_repeating_positions_within_documents_adds_nothing() -> None:
    rng = np.random.default_rng(2)
    a, documents = rng.normal(0.2, 1.0, size=60), np.arange(60)
    once = paired_difference(a, np.zeros(60), documents)
    often = paired_difference(np.repeat(a, 9), np.zeros(540), np.repeat(documents, 9))
    assert (often.p, often.n, often.documents) == (once.p, 540, 60)
    assert often.low == pytest.approx(once.low)


def test_edges_of_the_paired_difference() -> None:
    same = paired_difference(np.ones(6), np.ones(6), np.arange(6))
    assert (same.value, same.p, same.distinguishable) == (0.0, 1.0, False)
    clear = paired_difference(np.ones(6), np.zeros(6), np.arange(6))
    assert clear.distinguishable and clear.p == pytest.approx(2 / 2**6)
    wide = paired_difference(np.linspace(0.5, 1, 60), np.zeros(60), np.arange(60))
    assert wide.distinguishable and wide.p == pytest.approx(2 / 4001)
    holes = paired_difference(
        np.array([1.0, np.nan, 3.0]), np.array([0.0, 0.0, np.nan]), np.arange(3)
    )
    assert (holes.n, holes.value) == (1, 1.0) and np.isnan(holes.p)


@pytest.mark.parametrize("size", [2, 5, 6, 40])
def test_documents_that_are_all_alike_have_an_interval_with_a_width(stats, size: int) -> None:
    """No resample differs from another: how many documents may be unlike these is what is left,
    by Clopper and Pearson; each of them once, however many positions it has."""
    documents = np.repeat(np.arange(size), 3)
    ones, zeros = np.ones(3 * size), np.zeros(3 * size)
    unseen = stats.binomtest(0, size).proportion_ci(method="exact").high
    for same in (zeros, ones):
        found = paired_difference(same, same, documents)
        assert (found.low, found.high) == pytest.approx((-unseen, unseen))
    better = paired_difference(ones, zeros, documents)
    assert (better.low, better.high) == pytest.approx((1 - 2 * unseen, 1.0))
    assert better.p == pytest.approx(stats.binomtest(size, size).pvalue)  # the sign test
    assert better.distinguishable == (better.p < 0.05) == (size > 5)
    worse = paired_difference(zeros, ones, documents)
    assert (worse.low, worse.high) == pytest.approx((-1.0, 2 * unseen - 1))
    # One right and one wrong in every document; and what is no share.
    mixed = paired_difference(
        np.tile([1.0, 0.0], size), np.tile([0.0, 1.0], size), np.repeat(np.arange(size), 2)
    )
    assert (mixed.low, mixed.high) == pytest.approx((-unseen, unseen))
    assert np.isnan(paired_difference(3 * ones, ones, documents).low)


def test_calibration() -> None:
    confidence = np.array([0.7, 0.7, 0.7, 0.7, 1.0, 1.0, np.nan, 0.3])
    right = np.array([1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, np.nan])
    found = calibration(confidence, right)
    # |0.75 − 0.7| for four of six positions, |0.5 − 1| for two.
    assert found["expected_calibration_error"] == pytest.approx((4 * 0.05 + 2 * 0.5) / 6)
    assert [(b["low"], b["n"]) for b in found["bins"]] == [(0.6, 4), (0.9, 2)]
    assert np.isnan(calibration(np.ones(0), np.ones(0))["expected_calibration_error"])
