"""Positions by rule: what precedes them, their class, a field of offsets."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openrpt.config.loading import validate_config
from openrpt.config.prompt import SelectionConfig
from openrpt.data.places import token_at, token_starts
from openrpt.data.positions import ScoredDocument, Window
from openrpt.data.scored import load_scored
from openrpt.data.selection import eligible_positions
from openrpt.data.token_classes import computed_tokens
from openrpt.data.tokens import encode_document
from openrpt.data.training_work import take_work
from openrpt.errors import UserError
from openrpt.parquet import read_table, write_table
from openrpt.runs.run import Run
from tests.helpers.tiny import byte_level_tokenizer, sentencepiece_tokenizer
from tests.helpers.tiny_model import tiny_run

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


# From a corpus to the positions of a step


def sums_run(folder: Path, **options: Any) -> Run:
    """A scored corpus of sums, each with the places of its last word."""
    texts = [f"Day {n}: Tom had {n} * 12 = {n * 12} pens, said he." for n in range(11, 23)]
    rows = [{"text": text, "last": [text.index("he.")]} for text in texts]
    path = folder / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given = {"corpus__path": str(path), "corpus__offsets": "last", "corpus__min_tokens": 2}
    return tiny_run(folder, selection__strategy="random", **(given | options))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("class:computed", r"\d{3}$"), ("offsets", "he$"), ("before:, ?", "said")],
)
def test_a_step_takes_positions_of_the_rule_alone(tmp_path: Path, rule: str, expected: str) -> None:
    run = sums_run(tmp_path, selection__where=rule)
    corpus = load_scored(run.scored)
    supply = take_work(corpus, run.config, cursor=0, count=4, purpose="test")
    taken = 0
    for _ in range(12):
        _, work = next(supply)
        text = work.document.text.encode()
        for position in work.positions:
            start = int(work.document.byte_offsets[position.index])
            word = re.match(r"\s*(\w+)", text[start:].decode())
            assert word is not None and re.match(expected, word[1])
            taken += 1
    assert taken >= 12


def test_a_rule_that_nothing_passes(tmp_path: Path) -> None:
    run = sums_run(tmp_path, selection__where="before:never said")
    supply = take_work(load_scored(run.scored), run.config, cursor=0, count=4, purpose="test")
    with pytest.raises(UserError, match=r"and selection\.where = 'before:never said' in any of"):
        next(supply)


def test_scores_without_offsets_can_still_be_read(tmp_path: Path) -> None:
    run = sums_run(tmp_path)
    path = run.scored / "documents-00000.parquet"
    write_table(path, read_table(path).drop_columns(["offsets", "kind"]))
    corpus = load_scored(run.scored)
    assert all(corpus.document(name).offsets == () for name in corpus.ids("train"))
