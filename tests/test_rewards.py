import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrpt.rewards import matched_tokens, prefix_match

CONTINUATION = [b" the", b" end"]


@pytest.mark.parametrize(
    ("prediction", "k"),
    [
        (b" the", 1),
        (b" the end", 2),
        (b" th", 0),
        (b"the", 0),
        (b" the en", 0),
        (b" the end ", 0),
        (b" the  end", 0),
        (b"", 0),
        (None, 0),
    ],
)
def test_examples(prediction: bytes | None, k: int) -> None:
    assert matched_tokens(prediction, CONTINUATION) == k
    assert prefix_match(prediction, CONTINUATION) == float(k > 0)


def test_tokens_without_bytes_make_no_boundary() -> None:
    continuation = [b"", b" the", b"", b" end", b""]
    assert matched_tokens(b" the", continuation) == 2, "the least k"
    assert prefix_match(b" the end", continuation) == 1.0
    assert prefix_match(b"", continuation) == prefix_match(b" th", continuation) == 0.0


def test_a_token_may_end_inside_a_character() -> None:
    first, second = "é".encode()[:1], "é".encode()[1:]
    assert matched_tokens(first, [first, second]) == 1
    assert matched_tokens("é".encode(), [first, second]) == 2


def test_no_continuation_is_no_match() -> None:
    assert prefix_match(b"a", []) == prefix_match(b"", []) == 0.0


few_bytes = st.text(alphabet="ab", max_size=6).map(str.encode)


@given(few_bytes, st.lists(st.text(alphabet="ab", max_size=2).map(str.encode), max_size=5))
def test_equals_brute_force(prediction: bytes, continuation: list[bytes]) -> None:
    joined = [b"".join(continuation[:k]) for k in range(1, len(continuation) + 1)]
    expected = joined.index(prediction) + 1 if prediction and prediction in joined else 0
    assert matched_tokens(prediction, continuation) == expected
    assert prefix_match(prediction, continuation) == float(expected > 0)
