"""Questions: read from files and generators, split, and refused where they can't be used."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openrpt.config.loading import load_config
from openrpt.config.questions import QuestionsConfig
from openrpt.data.gym_tasks import gym_scorer
from openrpt.data.questions import Question, QuestionCounts, read_questions
from openrpt.errors import UserError

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
        ({"question": "1?", "answer": None}, r":3: field 'answer' is not text but null"),
        ('{"question": "1?", "answer": NaN}', r":3: field 'answer' is not text but NaN"),
        ('{"question": NaN, "answer": 1}', r":3: field 'question' is not text but NaN"),
        ('{"question": "1?", "answer": -Infinity}', r":3: field 'answer' is not text but Infinity"),
        ('{"question": "1?", "answer": false}', r":3: field 'answer' is not text but bool"),
        ('{"question": "\\ud800", "answer": "1"}', r":3: half a surrogate pair"),
        ("{", r":3: broken JSON"),
    ],
)
def test_bad_lines_are_named(tmp_path, row, message):
    path = sums(tmp_path / "bad.jsonl", 2)
    path.write_text(path.read_text() + (row if isinstance(row, str) else json.dumps(row)))
    with pytest.raises(UserError, match=r"bad\.jsonl" + message):
        read(path)


def test_numbers_are_plain_digits(tmp_path):
    written = ["0", "18.0", "0.0000001", "1e22", "0.00002", "-2.5E-3"]
    lines = [f'{{"question": "{n}?", "answer": {n}}}' for n in written]
    found = read(
        write(
            tmp_path / "numbers.jsonl",
            *lines,
            *(f'{{"question": "x{i}", "answer": {i}}}' for i in range(30)),
        )
    )
    plain = ["0", "18.0", "0.0000001", "1" + "0" * 22, "0.00002", "-0.0025"]
    assert [q.answer for q in found[:6]] == plain
    rows = [{"question": f"{n}?", "answer": n} for n in [1e-07, 1e22, *map(float, range(30))]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "numbers.parquet")
    found = read(tmp_path / "numbers.parquet")
    assert [q.answer for q in found[:3]] == ["0.0000001", "1" + "0" * 22, "0.0"]
    rows = [{"question": "1?", "answer": 1.5}, {"question": "2?", "answer": float("nan")}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "numbers.parquet")
    with pytest.raises(UserError, match=r"numbers\.parquet:2: field 'answer' is not text but NaN"):
        read(tmp_path / "numbers.parquet")


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


def test_levels_are_the_curriculum_s():
    """At a level a task is that hard, and no easier ones are mixed in."""
    pytest.importorskip("reasoning_gym")
    found = read("reasoning-gym:chain_sum@0-2,leg_counting@1", generated=20)
    tasks = ["chain_sum@0", "chain_sum@1", "chain_sum@2", "leg_counting@1"]
    assert list(dict.fromkeys(q.task for q in found)) == tasks
    for level in range(3):
        texts = [q.text for q in found if q.task == f"chain_sum@{level}"]
        terms = {len(re.findall(r"\d+", text)) for text in texts}
        assert terms == {level + 2}  # its curriculum begins with two terms
    scored = [gym_scorer(q.task)(q.answer, q.entry) for q in found]
    assert scored == [1.0] * len(found)
    for path, message in {
        "chain_sum@40": "has the levels 0 to 10",
        "chain_sum@3-1": "has the levels 0 to 10",
        "chain_sum@easy": "write TASK, TASK@LEVEL",
    }.items():
        with pytest.raises(UserError, match=message):
            read(f"reasoning-gym:{path}")


def test_tasks_that_cannot_be_had():
    pytest.importorskip("reasoning_gym")
    with pytest.raises(UserError, match="no task 'chain_sums'; nearest: 'chain_sum'"):
        read("reasoning-gym:leg_counting,chain_sums")
    for task in ("countdown", "spiral_matrix"):
        with pytest.raises(UserError, match="as Python code"):
            read(f"reasoning-gym:{task}")
    with pytest.raises(UserError, match="by its name alone"):
        read("reasoning-gym:composite")
    with pytest.raises(UserError, match="calls every answer right"):
        read("reasoning-gym:game_of_life_halting", generated=2)


def test_configuration_is_checked():
    with pytest.raises(UserError, match="must be below 1"):
        load_config(overrides={"questions.heldout_fraction": 0.95})
    with pytest.raises(UserError, match="must not be empty"):
        load_config(overrides={"answers.opening": ""})
