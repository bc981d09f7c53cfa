"""Questions: read from files and generators, split, and refused where they can't be used."""

import json
from pathlib import Path

import pytest

from openrpt.config import QuestionsConfig, load_config
from openrpt.errors import UserError
from openrpt.questions import Question, QuestionCounts, read_questions

TEMPLATE = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi"


def write(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def sums(path: Path, count: int = 40) -> Path:
    return write(path, *({"question": f"{n} + 1?", "answer": n + 1} for n in range(count)))


def read(path: Path | str, counts: QuestionCounts | None = None, **values) -> list[Question]:
    config = QuestionsConfig(path=str(path), **values)
    return read_questions(config, counts or QuestionCounts())


def test_fields_and_splits(tmp_path):
    found = read(sums(tmp_path / "sums.jsonl"), heldout_fraction=0.3, development_fraction=0.2)
    assert [(q.text, q.answer) for q in found[:2]] == [("0 + 1?", "1"), ("1 + 1?", "2")]
    assert found[1].source == "sums.jsonl:2" and len({q.question_id for q in found}) == 40
    shares = {split: sum(q.split == split for q in found) for split in ("train", "heldout")}
    assert 10 < shares["train"] < 30 and 5 < shares["heldout"] < 20
    # A question's side depends on its text alone.
    fewer = read(sums(tmp_path / "fewer.jsonl", 20), heldout_fraction=0.3, development_fraction=0.2)
    assert [q.split for q in fewer] == [q.split for q in found[:20]]
    limited = read(tmp_path / "sums.jsonl", limit=20, heldout_fraction=0.3)
    assert len(limited) == 20


def test_the_end_of_a_worked_answer(tmp_path):
    rows = [{"q": f"{n}?", "a": f"<<{n}>> #### x #### {n} "} for n in range(20)]
    path = write(tmp_path / "worked.jsonl", *rows)
    found = read(path, question="q", answer="a", answer_after="####")
    assert [q.answer for q in found[:3]] == ["0", "1", "2"]
    write(path, {"q": "1?", "a": "1"})
    with pytest.raises(UserError, match=r"worked\.jsonl:1: field 'a' has no '####'"):
        read(path, question="q", answer="a", answer_after="####")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "1?"}, r":3: field 'answer' is missing; there are: question"),
        ({"question": "1?", "answer": " "}, r":3: field 'answer' is blank"),
        ({"question": "", "answer": "1"}, r":3: field 'question' is blank"),
        ({"question": "1?", "answer": ["1"]}, r":3: field 'answer' is not text but list"),
        ({"question": "1?", "answer": None}, r":3: field 'answer' is not text but NoneType"),
        ('{"question": "\\ud800", "answer": "1"}', r":3: half a surrogate pair"),
        ("{", r":3: broken JSON"),
    ],
)
def test_bad_lines_are_named(tmp_path, row, message):
    path = sums(tmp_path / "bad.jsonl", 2)
    path.write_text(path.read_text() + (row if isinstance(row, str) else json.dumps(row)))
    with pytest.raises(UserError, match=r"bad\.jsonl" + message):
        read(path)


def test_a_file_without_questions(tmp_path):
    with pytest.raises(UserError, match="no questions"):
        read(write(tmp_path / "blank.jsonl", ""))
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match="none of 1 questions is on the"):
        read(sums(tmp_path / "one.jsonl", 1))


def test_no_question_twice(tmp_path):
    row = {"question": "0 + 1?", "answer": "1"}
    path = sums(tmp_path / "sums.jsonl")
    path.write_text(path.read_text() + json.dumps(row) + "\n")
    counts = QuestionCounts()
    assert len(read(path, counts)) == 40 and counts.duplicates == 1


def test_near_duplicates_stand_on_one_side(tmp_path):
    rows = [{"question": f"{TEMPLATE} {n}", "answer": n} for n in range(30)]
    path = write(tmp_path / "template.jsonl", *rows)
    with pytest.raises(UserError, match=r"--no-questions\.near_duplicates"):
        read(path)
    found = read(path, near_duplicates=False)
    assert len({q.split for q in found}) == 3


def test_generated_questions_are_seeded():
    pytest.importorskip("reasoning_gym")
    config = QuestionsConfig(path="reasoning-gym:chain_sum, leg_counting", generated=30)
    first = read_questions(config, QuestionCounts(), seed=1)
    assert first == read_questions(config, QuestionCounts(), seed=1)
    assert first != read_questions(config, QuestionCounts(), seed=2)
    assert {q.task for q in first} == {"chain_sum", "leg_counting"}
    assert {q.split for q in first} == {"train", "development", "heldout"}
    assert first[0].entry["answer"] == first[0].answer


def test_tasks_that_cannot_be_had():
    pytest.importorskip("reasoning_gym")
    with pytest.raises(UserError, match="no task 'chain_sums'; nearest: 'chain_sum'"):
        read("reasoning-gym:leg_counting,chain_sums")
    for task in ("countdown", "spiral_matrix"):
        with pytest.raises(UserError, match="as Python code"):
            read(f"reasoning-gym:{task}")


def test_configuration_is_checked():
    with pytest.raises(UserError, match="must be below 1"):
        load_config(overrides={"questions.heldout_fraction": 0.95})
    with pytest.raises(UserError, match="must not be empty"):
        load_config(overrides={"answers.opening": ""})
