"""Controls on a tiny model: the same data, positions and budget, one thing changed, one table."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from openrpt.config.binding import settings_of
from openrpt.config.loading import with_overrides
from openrpt.errors import UserError
from openrpt.evaluation.next_token.compare import compare
from openrpt.evaluation.next_token.recorded import find_evaluated
from openrpt.evaluation.next_token.results import EvaluationResult
from openrpt.evaluation.patterns.bins import evaluation_bins
from openrpt.evaluation.records import read_evaluation
from openrpt.experiments.control import CONTROLS, control_named
from openrpt.experiments.controls import print_controls, run_controls
from openrpt.loaded import load_run
from openrpt.runs.metrics import read_metrics
from openrpt.runs.rollouts import read_rollouts
from openrpt.runs.run import Run, existing_run
from openrpt.stages.train import train
from openrpt.stages.warmup.warmup import warmup
from tests.helpers.tiny_model import tiny_run

SETTINGS = {
    "corpus__heldout_fraction": 0.4,
    "evaluate__min_entropy": 0.0,
    "evaluate__positions": 18,
    "warmup__steps": 12,
    "warmup__ntp_weight": 0.0,
    "train__steps": 2,
    "pretrain__tokens_per_step": 128,
    "pretrain__sequence_length": 32,
    "pretrain__eval_every": 0,
}


@pytest.fixture(scope="module")
def controlled(tmp_path_factory) -> Run:
    """A trained run with all of its controls."""
    run = tiny_run(tmp_path_factory.mktemp("control"), **SETTINGS)
    warmup(run)
    train(run)
    labels = run_controls(run, list(CONTROLS), run.config)
    assert labels == ["start", "trained", *list(CONTROLS)[2:]]
    return run


def rows_of(run: Path, stage: str) -> list[dict]:
    return [row for row in read_metrics(run / "metrics.jsonl") if row["stage"] == stage]


@pytest.mark.parametrize("name", ["random-reward", "no-thought"])
def test_the_same_documents_positions_and_steps(controlled, name):
    own = controlled.path / "controls" / name
    assert len(rows_of(own, "train")) == 2
    keys = ["document_id", "position", "rollout"]
    for step in (1, 2):
        theirs, ours = read_rollouts(controlled.path, step), read_rollouts(own, step)
        assert theirs.select(keys).equals(ours.select(keys))


def test_where_a_run_runs_does_not_bind_a_warmup(controlled):
    """Device and threads may change between a run's starts, so a control takes its warmup too."""
    moved = {"model.device": "cpu", "model.threads": 2}
    own = settings_of("warmup", controlled.config)
    assert own == settings_of("warmup", with_overrides(controlled.config, moved))
    for key in ("warmup.learning_rate", "optim.max_grad_norm", "optim.adam_beta1"):
        changed = with_overrides(controlled.config, {key: 1e-5})
        assert own != settings_of("warmup", changed), key


def test_a_random_reward_changes_nothing_else(controlled):
    """The same warmup and the same draws: before the first update the rollouts are the same."""
    own = controlled.path / "controls" / "random-reward"
    pair = [read_rollouts(path, 1)["token_ids"].to_pylist() for path in (controlled.path, own)]
    assert pair[0] == pair[1]
    assert rows_of(own, "warmup") == rows_of(controlled.path, "warmup")
    rewards = [read_rollouts(path, 1)["reward"].to_pylist() for path in (controlled.path, own)]
    assert rewards[0] != rewards[1]
    assert read_rollouts(own, 1)["exact"].equals(read_rollouts(controlled.path, 1)["exact"])


def test_without_a_thought(controlled):
    own = controlled.path / "controls" / "no-thought"
    assert existing_run(own).config.prompt.candidates == 0
    rows = rows_of(own, "warmup")  # its form is another: it needs a warmup of its own
    assert len(rows) == 12 and any("loss/tail_kl" in row for row in rows)
    assert all(not thought for thought in read_rollouts(own, 2)["thought"].to_pylist())


