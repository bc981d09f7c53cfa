"""Positions by rule: what precedes them, their class, a field of offsets."""

import numpy as np
import pytest

from openrpt.config.loading import validate_config
from openrpt.config.sections import SelectionConfig
from openrpt.data.places import token_at, token_starts
from openrpt.data.positions import ScoredDocument, Window, eligible_positions
from openrpt.data.token_classes import computed_tokens
from openrpt.data.tokens import encode_document
from openrpt.errors import UserError
from tests.helpers.tiny import byte_level_tokenizer, sentencepiece_tokenizer

TEXT = "Tom had 12 * 13 = 156 pens, then 156 - 6 = $150. Ça fait 3 + 4 = 7, non?"


def document(text: str = TEXT, offsets: tuple[int, ...] = ()) -> ScoredDocument:
    """Scored by nobody, in the tokens of a byte-level tokenizer."""
    ids, pieces = encode_document(byte_level_tokenizer(), text)
    unknown = np.ones(len(ids), np.float32)
    return ScoredDocument(
        document_id="d",
        key="k",
        split="train",
        source="test:1",
        text=text,
        token_ids=np.array(ids),
        negative_log_likelihood=unknown,
        entropy=unknown,
        entropy_top16=unknown,
        ntp_token_id=np.full(len(ids), -1),
        ntp_correct=np.full(len(ids), False),
        byte_offsets=token_starts(pieces),
        offsets=offsets,
    )


def allowed(one: ScoredDocument, rule: str) -> list[str]:
    """What stands at the positions that pass, each up to the next white space."""
    config = SelectionConfig(strategy="random", where=rule)
    window = Window(start=0, end=one.num_tokens, first=1)
    data = one.text.encode()
    starts = one.byte_offsets[eligible_positions(one, config, window=window)].tolist()
    return [data[start:].split()[0].decode(errors="replace") for start in starts]


def test_no_rule_allows_all() -> None:
    assert len(allowed(document(), "")) == document().num_tokens - 1


def test_computed_numbers() -> None:
    found = allowed(document(), "class:computed")
    assert [text.strip("$.,") for text in found] == ["156", "150", "7"]


@pytest.mark.parametrize("tokenizer", [byte_level_tokenizer(), sentencepiece_tokenizer()])
def test_the_first_token_of_a_number_in_any_tokens(tokenizer) -> None:
    _, pieces = encode_document(tokenizer, TEXT)
    starts = token_starts(pieces)
    data = TEXT.encode()
    found = [int(starts[place]) for place in computed_tokens(TEXT, starts)]
    after = [data[start:].decode().lstrip(" $") for start in found]
    assert [text[:1] for text in after] == ["1", "1", "7"] and after[0].startswith("156 pens")


def test_what_precedes() -> None:
    one = document()
    assert allowed(one, r"before:[^*]\* ?") and allowed(one, r"before:\bno such") == []
    assert all(text[0] in "1$7" for text in allowed(one, r"before:= "))
    # Anchored at the position, and blind beyond 256 bytes.
    far = document("x" + " y" * 300 + " 5")
    assert allowed(far, "before:^x.*") and len(allowed(far, "before:^x.*")) < 256


def test_a_class_of_tokens() -> None:
    assert set(allowed(document(), "class:operator")) <= {"*", "=", "-", "+"}


def test_offsets_of_a_field() -> None:
    at = TEXT.encode().index(b"150")
    inside = TEXT.encode().index(b"pens") + 2
    assert allowed(document(offsets=(at,)), "offsets")[0].lstrip("$").startswith("150")
    assert len(allowed(document(offsets=(inside,)), "offsets")) <= 1  # none, or its own token


def test_the_rule_comes_on_top_of_the_strategy() -> None:
    one = document()
    config = SelectionConfig(strategy="entropy", min_entropy=2.0, where="class:computed")
    window = Window(start=0, end=one.num_tokens, first=1)
    assert eligible_positions(one, config, window=window).tolist() == []


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("computed", "a rule is before:REGEX, class:NAME or offsets"),
        ("class:sum", "the classes are word start, .*, computed"),
        ("before:(", "no regular expression: "),
        ("before:", "needs a regular expression"),
        ("offsets", "needs corpus.offsets"),
    ],
)
def test_rules_that_are_none(rule: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        validate_config({"selection": {"where": rule}}, source="test")
    assert "\n" not in str(caught.value)


def test_the_token_of_a_byte() -> None:
    text = b" 24 = $ 5"
    starts = np.array([0, 3, 5, 8])  # " 24", " =", " $ ", "5"
    assert [token_at(n, starts, text) for n in range(9)] == [0, 0, None, 1, 1, 2, 2, 2, 3]
    assert token_at(9, starts, text) is None and token_at(-1, starts, text) is None
