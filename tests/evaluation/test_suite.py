"""One command for all end tasks: its table, its record, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from openrpt.cli.main import cli
from openrpt.config.loading import load_config
from openrpt.data.questions import Question
from openrpt.evaluation.end_tasks.suite import PARTS, SuiteLine, check_parts, type_means
from openrpt.evaluation.questions.families import difficulty_of
from openrpt.evaluation.records import read_models
from tests.helpers.tiny_model import tiny_model_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    tiny_model_folder(folder / "model", max_position_embeddings=1024)
    sums = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(40)]
    choices = [
        {"question": f"{n}?", "options": ["a", "b"], "answer": "A", "difficulty": "hard"}
        for n in range(3)
    ]
    for name, rows in (("sums", sums), ("choices", choices)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def arguments(folder: Path, run: str, parts: str) -> list[str]:
    return [
        "suite",
        str(folder / "model"),
        "--run",
        str(folder / run),
        "--suite.parts",
        parts,
        "--model.device",
        "cpu",
        "--model.threads",
        "1",
        "--coding.max_tokens",
        "8",
        "--zeroshot.tasks",
        f"supergpqa={folder}/choices.jsonl",
        "--zeroshot.think_budget",
        "2",
        "--questions.path",
        str(folder / "sums.jsonl"),
        "--answers.check",
        "exact",
        "--finetune.think_budget",
        "2",
        "--finetune.answer_budget",
        "4",
        "--finetune.eval_questions",
        "5",
        "--finetune.question_tokens",
        "64",
    ]


def invoked(given: list[str]) -> str:
    shown = CliRunner().invoke(cli, given, env={"COLUMNS": "160"})
    assert shown.exit_code == 0, shown.output
    return shown.output


def test_all_parts_in_one_table(folder):
    pytest.importorskip("lm_eval", reason="needs the extra 'lm-eval'")
    shown = invoked(arguments(folder, "all", "zeroshot,coding,reasoning"))
    for words in ("knowledge", "supergpqa", "think 2", "written, not run", "reasoning", "(4)"):
        assert words in shown, shown
    assert "by difficulty" in shown
    stored = read_models(folder / "all" / "suite.json")["model"]
    assert list(stored) == ["zeroshot", "coding", "reasoning"]
    assert stored["zeroshot"][0]["difficulties"]["hard"]["n"] == 3


def test_reasoning_is_not_asked_twice(folder):
    given = arguments(folder, "reasoning", "reasoning")
    invoked(given)
    stored = read_models(folder / "reasoning" / "reasoning.json")
    invoked(given)
    assert read_models(folder / "reasoning" / "reasoning.json") == stored  # its seconds, too
    invoked([*given, "--finetune.eval_questions", "2"])
    found = read_models(folder / "reasoning" / "reasoning.json")["model"][""]
    assert found["estimate"]["n"] == 2


def test_difficulty_as_reasoning_gym_states_it():
    def question(entry: dict[str, Any]) -> Question:
        return Question(
            question_id="x", text="?", answer="1", split="heldout", source="x:1", entry=entry
        )

    stated = {"metadata": {"difficulty": {"num_terms": 3, "num_digits": (1, 4)}}}
    assert difficulty_of(question(stated)) == "num_digits (1, 4), num_terms 3"
    assert difficulty_of(question({})) == ""


def test_means_count_every_task_the_same():
    def line(task: str, value: float, error: float, n: int) -> SuiteLine:
        estimate = {"value": value, "standard_error": error, "n": n}
        return SuiteLine(
            type="knowledge", task=task, mode="direct", measure="", estimate=estimate, cost={}
        )

    ((type_, mode, mean),) = type_means([line("a", 0.2, 0.03, 10), line("b", 0.6, 0.04, 90)])
    assert (type_, mode) == ("knowledge", "direct")
    assert mean["value"] == pytest.approx(0.4) and mean["n"] == 100
    assert mean["standard_error"] == pytest.approx(0.025)


def test_what_it_refuses():
    from openrpt.errors import UserError

    assert load_config().suite.parts == list(PARTS)
    for values, said in (
        ({"suite.parts": []}, "suite.parts is empty"),
        ({"zeroshot.tasks": ["mmul"]}, "nearest: 'mmlu'"),
        ({"suite.parts": ["coding"], "coding.path": "gone.jsonl"}, "no such file"),
        ({"suite.parts": ["reasoning"], "questions.path": "gone.jsonl"}, "no such file"),
    ):
        with pytest.raises(UserError, match=said):
            check_parts(load_config(overrides=values))