def test_the_form_alone(controlled):
    """The run's own warmup was of the model's own predictions: it is taken, not made again."""
    own = controlled.path / "controls"
    files = [
        path / "warmup" / "model.safetensors" for path in (controlled.path, own / "warmup-self")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    card = (own / "warmup-truth" / "warmup" / "README.md").read_text()
    assert "supervised" in card
    assert len(rows_of(own / "warmup-truth", "warmup")) == 12


def test_plain_training_takes_what_the_run_took(controlled):
    folder = controlled.path / "controls"
    assert len(rows_of(folder / "ntp-documents", "pretrain")) == 2
    rows = [*rows_of(controlled.path, "warmup"), *rows_of(controlled.path, "train")]
    budget = sum(row["flops/generate"] + row["flops/update"] for row in rows)
    steps = [row["flops/update"] for row in rows_of(folder / "ntp-flops", "pretrain")]
    assert sum(steps) >= budget > sum(steps[:-1])
    assert rows_of(folder / "ntp-time", "pretrain")


def test_one_table_holds_them_all(controlled):
    models = find_evaluated([str(controlled.path)])
    assert {m.label for m in models} == {"start", "trained", *list(CONTROLS)[2:]}
    found = compare(models)
    assert {model.name for model in found.models} == {m.label for m in models}  # none left out
    assert "was not compared" not in found.verdicts["trained"]  # the run without a thought is there
    costs = {m.label: m.cost for m in models}
    assert costs["start"]["flops"] == 0
    assert costs["warmup-self"]["flops"] > 0
    for label in ("trained", "random-reward", "no-thought", "ntp-documents", "ntp-flops"):
        assert costs[label]["flops"] > 0 and costs[label]["seconds"] > 0, label
        assert costs[label]["joules"] > 0, label
    assert costs["random-reward"]["flops"] > costs["warmup-self"]["flops"]
    summary = read_evaluation(controlled.evaluation)["evaluations"]["trained"]["summary"]
    assert {"emptied", "cut", "swapped", "ntp_voting"} <= summary.keys()


def test_thoughts_of_all_models_side_by_side(controlled):
    """At the same positions; what was trained without a thought has none."""
    found = {one.run: one for one in evaluation_bins(load_run(str(controlled.path)).run)}
    assert {"start", "trained", "no-thought", "warmup-truth"} <= found.keys()
    assert "ntp-flops" not in found  # only its standard prediction was asked for
    right = found["trained"].measures["reward"]
    stored = EvaluationResult.load(controlled.path / "evaluation" / "trained.parquet")
    assert right.values.mean() == pytest.approx(stored.accuracy("reasoning"))
    assert len(right.values) == stored.num_positions
    assert found["start"].flops == 0 and found["trained"].flops > 0


def test_what_is_done_is_passed_over(controlled, capsys):
    before = controlled.evaluation.stat().st_mtime_ns
    run_controls(controlled, ["start", "thought", "warmup-truth"], controlled.config)
    assert controlled.evaluation.stat().st_mtime_ns == before
    print_controls(controlled)
    lines = capsys.readouterr().out.splitlines()
    assert sum("yes" in line for line in lines) == len(CONTROLS)
    stored = pq.read_table(controlled.path / "evaluation" / "warmup-truth.parquet")
    assert stored.num_rows == 18


def test_what_was_measured_before_is_kept(controlled):
    """Controls of the thought do not take the likelihood's place, nor the other way round."""
    wider = with_overrides(controlled.config, {"evaluate.likelihood": True})
    run_controls(controlled, ["warmup-self", "thought"], wider)
    run_controls(controlled, ["warmup-self", "thought"], controlled.config)
    for label in ("warmup-self", "trained"):
        summary = read_evaluation(controlled.evaluation)["evaluations"][label]["summary"]
        assert "information_gain" in summary and ("emptied" in summary) == (label == "trained")


def test_refusals(controlled, tmp_path):
    with pytest.raises(UserError, match="nearest: 'random-reward'"):
        control_named("random_reward")
    with pytest.raises(UserError, match="--label names one control"):
        run_controls(controlled, ["start", "thought"], controlled.config, label="x")
    fresh = tiny_run(tmp_path, **SETTINGS)
    with pytest.raises(UserError, match="not trained yet"):
        run_controls(fresh, ["random-reward"], fresh.config)
