"""What theory says of right answers, against enumeration and against counts."""

from fractions import Fraction

import pytest

from openrpt.experiments.lab.outcome import Cell, Outcome
from openrpt.experiments.lab.sampled import SampledCounts, counted
from openrpt.experiments.lab.theory import (
    after_round,
    predictions,
    sampled_accuracy,
    theory_sheet,
    threshold,
)
from openrpt.experiments.over_seeds import mean_over_seeds


@pytest.mark.parametrize("m", [2, 5, 60])
@pytest.mark.parametrize("worked", [1, 3, 7])
def test_the_formulas_are_those_of_counting(m: int, worked: int) -> None:
    """10 m thoughts are equally likely; `worked` m are worked, and each m-th other is right."""
    total = 10 * m
    right_worked, right_others = worked * m, (total - worked * m) // m
    p = worked * m / total
    assert sampled_accuracy(p, m) == pytest.approx((right_worked + right_others) / total)
    assert after_round(p, m) == pytest.approx(right_worked / (right_worked + right_others))


def test_a_round_multiplies_the_odds() -> None:
    p = after_round(0.1, 7)
    assert p / (1 - p) == pytest.approx(7 * 0.1 / 0.9)
    assert after_round(threshold(7) + 1e-9, 7) > 0.5 > after_round(threshold(7) - 1e-9, 7)
    # The rounds of the parity mixture, m = 2: p_n = 2^n p / (2^n p + 1 - p).
    twice = Fraction(2**3, 10) / (Fraction(2**3, 10) + Fraction(9, 10))
    assert after_round(after_round(after_round(0.1, 2), 2), 2) == pytest.approx(float(twice))


def test_rollouts_of_the_shown_depths_are_counted() -> None:
    states = {"a": "_23", "b": "_40"}
    thoughts = [("a", b"_23", True), ("a", b"___", True), ("b", b"_40", False), ("c", b"_11", True)]
    rows = [{"document_id": d, "thought": t, "exact": e} for d, t, e in thoughts]
    assert counted(3, rows, states) == SampledCounts(
        seed=3, rollouts=3, worked=2, right=2, worked_right=1
    )


def outcome(*counts: SampledCounts, ntp: float = 0.22) -> Outcome:
    cells = [
        Cell(arm="ntp", seed=one.seed, depth=depth, n=10, accuracy=value, standard=0.2)
        for one in counts
        for depth, value in ((2, ntp), (9, 1.0))
    ]
    return Outcome(
        world="scan", shown=8, chance=0.2, worked_share=0.4, cells=cells, sampled=list(counts)
    )


def test_predictions_stand_beside_what_was_measured() -> None:
    one = SampledCounts(seed=0, rollouts=1000, worked=400, right=520, worked_right=400)
    found = predictions(outcome(one))
    assert [p.predicted for p in found] == [[0.4], [0.52], [pytest.approx(2 / 2.6)], [0.2]]
    measured = [value for p in found for value in p.measured]
    assert measured == pytest.approx([0.4, 0.52, 400 / 520, 0.22])
    assert all(p.holds for p in found)
    unread = SampledCounts(seed=0, rollouts=1000, worked=400, right=200, worked_right=80)
    held = [p.holds for p in predictions(outcome(unread, ntp=0.4))]
    assert held == [True, False, False, False]
    sheet = theory_sheet(outcome(one, SampledCounts(**{**unread.model_dump(), "seed": 1})))
    assert [row[-1] for row in sheet.rows] == ["holds", *["does not hold"] * 2, "holds"]
    assert "above in 2 of 2 seeds, and then so in 1" in sheet.notes[1]


def test_a_mean_over_seeds_has_an_error_over_seeds() -> None:
    """Seeds are no trials: of four seeds that are all right there is no binomial interval."""
    assert mean_over_seeds([1.0] * 4) == "100.0 ± 0.0"
    assert mean_over_seeds([0.5, 0.7]) == "60.0 ± 10.0"
    assert (mean_over_seeds([0.2]), mean_over_seeds([])) == ("20.0", "–")
