from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrpt.errors import UserError
from openrpt.rl.completions import extract_prediction
from openrpt.rl.rewards.matching import (
    DENSE_CEILING,
    dense_reward,
    exact_judge,
    first_token_match,
    fuzzy_judge,
    length_weighted_match,
    matched_tokens,
    next_segment,
    prediction_tokens,
    prefix_match,
    segment_reward,
)
from tests.helpers.examples import CONTINUATION, MATCHES


@pytest.mark.parametrize(("prediction", "k"), MATCHES)
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


def test_decoded_text_that_lost_half_a_character_is_refused() -> None:
    pieces = ["é".encode()[:1], "é".encode()[1:], b" the"]
    assert prefix_match("é", pieces) == 1.0 and matched_tokens("é the", pieces) == 3
    assert prefix_match("e", pieces) == prefix_match("", pieces) == 0.0
    half = pieces[0].decode(errors="replace")
    with pytest.raises(UserError, match=r"lost bytes \(U\+FFFD .*; grade the bytes of its token"):
        prefix_match(half, pieces)
    assert prefix_match(pieces[0], pieces) == 1.0, "its bytes are right"
    assert prefix_match("\ufffd", ["\ufffd".encode()]) == 1.0, "a text may hold it"


few_bytes = st.text(alphabet="ab", max_size=6).map(str.encode)


@given(few_bytes, st.lists(st.text(alphabet="ab", max_size=2).map(str.encode), max_size=5))
def test_equals_brute_force(prediction: bytes, continuation: list[bytes]) -> None:
    joined = [b"".join(continuation[:k]) for k in range(1, len(continuation) + 1)]
    expected = joined.index(prediction) + 1 if prediction and prediction in joined else 0
    assert matched_tokens(prediction, continuation) == expected
    assert prefix_match(prediction, continuation) == float(expected > 0)


# ---- the other rewards --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "reward"),
    [
        ([b" the"], 1.0),
        ([b" the", b" cat"], 1.0),  # what follows is ignored
        ([b" th", b"e", b" cat"], 1.0),  # written in other pieces
        ([b" the end"], 0.0),  # right, but its first token is another one
        ([b" then"], 0.0),
        ([b" th"], 0.0),
        ([b" a"], 0.0),
        ([], 0.0),
    ],
)
def test_first_token(tokens: list[bytes], reward: float) -> None:
    assert first_token_match(tokens, CONTINUATION) == reward
    assert first_token_match(tokens, [b"", *CONTINUATION]) == reward


def test_first_token_of_nothing_is_no_match() -> None:
    assert first_token_match([b"a"], []) == first_token_match([], [b""]) == 0.0


def test_dense_stays_below_a_right_prediction() -> None:
    assert dense_reward(1.0, 1e-9) == 1.0
    assert dense_reward(0.0, 0.25) == 0.25
    assert dense_reward(0.0, 0.0) == 0.0
    assert dense_reward(0.0, 1.0) == DENSE_CEILING < 1.0


@pytest.mark.parametrize(
    ("prediction", "reward"),
    [
        (b"a", 1.0),
        (b"ab", 1.4),
        (b"abc", 1.6),
        (b"abcd", 1.7),
        (b"b", 0.0),
        (b"", 0.0),
        (None, 0.0),
    ],
)
def test_length_weighted(prediction: bytes | None, reward: float) -> None:
    continuation = [b"a", b"b", b"c", b"d"]
    assert length_weighted_match(prediction, continuation, bonus=0.8) == pytest.approx(reward)
    assert length_weighted_match(prediction, continuation, bonus=0.0) == float(reward > 0)


def test_the_length_bonus_is_bounded() -> None:
    assert 1.4999 < length_weighted_match(b"a" * 30, [b"a"] * 40, bonus=0.5) < 1.5


@pytest.mark.parametrize(
    ("continuation", "segment"),
    [
        ([b" the", b" end", b".", b" Then"], "the end."),
        ([b" is 3.5 cm", b" long. So"], "is 3.5 cm long."),
        ([b'he said "no!"', b" Then"], 'he said "no!"'),
        ([b"a title", b"\n", b"and text."], "a title"),
        ([b"\n\n", b"Next line.", b"\n"], "Next line."),
        ([b" no end"], "no end"),
        (["数学。楽".encode()], "数学。"),
        ([b"\xa9 cut. More"], "\ufffd cut."),
        ([b" \n"], ""),
        ([], ""),
    ],
)
def test_next_segment(continuation: list[bytes], segment: str) -> None:
    assert next_segment(continuation) == segment


def test_judges() -> None:
    assert exact_judge(prediction="ﬁne  Day\n", segment="Fine day") == 1.0
    assert exact_judge(prediction="Fine day.", segment="Fine day") == 0.0
    assert exact_judge(prediction=" ", segment=" ") == 0.0, "nothing is no match"
    # 2 · 7 common characters of 16: "the ", "nd."
    pair = {"prediction": "The and.", "segment": "the END."}
    assert fuzzy_judge(**pair, threshold=0.0) == 0.875
    assert fuzzy_judge(**pair, threshold=0.875) == 1.0
    assert fuzzy_judge(**pair, threshold=0.9) == 0.0
    assert fuzzy_judge(prediction="", segment="", threshold=0.0) == 0.0


def test_a_segment_without_a_prediction_is_not_judged() -> None:
    assert segment_reward(None, "the end.", exact_judge) == 0.0
    assert segment_reward(b" the end.", "the end.", exact_judge) == 1.0
    assert segment_reward(b"\xff the end.", "the end.", exact_judge) == 0.0


@given(st.data())
def test_the_predictions_tokens_join_to_it_however_it_is_cut(data: st.DataObject) -> None:
    text = data.draw(st.text(alphabet="a{}", max_size=4)).encode()
    completion = b"x\\boxed{y}</think>\n\\boxed{ok}\\boxed{" + text + b"} \n"
    prediction = extract_prediction(completion)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(completion) - 1))))
    ends = [0, *cuts, len(completion)]
    tokens = [completion[a:b] for a, b in pairwise(ends)]
    found = prediction_tokens(tokens, prediction)
    assert b"".join(piece for _, piece in found) == (prediction or b"")
    assert all(piece and piece in tokens[index] for index, piece in found)
    assert [index for index, _ in found] == sorted({index for index, _ in found})
