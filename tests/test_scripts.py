"""The scripts that put measured numbers into the documentation."""

import ast
import importlib
import json
import pkgutil
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from openrpt.evaluation.next_token.results import EvaluationResult
from openrpt.evaluation.records import read_evaluation, record, result_path
from openrpt.experiments.demo_tables import EVERYWHERE, demo_sheets, difference_cell, verdict
from openrpt.runs.run import Run
from openrpt.sheets import share
from tests.helpers.report_run import evaluation_result, fill, made_up_run

ROOT = Path(__file__).parent.parent


def test_what_is_made_stands_between_marks() -> None:
    replaced = runpy.run_path(str(ROOT / "scripts" / "marked.py"))["replaced"]
    assert replaced("a <!-- x -->old<!-- /x --> b", "x", "new") == "a <!-- x -->new<!-- /x --> b"
    page = "  # x\n  - old\n  # /x\n"
    assert replaced(page, "x", "  - new\n  ", yaml=True) == "  # x\n  - new\n  # /x\n"
    for text in ("no mark", "<!-- x -->", "<!-- x --><!-- /x --><!-- x --><!-- /x -->"):
        with pytest.raises(ValueError, match="once each"):
            replaced(text, "x", "new")


@pytest.mark.parametrize("folder", ["benchmarks", "scripts", "recipes"])
def test_what_is_imported_from_the_package_is_there(folder: str) -> None:
    """Most of them run for minutes, so nothing else notices a name that has moved."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("openrpt."):
                module = importlib.import_module(str(node.module))
                submodules = {found.name for found in pkgutil.iter_modules(_folder(module))}
                names = {name.name for name in node.names} - submodules
                assert [name for name in names if not hasattr(module, name)] == [], path


def _folder(module: ModuleType) -> list[str]:
    return [*module.__path__] if module.__spec__.submodule_search_locations else []


def demo(folder: Path) -> Run:
    """A finished demo: whole numbers right at 0, 40 and 80 % by reasoning, at 30 % without."""
    run = fill(made_up_run(folder))
    (run.path / "demo.json").write_text('{"seconds": 840.0}')
    for label, rate in {"start": 0.0, "warmup": 0.4, "trained": 0.8, EVERYWHERE: 0.3}.items():
        result, draws = evaluation_result(rate), np.random.default_rng(1).random(24 * 12)
        for name in ("first_token", "span"):
            result.columns[name] = (draws < rate).astype(float)
            result.columns[f"{name}_ntp"] = (draws < 0.3).astype(float)
        cost = {"flops": 1e12, "seconds": 60.0}
        record(run, label, result, model="tiny", split="heldout", cost=cost)
    return run


def test_the_demo_table_is_what_the_run_measured(tmp_path: Path) -> None:
    run = demo(tmp_path / "demo")
    table = runpy.run_path(str(ROOT / "scripts" / "make_demo_table.py"))["demo_table"](run)
    right, ahead, everywhere = (
        {line.split(" | ")[0]: line.split(" | ")[1:] for line in part.splitlines()}
        for part in table.split("**")[2::2]
    )
    found = read_evaluation(run.evaluation)["evaluations"]["trained"]["summary"]["span"]["all"]
    assert right["| reasoning, reinforced"][1] == share(found)
    standard = [right[f"| standard prediction, {name} model"] for name in ("start", "trained")]
    assert standard[0] == standard[1]
    assert ahead["| reasoning, given thoughts"][1].startswith("+39")  # points
    assert everywhere["| whole word or number"][-1].startswith("+0.0")
    assert "not distinguishable" not in table
    assert "points more whole numbers right" in table
    assert "Cost: 14.0 minutes" in table and "3 steps of warmup and 6 of reinf" in table


def test_the_demo_table_has_the_control_that_was_run(tmp_path: Path) -> None:
    run = demo(tmp_path / "demo")
    assert not any("next-token" in row[0] for sheet in demo_sheets(run) for row in sheet.rows)
    trained = read_evaluation(run.evaluation)["evaluations"]["trained"]
    result = EvaluationResult.load(result_path(run, "trained"))
    columns = result.columns | {"span_ntp": result.columns["span"]}  # as good as reasoning
    control = replace(result, columns=columns)
    record(run, "ntp-flops", control, model="tiny", split="heldout", cost=trained["cost"])
    right, ahead, _ = demo_sheets(run)
    (own,) = [row for row in right.rows if "next-token" in row[0]]
    assert own[2] == right.rows[-1][2]
    (minus,) = [row for row in ahead.rows if "next-token" in row[0]]
    assert minus[2].startswith("+0.0 [") and minus[1] == ahead.rows[0][1]


def test_what_is_not_distinguishable_says_so() -> None:
    estimate = {"value": 0.012, "low": -0.01, "high": 0.034, "distinguishable": False}
    assert difference_cell(estimate) == "+1.2 [−1.0, +3.4], not distinguishable"


def test_a_demo_that_shows_nothing_says_so(tmp_path: Path) -> None:
    run = demo(tmp_path / "demo")
    evaluations = {"trained": 0.3, "warmup": 0.3}
    for label, rate in evaluations.items():
        record(run, label, evaluation_result(rate), model="tiny", split="heldout", cost={})
    assert "can't be told apart" in verdict(run)
    assert demo_sheets(run)[1].rows[0][2].endswith("not distinguishable")


def test_the_picture_of_the_packages_is_that_of_the_imports() -> None:
    drawn = runpy.run_path(str(ROOT / "scripts" / "draw_packages.py"))
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert drawn["updated"](text) == text


def test_the_api_page_is_that_of_the_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")  # as python scripts/make_api_docs.py does
    made = runpy.run_path(str(ROOT / "scripts" / "make_api_docs.py"))
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = text.split("<!-- names -->")[1].split("<!-- /names -->")[0]
    assert names == made["render"](), "python scripts/make_api_docs.py"


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft
def test_the_page_on_scale_has_the_estimates_of_now() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "make_scale_docs.py"))
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert made["updated"](text) == text, "python scripts/make_scale_docs.py"


def test_a_simulated_corpus_is_walked_alike_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")  # as python scripts/simulate_scale.py does
    simulated = runpy.run_path(str(ROOT / "scripts" / "simulate_scale.py"))
    folder = tmp_path / "scores"
    found = {
        name: simulated["part"](name, folder, 150_000, 4)
        for name in ("write", "train:pass_rate", "resume:pass_rate")
    }
    assert found["write"]["shards"] == 2 and found["write"]["positions"] >= 150_000
    assert found["write"]["bytes_per_token"]["all"] < 20
    rest, resumed = found["train:pass_rate"]["rest"], found["resume:pass_rate"]
    assert rest["places"] == resumed["places"] and rest["steps"] == resumed["steps"] == 2
    assert rest["positions"] > 400


def test_the_benchmarks_tables_are_those_of_the_results() -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "table.py")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    table = text.split("<!-- benchmarks -->")[1].split("<!-- /benchmarks -->")[0].strip()
    assert table == made.strip(), "python benchmarks/table.py --write"


def test_the_table_of_frameworks_is_that_of_what_was_recorded() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "environments.py"))
    text = (ROOT / "docs" / "results" / "README.md").read_text(encoding="utf-8")
    assert made["checked_table"]() in text
    assert set(made["SHOWN"]) == set(made["ENVIRONMENTS"])


def test_a_notebook_is_a_page_of_the_site() -> None:
    """Its sentences, its code, and each result that it holds: numbers, charts."""
    page = runpy.run_path(str(ROOT / "scripts" / "notebook_page.py"))["notebook_page"]
    for notebook in sorted((ROOT / "docs").glob("*/*.ipynb")):
        text = notebook.read_text(encoding="utf-8")
        cells = json.loads(text)["cells"]
        made = page(text)
        assert made.startswith("# ")
        assert made.count("```python\n") == sum(cell["cell_type"] == "code" for cell in cells)
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        charts = sum("image/png" in output.get("data", {}) for output in outputs)
        assert made.count("(data:image/png;base64,") == charts
        assert all("".join(cell["source"]) in made for cell in cells)


def test_the_result_of_a_recipe_is_what_the_run_measured(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_recipe_result.py"))
    run = fill(made_up_run(tmp_path / "run"))
    (run.path / "environment.json").write_text('{"threads": 1}')
    result = script["recipe_result"](run, "paper-135m")
    assert result["stages"]["warmup"]["steps"] == 3 and result["stages"]["train"]["steps"] == 6
    text = script["section"](result)
    assert text.count("| reasoning, ") == 3 and "standard error by document" in text
    own = result["accuracy"]["reasoning, trained"]["easy"]
    assert f"{100 * own['value']:.1f} ± " in text and own["documents"] and own["n"]
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert page.count("<!-- recipe-result -->") == page.count("<!-- /recipe-result -->") == 1
