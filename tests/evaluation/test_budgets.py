"""Accuracy over think budgets: each budget is an evaluation of its own, and a thought is the
beginning of a longer one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from openrpt.cli.main import cli, main
from openrpt.config.sections import Config
from openrpt.engine.engine import Engine, open_engine
from openrpt.errors import UserError
from openrpt.evaluation.budgets.instrument import BudgetsResult, budgets_of
from openrpt.evaluation.instrument import measure, measure_models
from openrpt.evaluation.models import named_models
from openrpt.evaluation.next_token.evaluate import evaluate_policy
from openrpt.progress import Silent
from openrpt.runs.run import Run, existing_run
from openrpt.stages.warmup.warmup import warmup
from tests.helpers.tiny import sentencepiece_tokenizer
from tests.helpers.tiny_model import tiny_model_folder, tiny_run

BUDGETS = [0, 2, 5]
SETTINGS: dict[str, Any] = {
    "corpus__heldout_fraction": 0.4,
    "prompt__candidates": 1,
    "warmup__steps": 25,
    "evaluate__min_entropy": 0.0,
    "evaluate__positions": 24,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose warmed up model answers, now right, now wrong."""
    run = tiny_run(tmp_path_factory.mktemp("budgets"), **SETTINGS)
    warmup(run)
    return run


@pytest.fixture(scope="module")
def engine(run: Run) -> Engine:
    return open_engine(run.config, path=str(run.start))


def with_settings(config: Config, section: str, **settings: Any) -> Config:
    changed = getattr(config, section).model_copy(update=settings)
    return config.model_copy(update={section: changed})


def thought(run: Run, engine: Engine, config: Config | None = None) -> BudgetsResult:
    return measure(budgets_of(run, config or run.config, BUDGETS), engine)


@pytest.mark.parametrize(("template", "samples"), [("minimal", 3), ("chat", 0)])
def test_each_budget_is_the_evaluation_with_it(
    run: Run, engine: Engine, template: str, samples: int
) -> None:
    config = with_settings(run.config, "evaluate", samples=samples)
    config = with_settings(config, "prompt", template=template)
    found = thought(run, engine, config)
    assert found.budgets == BUDGETS and len(found.columns["ntp"]) == 24
    for budget in BUDGETS:
        one = evaluate_policy(
            engine,
            budgets_of(run, config, BUDGETS).corpus,
            with_settings(config, "prompt", think_budget=budget),
        )
        for name in ("document_id", "position", "entropy", "ntp"):
            assert (found.columns[name] == one.columns[name]).all()
        assert np.allclose(found.columns[f"accuracy/{budget}"], one.columns["reasoning"])
    if template == "minimal":  # what it was warmed up to
        assert 0 < found.estimate("accuracy/0").value < 1
        gain = found.gain(5)
        difference = found.columns["accuracy/5"] - found.columns["ntp"]
        assert gain.value == pytest.approx(difference.mean()) and gain.low <= gain.value


def test_a_thought_is_the_beginning_of_a_longer_one(run: Run, engine: Engine) -> None:
    config = with_settings(run.config, "evaluate", samples=1, temperature=3.0)
    columns = thought(run, engine, config).columns
    assert (columns["tokens/0"] == 0).all() and (columns["forced/0"] == 1).all()
    assert (columns["tokens/2"] == np.minimum(columns["tokens/5"], 2)).all()
    assert ((columns["forced/2"] == 1) == (columns["tokens/5"] >= 2)).all()
    assert 5 in columns["tokens/5"] and columns["tokens/5"].min() < 5  # some end by themselves


def test_what_is_spent_is_counted(run: Run) -> None:
    found = thought(run, open_engine(run.config))
    assert found.estimate("forced/5").value == 1  # the start model does not close a thought
    flops = [found.flops[name] for name in ("ntp", "0", "2", "5")]
    assert flops == sorted(flops) and 0 < flops[0] < flops[1]
    assert sum(flops) * 24 == pytest.approx(found.cost["flops"])


class Stopping(Silent):
    """Notes what begins; Ctrl-C when the task of this name begins."""

    def __init__(self, at: str = "") -> None:
        self.at, self.begun = at, list[str]()

    def begin(self, task: str, total: float, unit: str = "") -> None:
        if self.at and task.endswith(self.at):
            raise KeyboardInterrupt
        if not task.startswith("load "):
            self.begun.append(task)


def test_a_stopped_measurement_goes_on_with_the_next_budget(
    run: Run, engine: Engine, tmp_path: Path
) -> None:
    models = named_models(run, ["warmup"])
    instrument = budgets_of(run, run.config, BUDGETS)
    first, second, third = Stopping(at=": 5 tokens"), Stopping(), Stopping()
    with pytest.raises(KeyboardInterrupt):
        measure_models(instrument, models, tmp_path, progress=first)
    assert first.begun == ["warmup thinks: not at all", *_budgets(0, 2)]
    (one,) = measure_models(instrument, models, tmp_path, progress=second)
    assert second.begun == _budgets(5)
    undisturbed = thought(run, engine)
    for name, values in undisturbed.columns.items():
        assert (one.result.columns[name] == values).all(), name
    assert one.result.flops == undisturbed.flops
    (again,) = measure_models(instrument, models, tmp_path, progress=third)
    assert third.begun == [] and again.result.flops == undisturbed.flops


def _budgets(*sizes: int) -> list[str]:
    return [f"warmup thinks: {size} tokens" for size in sizes]


def test_a_model_with_another_tokenizer_is_asked_in_its_own_tokens(
    run: Run, tmp_path: Path
) -> None:
    folder = tiny_model_folder(tmp_path / "other", tokenizer=sentencepiece_tokenizer())
    other = open_engine(run.config, path=str(folder))
    found = thought(run, other)
    assert 0 < len(found.columns["ntp"]) <= 24 and set(found.flops) == {"ntp", "0", "2", "5"}


def test_the_command(run: Run) -> None:
    arguments = ["budgets", "start", "trained=warmup", "--run", str(run.path), "--think", "4,0"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    stem = run.path / "budgets" / "budgets"
    report = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    assert (report["budgets"], report["split"], report["samples"]) == ([0, 4], "heldout", 0)
    assert list(report["models"]) == ["start", "trained"]
    rows = report["rows"]
    assert [(row["model"], row["budget"]) for row in rows] == [
        (model, budget) for model in ("start", "trained") for budget in (None, 0, 4)
    ]
    assert all(row["n"] == 24 and row["documents"] > 1 and row["flops"] > 0 for row in rows)
    for row in rows:
        standard = next(r for r in rows if r["model"] == row["model"])
        if row is not standard:
            gain = row["value"] - standard["value"]
            assert row["difference_value"] == pytest.approx(gain)
            assert row["tokens"] <= row["budget"]
    assert stem.with_suffix(".svg").read_text(encoding="utf-8").startswith("<svg")
    table = stem.with_suffix(".md").read_text(encoding="utf-8")
    assert "| trained | standard | – | – |" in table and "| trained | 4 | " in table
    assert "Accuracy over thought: 24 positions of heldout, greedy" in done.output
    again = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert again.output.count("has thought before") == 2


def test_what_does_not_fit_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for think, message in {
        "8,x": "'x' is no number of tokens; give some, as in 0,8,16",
        "": "'' is no number of tokens",
        "0,500": "but the model holds 128",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            main(["budgets", "start", "--run", str(run.path), "--think", think])
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and message in said, said
    config = with_settings(existing_run(run.path).config, "prompt", candidate_source="start")
    with pytest.raises(UserError, match="seeded with its own candidates; give"):
        budgets_of(run, config, [0])
