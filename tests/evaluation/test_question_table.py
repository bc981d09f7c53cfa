"""Questions to several models, without training."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from openrpt.cli.main import cli, main
from openrpt.config.loading import load_config
from openrpt.evaluation.instrument import Measured
from openrpt.evaluation.models import NamedModel
from openrpt.evaluation.questions.results import AnswerResult, difference_on, inside
from openrpt.evaluation.questions.table import question_parts, question_report
from openrpt.sheets import print_sheet
from tests.helpers.tiny_model import tiny_model_folder

SETTINGS = {
    "model.threads": 1,
    "model.device": "cpu",
    "prompt.instruction": "Box it.",
    "questions.heldout_fraction": 0.5,
    "answers.check": "exact",
    "finetune.question_tokens": 24,
    "finetune.think_budget": 2,
    "finetune.answer_budget": 4,
    "finetune.eval_questions": 12,
    "finetune.eval_samples": 2,
}


def result_of(rows: list[tuple[str, str, float]]) -> AnswerResult:
    ids, tasks, right = zip(*rows, strict=True)
    names = ("accuracy", "any_right", "reward", "closed", "tokens")
    columns = {name: np.array(right) for name in names}
    return AnswerResult(columns={"question_id": np.array(ids), "task": np.array(tasks)} | columns)


def test_parts_are_tasks_and_their_levels() -> None:
    a = result_of(
        [("1", "sum@10", 1), ("2", "sum@2", 0), ("3", "legs", 1), ("4", "sum@2", 1), ("5", "", 0)]
    )
    assert question_parts(a) == ["all", "legs", "sum", "sum@2", "sum@10"]
    assert inside(a, "sum").tolist() == [True, True, False, True, False]
    b = result_of([("4", "sum@2", 0), ("1", "sum@10", 1), ("9", "legs", 0)])
    found = difference_on(a, b, "accuracy", "sum")
    assert found.n == 2 and found.value == 0.5
    assert difference_on(a, b, "accuracy", "legs").n == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    tiny_model_folder(folder / "one")
    tiny_model_folder(folder / "two", seed=3)
    rows = [{"question": f"{n} + 1", "answer": n + 1} for n in range(30)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "sums.jsonl").write_text(text, encoding="utf-8")
    return folder


def command(folder: Path, *more: Any) -> list[str]:
    settings = SETTINGS | {"questions.path": folder / "sums.jsonl"}
    given = [str(part) for key, value in settings.items() for part in (f"--{key}", value)]
    return ["questions", *given, "--out", str(folder / "answers"), *map(str, more)]


def test_side_by_side_as_a_command(folder: Path) -> None:
    arguments = command(folder, folder / "one", folder / "two", "--run", folder / "none")
    shown = CliRunner().invoke(cli, arguments, env={"COLUMNS": "160"}, catch_exceptions=False)
    assert shown.exit_code == 0 and "mean@2" in shown.output and "pass@2" in shown.output
    document = json.loads((folder / "answers" / "questions.json").read_text(encoding="utf-8"))
    rows = {(row["measure"], row["model"]): row for row in document["rows"]}
    assert rows["mean@2", "one"]["n"] == 12 and rows["mean@2", "one"]["difference_value"] == 0
    assert document["models"]["two"]["evaluation_cost"]["flops"] > 0
    again = CliRunner().invoke(cli, arguments, env={"COLUMNS": "160"}, catch_exceptions=False)
    assert "one: has answered before" in again.output
    assert not (folder / "none").exists()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_has_a_row_a_part_and_model(width: int) -> None:
    """Every value with its interval, whole at any width; names are broken behind their signs."""
    rows = [(str(n), f"chain_sum@{1 + n % 2}", float(n % 3 == 0)) for n in range(40)]
    measured = [
        Measured(model=NamedModel(label=label, path=label, cost=None), result=result)
        for label, result in (
            ("start", result_of(rows)),
            ("trained-temperature=0.7-template=v0-of-a-long-name", result_of(rows)),
        )
    ]
    sheets = question_report(measured, load_config(overrides={"finetune.eval_samples": 2})).sheets
    assert [sheet.title for sheet in sheets] == [
        "right answers, mean@2, in %",
        "right answers, pass@2, in %",
        "",
    ]
    console = Console(width=width, record=True, file=io.StringIO())
    print_sheet(sheets[0], console)
    lines = [line for line in console.export_text().splitlines() if "│" in line]
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert text.count("35.0 ± 7.6") == 4
    assert text.count("+0.0 [−8.8, +8.8]") == text.count("+0.0 [−16.8, +16.8]") == 2
    assert "chain_sum@1 (n = 20)" in text and ("temperature=0.7-" in text or width == 120)


def test_what_it_refuses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*more: Any) -> str:
        with pytest.raises(SystemExit) as exit:
            main(command(folder, *more))
        assert exit.value.code == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    at = ["--run", folder / "none"]
    assert "no such model folder" in refused(folder / "absent", *at)
    assert "two models are called 'one'" in refused(folder / "one", folder / "one", *at)
    assert "lower finetune.question_tokens" in refused(
        folder / "one", *at, "--finetune.question_tokens", 400
    )
