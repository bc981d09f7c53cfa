"""Questions of end tasks: every public format, what a text's answer is, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openrpt.errors import UserError
from openrpt.evaluation.end_tasks import grading as zero_shot_answers
from openrpt.evaluation.end_tasks.grading import (
    grade_choices,
    grade_letters,
    grade_short,
    grade_short_direct,
)
from openrpt.evaluation.end_tasks.rows import choice_row, question_text, read_rows, short_row
from openrpt.evaluation.end_tasks.stated_choice import OUTSIDE, extract_choice
from tests.helpers.choice_phrasings import PHRASINGS, TEN

OPTIONS = ["red", "green", "blue"]

# The same question as each public set writes it.
FORMATS: dict[str, dict[str, Any]] = {
    "mmlu_pro": {"options": OPTIONS, "answer": "B", "answer_index": 1, "category": "law"},
    "supergpqa": {
        "options": OPTIONS,
        "answer": "green",
        "answer_letter": "B",
        "discipline": "law",
        "difficulty": "hard",
    },
    "mmlu on the Hub": {"choices": OPTIONS, "answer": 1, "subject": "law"},
    "mmlu by letters": {"options": OPTIONS, "answer": "B", "subject": "law"},
    "arc on the Hub": {
        "choices": {"text": OPTIONS, "label": ["1", "2", "3"]},
        "answerKey": "2",
        "category": "law",
    },
    "by the option's text": {"options": OPTIONS, "answer": "green", "category": "law"},
}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", FORMATS)
def test_formats_of_choices(name):
    row = choice_row({"question": "Grass is "} | FORMATS[name], "x.jsonl:1")
    assert (row["question"], row["options"], row["answer"]) == ("Grass is", OPTIONS, "B")
    assert row["category"] == "law"
    assert row["difficulty"] == ("hard" if name == "supergpqa" else "")
    assert question_text(row) == "Grass is\nA. red\nB. green\nC. blue\n"


def test_a_question_within_an_instruction():
    text = (
        "Please choose the correct answer to the question: Grass is\n\nAnswer1: red Answer2: green"
        " Answer3: blue\n\nAnswer format: answer1/answer2/answer3"
    )
    row = choice_row({"instruction": text, "answer": "answer2"}, "x.jsonl:1")
    assert (row["question"], row["options"], row["answer"]) == ("Grass is", OPTIONS, "B")


def test_formats_of_short_answers():
    gsm = short_row({"question": "1 + 1?", "answer": "It is <<1+1=2>>2.\n#### 2"}, "x:1")
    assert gsm["answer"] == "2" and gsm["options"] == []
    maths = {"problem": "1 / 2?", "solution": "So \\boxed{\\frac{1}{2}}.", "level": "Level 3"}
    row = short_row(maths | {"type": "Algebra"}, "x:1")
    assert (row["answer"], row["category"], row["difficulty"]) == (
        "\\frac{1}{2}",
        "Algebra",
        "Level 3",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\\boxed{B}", "B"),
        ("\\boxed{ (b) }", "B"),
        ("\\boxed{\\text{B}}", "B"),
        ("\\boxed{B. green}", "B"),
        ("\\boxed{$C$} no, \\boxed{B}", "B"),
        ("\\boxed{green}", "B"),
        ("B} and more", None),  # the box was never opened
        ("\\boxed{D}", OUTSIDE),
        ("\\boxed{yellow}", OUTSIDE),
        ("\\boxed{A and B}", OUTSIDE),
        ("\\boxed{AB}", OUTSIDE),
        ("\\boxed{B, green}", "B"),
        ("\\boxed{green (B)}", "B"),
        ("\\boxed{red (B)}", OUTSIDE),
        ("\\boxed{option b}", "B"),
        ("\\boxed{\\displaystyle B}", "B"),
        ("Ans: B", "B"),
        ("Answer：B", "B"),
        ("<answer>B</answer>", "B"),
        ("A looks good, but no. Correct: B", "B"),
        ("Choice: B", "B"),
        ("The letter is B.", "B"),
        ("\\boxed{A", None),
        ("The answer is (B).", "B"),
        ("The answer is **B**, not A.", "B"),
        ("Answer: A. Wait. Answer: B", "B"),
        ("The answer is E", OUTSIDE),
        ("B. green", "B"),
        ("(B)", "B"),
        ("B", "B"),
        ("A rose is red", None),
        ("I think that it is hard", None),
        ("", None),
        ("the answer is A </think> \\boxed{B}", "B"),
        ("the answer is A </think> hm", None),
    ],
)
def test_what_a_text_says(text, said):
    assert extract_choice(text, OPTIONS) == said


@pytest.mark.parametrize(("text", "said"), PHRASINGS)
def test_how_letters_are_stated(text, said):
    assert extract_choice(text, TEN) == said


def test_options_that_are_numbers():
    assert extract_choice("\\boxed{5.0}", ["3", "5", "7"]) == "B"
    assert extract_choice("\\boxed{5.0}", ["5", "5.0", "7"]) == "B"  # its own text


def test_options_that_speak_of_letters():
    options = ["(B) is right", "So C.", ".8 lb", "8 lb", r"-\frac{1}{256}"]
    for letter, option in zip("ABCDE", options, strict=True):
        for text in (option, f"\\boxed{{{option}}}", f"\\boxed{{\\text{{{letter}: {option}}}}}"):
            assert extract_choice(text, options) == letter


def test_options_that_are_letters():
    assert extract_choice("\\boxed{x}", ["y", "x", "b"]) == "B"  # its own text
    assert extract_choice("\\boxed{b}", ["y", "x", "b"]) == "C"
    assert extract_choice("\\boxed{B}", ["y", "x", "b"]) == "B"  # its letter


def test_grading():
    row = choice_row({"question": "?", "options": OPTIONS, "answer": "B"}, "x:1")
    assert grade_letters(row, [(-2.0, False), (-1.0, True), (-3.0, False)])["accuracy"] == 1
    found = grade_choices(row, [["\\boxed{B}", "\\boxed{A}", "\\boxed{E}", "well"]])
    assert found == {"accuracy": 0.25, "any_right": 1.0, "outside": 0.25, "unanswered": 0.25}
    found = grade_choices(row, [["\\boxed{E}", "\\boxed{D}", "\\boxed{F}", "well"]])
    assert found == {"accuracy": 0.0, "any_right": 0.0, "outside": 0.75, "unanswered": 0.25}
    pytest.importorskip("math_verify")
    half = short_row({"question": "?", "answer": "\\frac{1}{2}"}, "x:1")
    assert grade_short(half, [["So \\boxed{0.5}.", "0.5"]])["accuracy"] == 0.5
    assert grade_short_direct(half, [["0.5}"]])["accuracy"] == 1
    assert grade_short(half, [["0.5"]])["unanswered"] == 1


def test_the_same_few_of_each_category(tmp_path):
    rows = [
        {"question": f"{n}?", "options": OPTIONS, "answer": "A", "category": f"c{n % 3}"}
        for n in range(30)
    ]
    path = write(tmp_path / "q.jsonl", [*rows, rows[0]])  # once more: counts once
    assert len(read_rows(path, "choice")) == 30
    few = read_rows(path, "choice", per_category=4, seed=1)
    assert [sum(row["category"] == f"c{c}" for row in few) for c in range(3)] == [4, 4, 4]
    assert few == read_rows(path, "choice", per_category=4, seed=1)
    assert few != read_rows(path, "choice", per_category=4, seed=2)
    assert [row["question"] for row in few] != [f"{n}?" for n in range(12)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    assert read_rows(str(tmp_path / "q.parquet"), "choice", per_category=4, seed=1) == few


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("choice", {"question": "?", "options": OPTIONS}, r"q\.jsonl:2: no answer"),
    ("choice", {"question": "?", "options": OPTIONS, "answer": ""}, r"q\.jsonl:2: no answer"),
    ("choice", {"question": "?", "answer": "A"}, r"q\.jsonl:2: 0 options"),
    ("choice", {"question": "?", "options": [], "answer": "A"}, r"q\.jsonl:2: 0 options"),
    ("choice", {"question": "?", "options": OPTIONS, "answer": "D"}, r"'D' is none of its 3"),
    ("choice", {"options": OPTIONS, "answer": "A"}, r"q\.jsonl:2: a question is missing"),
    ("short", {"question": "?"}, r"q\.jsonl:2: no 'answer'"),
    ("short", {"question": "?", "solution": "no box"}, r"q\.jsonl:2: no 'answer'"),
]


@pytest.mark.parametrize(("kind", "fields", "said"), REFUSED)
def test_what_is_refused(tmp_path, kind, fields, said):
    good = {"question": "!", "options": OPTIONS, "answer": "A"}
    path = write(tmp_path / "q.jsonl", [good, fields])
    with pytest.raises(UserError, match=said):
        read_rows(path, kind)
    with pytest.raises(UserError, match="no such file or folder"):
        read_rows(str(tmp_path / "absent.jsonl"), kind)


def test_math_verify_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    zero_shot_answers.math_checker.cache_clear()
    with pytest.raises(UserError, match="needs math_verify"):
        zero_shot_answers.math_checker()


ARC = {"text": ["w", "x", "y", "z"], "label": ["1", "2", "3", "4"]}
KEYS: list[tuple[Any, Any, str]] = [
    ("B", OPTIONS, "B"),
    ("b", OPTIONS, "B"),
    ("(B)", OPTIONS, "B"),
    ("[B]", OPTIONS, "B"),
    ("OPTION B", OPTIONS, "B"),
    ("(b)", OPTIONS, "B"),
    ("B.", OPTIONS, "B"),
    ("B)", OPTIONS, "B"),
    ("B. green", OPTIONS, "B"),
    ("(B) green", OPTIONS, "B"),
    ("option B", OPTIONS, "B"),
    ("answer2", OPTIONS, "B"),
    (" green ", OPTIONS, "B"),
    (0, OPTIONS, "A"),
    (1, OPTIONS, "B"),
    (1.0, OPTIONS, "B"),
    ("1", OPTIONS, "B"),
    ("1.0", OPTIONS, "B"),
    ("2", ARC, "B"),
    (2, ARC, "B"),
    (2.0, ARC, "B"),
    (4, ARC, "D"),
    ("B", ARC, "B"),
    ("x", ARC, "B"),
    ("b", {"text": ["w", "x"], "label": ["B", "A"]}, "A"),  # by its label
    (1, {"text": ["w", "x"], "label": ["A", "B"]}, "B"),
    (1, ["0", "1", "2", "3"], "B"),  # MMLU's own: text, and an index
    (1, ["1", "2", "3", "4"], "B"),
    ("2", ["1", "2", "3", "4"], "B"),  # text is compared with text first
    (20, ["10", "20"], "B"),
    (4, [2, 4, 6], "B"),
    (1, [0, 1, 2], "B"),
]


@pytest.mark.parametrize(("key", "options", "letter"), KEYS)
def test_how_the_right_option_is_written(key, options, letter):
    fields = {"question": "?", "choices": options, "answer": key}
    assert choice_row(fields, "x:1")["answer"] == letter


@pytest.mark.parametrize(
    ("key", "options", "said"),
    [
        (3, OPTIONS, "is none of its 3"),
        (-1, OPTIONS, "is none of its 3"),
        (1.5, OPTIONS, "is none of its 3"),
        ("D", OPTIONS, "is none of its 3"),
        ("d", OPTIONS, "is none of its 3"),
        ("B. blue", OPTIONS, "is none of its 3"),
        ("answer0", OPTIONS, "is none of its 3"),
        ("answer4", OPTIONS, "is none of its 3"),
        (0, ARC, "is none of its 4"),
        (True, OPTIONS, "'answer' is not text but bool"),
        (float("nan"), OPTIONS, "'answer' is not text but NaN"),
        (float("inf"), OPTIONS, "'answer' is not text but Infinity"),
        (["B"], OPTIONS, "'answer' is not text but list"),
        (None, OPTIONS, "no answer"),
        ("B", ["C", "B2", "B"], "is option B or option C; give answer_index"),
        ("b", ["a", "c", "b"], "is option B or option C; give answer_index"),
        (3, [2, 3, 4, 5], "is option B or option D; give answer_index"),
        (0, ["red", None], "'options' is not text but null"),
        (0, ["red", float("nan")], "'options' is not text but NaN"),
        (0, "red", "0 options"),
    ],
)
def test_a_right_option_that_is_none_or_several(key, options, said):
    with pytest.raises(UserError, match=rf"x:1: .*{said}"):
        choice_row({"question": "?", "options": options, "answer": key}, "x:1")


def test_an_index_is_an_index():
    """MMLU-Pro has both, and options that are letters."""
    fields = {"question": "?", "options": ["C", "D", "B"], "answer": "B", "answer_index": 1}
    assert choice_row(fields, "x:1")["answer"] == "B"
    assert choice_row(fields | {"choices": ARC}, "x:1")["answer"] == "B"


@pytest.mark.parametrize(
    ("stated", "answer"),
    [
        (0, "0"),
        ("0", "0"),
        (0.0, "0.0"),
        (0.0000001, "0.0000001"),
        (1e22, "10000000000000000000000"),
        ("", "7"),  # a blank one is none: the solution's
        (None, "7"),
        ("so it is\n#### 0", "0"),
    ],
)
def test_what_a_short_answer_is(tmp_path, stated, answer):
    fields = {"question": "1 - 1?", "answer": stated, "solution": r"So \boxed{7}."}
    path = write(tmp_path / "q.jsonl", [fields])
    assert [row["answer"] for row in read_rows(path, "short")] == [answer]


@pytest.mark.parametrize("field", ["question", "answer"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), False, True, ["7"]])
def test_what_is_no_text(tmp_path, field, value):
    fields = {"question": "1 - 1?", "answer": "0", "solution": r"So \boxed{7}."}
    path = write(tmp_path / "q.jsonl", [fields, fields | {field: value}])
    with pytest.raises(UserError, match=rf"q\.jsonl:2: field '{field}' is not text but"):
        read_rows(path, "short")
    rows = [{"question": "1?", "answer": 1.5}, {"question": "2?", "answer": float("nan")}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    with pytest.raises(UserError, match=r"q\.parquet:2: field 'answer' is not text but NaN"):
        read_rows(str(tmp_path / "q.parquet"), "short")


def test_a_missing_category_is_none():
    fields = {"question": "?", "answer": 1, "category": float("nan"), "subject": "law"}
    assert short_row(fields, "x:1")["category"] == "law"
