"""Spans: where a number, a word, a command ends."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openrpt.data.spans import is_whole, same_span, span_length


@pytest.mark.parametrize(
    ("text", "span"),
    [
        (" 24 clips", " 24"),
        ("24.", "24"),
        ("24.50.", "24.50"),
        ("1,200,000, so", "1,200,000"),
        ("1{,}200 x", "1{,}200"),
        ("1,2345", "1"),
        ("3,4", "3"),
        (".5)", ".5"),
        ("$12.5 in", "$12.5"),
        ("\\$12", "\\$12"),
        ("-$5", "-$5"),
        (" $-5", " $-5"),
        (" −3", " −3"),
        ("- 3", "-"),
        ("$x$", "$"),
        ("5%", "5"),
        ("12th", "12"),
        ("word.", "word"),
        (" don't", " don't"),
        ("dogs' ", "dogs"),
        ("Straße 5", "Straße"),
        ("x_1", "x"),
        ("\\frac{1}{2}", "\\frac"),
        ("\\\\ a", "\\"),
        ("}{2}", "}"),
        ("\n\n24", "\n\n24"),
        ("  ", "  "),
        ("", ""),
        ("数学", "数学"),
        ("😀😀", "😀"),
    ],
)
def test_where_it_ends(text: str, span: str) -> None:
    data = text.encode()
    assert data[: span_length(data)].decode() == span


def test_half_a_character_is_a_span() -> None:
    assert span_length("é".encode()[:1]) == 1
    assert not is_whole(b"caf" + "é".encode()[:1])
    assert is_whole(b"\xff\xff")


BYTES = st.lists(
    st.sampled_from([*"0123 .,a'$-\\{}!=%\n", "é", "’", "−", "€", "\\!", "{,}"]), max_size=8
).map(lambda parts: "".join(parts).encode())


@settings(max_examples=1000, deadline=None)
@example(text=b".", cut=0, more=b"0")
@example(text=b"-$.", cut=0, more=b"5")
@given(text=BYTES, cut=st.integers(0, 2), more=BYTES)
def test_a_span_that_has_ended_stays_as_it_is(text: bytes, cut: int, more: bytes) -> None:
    text = text[: len(text) - cut]
    length = span_length(text)
    assert 0 <= length <= len(text) and (length > 0 or not text)
    if is_whole(text):
        assert span_length(text + more) == length


@given(text=BYTES)
def test_every_span_ends_in_the_end(text: bytes) -> None:
    if text.strip():
        assert is_whole(text + b" \n ;;")


def test_predictions_are_cut_at_the_span() -> None:
    assert same_span(b" 24 clips in", b" 24.\n####")
    assert not same_span(b" 2", b" 24")
    assert not same_span(b" 240", b" 24")
    assert not same_span(b"", b"") and not same_span(b"  ", b"  ")
    assert same_span(b"\\frac{3}", b"\\frac{1}{2}")
