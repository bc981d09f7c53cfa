"""The harness of all instruments: what is stored, taken, gone on with, and made anew."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from openrpt.config.loading import load_config
from openrpt.config.sections import Config
from openrpt.data.request import Request
from openrpt.engine.generation import Generated
from openrpt.engine.tree.engine import TreeEngine
from openrpt.errors import UserError
from openrpt.evaluation.columns import Columns
from openrpt.evaluation.instrument import measure_models
from openrpt.evaluation.kept import Kept
from openrpt.evaluation.models import NamedModel
from openrpt.evaluation.next_token.outcome_rows import outcome_rows, outcomes_of
from openrpt.evaluation.next_token.results import EvaluationResult
from openrpt.evaluation.next_token.stage import evaluate_model
from openrpt.evaluation.perplexity.perplexity import Perplexity
from openrpt.evaluation.questions.heldout import open_heldout
from openrpt.evaluation.questions.results import AnswerResult
from openrpt.evaluation.records import read_evaluation, result_path
from openrpt.json_files import sealed
from openrpt.parquet import write_table
from openrpt.progress import Silent
from openrpt.runs.rollouts import evaluated_path
from openrpt.types import Completion
from tests.helpers.tiny_model import tiny_model_folder, tiny_run

COST = {"flops": 1.5, "seconds": 2.0}


def perplexity() -> Perplexity:
    columns = {"nats": np.array([2.0, 3.0]), "tokens": np.array([1, 2]), "bytes": np.array([4, 5])}
    return Perplexity(columns=columns, skipped=3, cost=COST, mark="0a1b2c3d")


def test_columns_are_read_back_with_what_they_are_about(tmp_path: Path) -> None:
    path = tmp_path / "found.parquet"
    perplexity().save(path)
    found = Perplexity.load(path)
    assert (found.skipped, found.cost, found.mark) == (3, COST, "0a1b2c3d")
    assert all((found.columns[n] == perplexity().columns[n]).all() for n in found.columns)
    assert found.describe() == perplexity().describe()
    assert Columns.load(path).mark == "0a1b2c3d"  # what all kinds have is read by any


def test_what_is_no_such_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "found.parquet"
    perplexity().save(path)
    with pytest.raises(UserError, match="another version; delete it and evaluate again"):
        EvaluationResult.load(path)  # another kind: it does not say whether there is reasoning
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"found\.parquet: missing, broken .*; measure again$"):
        Perplexity.load(path, advice="measure again")
    with pytest.raises(UserError, match="missing, broken"):
        Columns.load(tmp_path / "nothing.parquet")


def test_a_table_without_a_word_about_it_has_its_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "old.parquet", pa.table({"question_id": ["a"], "accuracy": [1.0]}))
    found = AnswerResult.load(tmp_path / "old.parquet")
    assert found.accuracy() == 1.0 and found.cost == {} and found.mark == ""


def test_what_was_made_is_not_made_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def make(items: Any) -> Any:
        for number in items:
            asked.append(number)
            yield {"name": f"n{number}", "square": number**2}

    kept = Kept(path=tmp_path / "rows.jsonl")
    items = {f"n{number}": number for number in range(4)}
    first = kept.each(items, make, key="name")
    assert [next(first)["square"] for _ in range(2)] == [0, 1]
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"name": "n2", "squ')  # a line that was being written
    rows = list(kept.each(items, make, key="name"))
    assert [row["square"] for row in rows] == [0, 1, 4, 9] and asked == [0, 1, 2, 3]
    damaged = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").replace('"square": 1', '"s": 1')
    (tmp_path / "rows.jsonl").write_text(damaged, encoding="utf-8")
    with pytest.raises(UserError, match=r"rows\.jsonl:2: damaged or changed by hand; delete it"):
        list(kept.each(items, make, key="name"))


# ---- models -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("instrument")
    tiny_model_folder(folder / "model")
    rows = [{"question": f"{n} + 1", "answer": n + 1} for n in range(30)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "sums.jsonl").write_text(text, encoding="utf-8")
    overrides = {
        "model.path": str(folder / "model"),
        "model.threads": 1,
        "model.device": "cpu",
        "prompt.instruction": "Box it.",
        "questions.path": str(folder / "sums.jsonl"),
        "questions.heldout_fraction": 0.5,
        "answers.check": "exact",
        "finetune.question_tokens": 24,
        "finetune.think_budget": 2,
        "finetune.answer_budget": 4,
        "finetune.eval_questions": 12,
        "finetune.eval_samples": 2,
    }
    return load_config(overrides=overrides)


class Stopping(Silent):
    """Says what it was told; Ctrl-C after so many answers (0 = never)."""

    def __init__(self, after: int = 0) -> None:
        self.after, self.said = after, list[str]()

    def update(self, completed: float, note: str = "") -> None:
        if completed == self.after:
            raise KeyboardInterrupt

    def say(self, line: str) -> None:
        self.said.append(line)


def asked(config: Config, folder: Path, progress: Stopping) -> AnswerResult:
    model = NamedModel(label="one", path=config.model.path, cost=None)
    with open_heldout(config) as instrument:
        (found,) = measure_models(instrument, [model], folder, progress=progress)
    return found.result


def same(a: Columns, b: Columns) -> bool:
    return all((a.columns[name] == b.columns[name]).all() for name in a.columns)


def test_a_stopped_model_goes_on_and_a_done_one_is_taken(config: Config, tmp_path: Path) -> None:
    whole = asked(config, tmp_path / "whole", Stopping())
    with pytest.raises(KeyboardInterrupt):
        asked(config, tmp_path / "parts", Stopping(5))
    assert not list((tmp_path / "parts").glob("*.parquet"))
    parts = asked(config, tmp_path / "parts", Stopping())
    assert same(whole, parts) and whole.num_questions == 12
    assert parts.cost["tokens"] == whole.cost["tokens"]  # those of the five that were there count
    told = Stopping()
    again = asked(config, tmp_path / "parts", told)
    assert same(whole, again) and again.cost == parts.cost
    (line,) = told.said
    assert line.startswith("one: has answered before, taken from ")


def test_other_weights_or_settings_are_measured(config: Config, tmp_path: Path) -> None:
    first = asked(config, tmp_path, Stopping())
    settings = config.finetune.model_copy(update={"eval_questions": 3})
    few = asked(config.model_copy(update={"finetune": settings}), tmp_path, Stopping())
    other = tiny_model_folder(tmp_path / "model", seed=3)
    model = config.model.model_copy(update={"path": str(other)})
    moved = asked(config.model_copy(update={"model": model}), tmp_path, Stopping())
    assert few.num_questions == 3 and not same(first, moved)
    assert len({first.mark, few.mark, moved.mark}) == 3
    assert len(list(tmp_path.glob("one-*.parquet"))) == 3


def test_outcomes_are_read_back_to_the_bit() -> None:
    completion = Completion(
        token_ids=(1, 2),
        sampler_logprobs=(0.0, -1 / 3),
        loss_mask=(False, True),
        finish_reason="stop",
    )
    outcome = Generated(
        standard_id=3,
        standard_ids=(3, 4),
        standard_top=((3, -0.1), (5, -math.inf)),  # a token that is masked
        candidate_ids=(3,),
        candidate_logprobs=(-0.1,),
        completions=(completion, completion),
        near_boundary=0,
    )
    row = json.loads(json.dumps(sealed({"outcomes": outcome_rows([outcome])})))
    assert outcomes_of(row["outcomes"]) == [outcome]


class StoppingAt(Silent):
    """Ctrl-C in the task of this name, after so many positions; counts those of all tasks."""

    def __init__(self, task: str = "", after: int = 0) -> None:
        self.task, self.after, self.now = task, after, ""

    def begin(self, task: str, total: float, unit: str = "") -> None:
        self.now = task

    def update(self, completed: float, note: str = "") -> None:
        if self.now == self.task and completed >= self.after:
            raise KeyboardInterrupt


def test_a_stopped_evaluation_goes_on_in_each_of_its_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {
        "evaluate__split": "train",
        "evaluate__positions": 24,
        "evaluate__positions_per_document": 3,
        "evaluate__min_entropy": 0.0,
        "evaluate__samples": 2,
        "evaluate__controls": ["emptied", "swapped", "ntp_voting"],
        "evaluate__likelihood": True,
        "model__dtype": "float64",  # documents that are decoded together may be others after a stop
    }
    run = tiny_run(tmp_path, **settings)
    generated: list[int] = []
    generate = TreeEngine.generate_each

    def counted(self: TreeEngine, requests: Sequence[Request], *args: Any) -> Any:
        for found in generate(self, requests, *args):
            generated.append(len(found))
            yield found

    monkeypatch.setattr(TreeEngine, "generate_each", counted)
    _, whole = evaluate_model(run, "start", run.config, label="whole")
    undisturbed = sum(generated)
    passes = ("", ": controls", ": voting", ": likelihood")
    for task in passes:
        with pytest.raises(KeyboardInterrupt):
            stopping = StoppingAt(f"evaluate parts{task}", 9)
            evaluate_model(run, "start", run.config, label="parts", progress=stopping)
        (kept,) = (run.path / "evaluation").glob("*.jsonl")
        assert kept.name.startswith("parts-") and not result_path(run, "parts").exists()
    _, parts = evaluate_model(run, "start", run.config, label="parts")
    assert not list((run.path / "evaluation").glob("*.jsonl"))
    assert undisturbed <= sum(generated) - undisturbed < 1.5 * undisturbed
    for name, values in whole.columns.items():
        np.testing.assert_array_equal(parts.columns[name], values, err_msg=name)
    tables = [found.rollouts for found in (parts, whole)]
    first, second = [str(table.to_pylist()) for table in tables if table is not None]
    assert first == second  # NaN is not NaN
    assert {name: parts.cost[name] for name in ("tokens", "flops", "flops_alone")} == {
        name: whole.cost[name] for name in ("tokens", "flops", "flops_alone")
    }


def test_an_evaluation_is_taken_from_the_run(tmp_path: Path) -> None:
    settings = {"evaluate__split": "train", "evaluate__positions": 9, "evaluate__min_entropy": 0.0}
    run = tiny_run(tmp_path, **settings)
    _, first = evaluate_model(run, "start", run.config)
    before = run.evaluation.read_bytes()
    told = Stopping()
    _, again = evaluate_model(run, "start", run.config, progress=told)
    assert told.said == [f"start: evaluated before, taken from {run.path}/evaluation/start.parquet"]
    assert run.evaluation.read_bytes() == before and again.cost == first.cost
    assert str(again.summary()) == str(first.summary())  # NaN is not NaN
    # What it thought is missing: it is asked again.
    thoughts = evaluated_path(run.path, "start")
    thoughts.unlink()
    evaluate_model(run, "start", run.config)
    assert thoughts.is_file()
    # Another question under the same label is asked, and takes its place.
    likelihood = run.config.evaluate.model_copy(update={"likelihood": True})
    config = run.config.model_copy(update={"evaluate": likelihood})
    evaluate_model(run, "start", config, label="start")
    assert "nll_ntp" in read_evaluation(run.evaluation)["evaluations"]["start"]["summary"]
    # So is another model under the label, and the same one with other weights.
    other = tiny_model_folder(tmp_path / "other", seed=3)
    marks = []
    for seed in (3, 5):
        tiny_model_folder(other, seed=seed)
        for _ in range(2):
            told = Stopping()
            _, found = evaluate_model(run, str(other), config, label="start", progress=told)
            marks.append(found.mark)
        assert len(told.said) == 1
    assert marks[0] == marks[1] != marks[2] == marks[3]
    assert read_evaluation(run.evaluation)["evaluations"]["start"]["model"] == str(other)
