"""Windows, selection and difficulty: pure functions on arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrpt.config.prompt import SelectionConfig
from openrpt.data.positions import (
    ScoredDocument,
    Window,
    bands,
    difficulty,
    windows,
)
from openrpt.data.selection import eligible_positions, select_positions
from openrpt.errors import UserError


def scored(entropy: list[float], *, nll: list[float] | None = None) -> ScoredDocument:
    """A document with these scores; its top-16 entropy is half the full one."""
    values = np.array(entropy, np.float32)
    return ScoredDocument(
        document_id="d",
        key="k",
        split="train",
        source="test:1",
        text="",
        token_ids=np.arange(len(values)),
        byte_offsets=np.arange(len(values)),
        negative_log_likelihood=np.array(nll, np.float32) if nll else values,
        entropy=values,
        entropy_top16=values / 2,
        ntp_token_id=np.full(len(values), -1),
        ntp_correct=np.full(len(values), False),
    )


@given(
    num_tokens=st.integers(0, 400),
    min_context=st.integers(1, 20),
    extra=st.integers(0, 40),
)
def test_windows_give_every_position_its_context(num_tokens, min_context, extra):
    window = 2 * min_context + extra
    found = windows(num_tokens, window=window, min_context=min_context)
    covered = [p for one in found for p in range(one.first, one.end)]
    assert covered == list(range(min_context, num_tokens))  # each once, in order
    for one in found:
        assert one.first < one.end <= num_tokens
        assert one.first - one.start >= min_context
        assert one.end - 1 - one.start <= window
        if num_tokens > window:
            assert one.end - 1 - one.start == window
    for one in found[1:]:
        assert one.first - one.start > window // 2


def test_a_short_document_is_one_window():
    assert windows(30, window=40, min_context=4) == [Window(start=0, end=30, first=4)]
    assert windows(41, window=40, min_context=4) == [Window(start=0, end=41, first=4)]
    assert len(windows(42, window=40, min_context=4)) == 2
    assert windows(4, window=40, min_context=4) == []


def test_a_window_too_short_for_the_context_is_refused():
    with pytest.raises(UserError, match=r"prompt\.window = 31 .* prompt\.min_context = 16"):
        windows(100, window=31, min_context=16)


def test_entropy_selection_reads_the_top_16_and_the_window():
    document = scored([3.0, 3.0, 0.9, 1.0, 3.0, 3.0])
    config = SelectionConfig(strategy="entropy", min_entropy=0.5)
    window = Window(start=0, end=5, first=1)
    assert eligible_positions(document, config, window=window).tolist() == [1, 3, 4]


def test_positions_without_a_score_are_never_eligible():
    document = scored([np.nan, 1.0, np.nan, 1.0])
    window = Window(start=0, end=4, first=0)
    for strategy in ("random", "entropy", "pass_rate"):
        config = SelectionConfig(strategy=strategy, min_entropy=0, pass_rate_low=0)
        found = eligible_positions(document, config, window=window, pass_rates={2: 0.5})
        assert found.tolist() == [1, 3]


def test_pass_rates_come_from_rollouts_where_measured_else_from_the_scorer():
    probability = [0.01, 0.5, 0.99, 0.5, 0.01]
    document = scored([1.0] * 5, nll=(-np.log(probability)).tolist())
    config = SelectionConfig(strategy="pass_rate", pass_rate_low=0.05, pass_rate_high=0.95)
    window = Window(start=0, end=5, first=0)
    assert eligible_positions(document, config, window=window).tolist() == [1, 3]
    measured = {0: 0.25, 1: 1.0, 4: 0.05}
    found = eligible_positions(document, config, window=window, pass_rates=measured)
    assert found.tolist() == [0, 3, 4]


def test_the_draw_is_without_replacement_sorted_and_a_function_of_the_generator():
    document = scored([1.0] * 50)
    config = SelectionConfig(strategy="random")
    window = Window(start=0, end=50, first=10)

    def draw(seed: int, count: int) -> list[int]:
        rng = np.random.default_rng(seed)
        return select_positions(document, config, window=window, count=count, rng=rng)

    first = draw(0, 8)
    assert len(set(first)) == 8 and first == sorted(first)
    assert all(type(p) is int and 10 <= p < 50 for p in first)
    assert draw(0, 8) == first != draw(1, 8)
    assert draw(0, 100) == list(range(10, 50))
    nowhere = Window(start=0, end=10, first=10)
    rng = np.random.default_rng(0)
    assert select_positions(document, config, window=nowhere, count=3, rng=rng) == []


def test_positions_that_left_the_band_are_measured_again():
    """A policy that changes can bring them back; the share is as asked for."""
    document = scored([1.0] * 40)
    window = Window(start=0, end=40, first=0)
    measured = {i: 0.0 if i < 20 else 0.5 for i in range(40)}

    def share(**settings: float) -> float:
        config = SelectionConfig(strategy="pass_rate", **settings)
        rng = np.random.default_rng(0)
        drawn = [
            select_positions(document, config, window=window, count=8, rng=rng, pass_rates=measured)
            for _ in range(300)
        ]
        assert all(len(set(one)) == 8 and one == sorted(one) for one in drawn)
        return float(np.mean([i < 20 for one in drawn for i in one]))

    assert share(measure_again=0.0) == 0.0
    assert share() == pytest.approx(0.1, abs=0.02)
    assert share(measure_again=0.5) == pytest.approx(0.5, abs=0.03)
    out = dict.fromkeys(range(40), 0.0)  # all left: still some are looked at
    config = SelectionConfig(strategy="pass_rate", measure_again=1.0)
    rng = np.random.default_rng(0)
    few = select_positions(document, config, window=window, count=8, rng=rng, pass_rates=out)
    assert len(few) == 8


def test_difficulties_are_nested_and_bands_disjoint():
    entropy = np.array([0.0, 0.5, 0.6, 1.0, 1.2, 1.5, 1.6, 9.0])
    counts = {name: int(flags.sum()) for name, flags in difficulty(entropy).items()}
    assert counts == {"easy": 6, "medium": 4, "hard": 2}
    in_bands = bands(entropy)
    assert {name: int(flags.sum()) for name, flags in in_bands.items()} == {
        "<=0.5": 2,
        "0.5-1.0": 2,
        "1.0-1.5": 2,
        ">1.5": 2,
    }
    assert sum(flags.astype(int) for flags in in_bands.values()).tolist() == [1] * 8
