"""Stages with parts of a user's own: as they would be with OpenRPT's, and refused before a load."""

from pathlib import Path
from typing import Any

import pytest

from openrpt.cli.main import main
from openrpt.config.loading import to_toml
from openrpt.evaluation.next_token.stage import evaluate_templates
from openrpt.evaluation.records import read_evaluation
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run
from openrpt.stages.pretrain.pretrain import pretrain
from openrpt.stages.train import train
from tests.helpers.own_module import write_module
from tests.helpers.processes import commands
from tests.helpers.run_files import rollouts_of, rows_of, weights_of
from tests.helpers.tiny_model import copied_run, tiny_run

MODULE = """
def advantages(rewards):
    return rewards - rewards.mean(1, keepdim=True)

TEMPLATE = ("Go on: ", "")

class Wrapped:
    exact_draws, version = True, 0
    def __init__(self, engine): self.engine = engine
    def load(self, weights): self.version += 1
    def generate_each(self, requests, layout, sampling):
        for request in requests:
            yield from self.engine.generate_each([request], layout, sampling)

class Failing(Wrapped):
    def generate_each(self, requests, layout, sampling):
        yield "nothing"

def wrong(rewards):
    return rewards / 0

def alike(index):
    return [0.3] * len(index)

def third(index):
    return index % 3 == 0

def negative(nats):
    return -nats
"""
SETTINGS: dict[str, Any] = {
    "corpus__heldout_fraction": 0.25,
    "train__steps": 2,
    "train__group_size": 3,
    "train__documents_per_step": 1,
    "train__algorithm": "dr_grpo",
    "checkpoints__every": 1,
    "reward__terms": {"random": 1.0},  # no group is flat
}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("own"), **SETTINGS)


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path, monkeypatch, MODULE)


def run_of(scored: Run, name: str, **settings: Any) -> Run:
    """The scored run under another name, with its settings in its own configuration."""
    run = copied_run(scored, name, **SETTINGS | settings)
    (run.path / "config.toml").write_text(to_toml(run.config))
    return run


def assert_same(a: Run, b: Run, *, steps: int = 2) -> None:
    assert rows_of(a) == rows_of(b) and len(rows_of(a)) == steps
    assert rollouts_of(a) == rollouts_of(b)
    assert weights_of(a, steps) == weights_of(b, steps)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    *_, last = capsys.readouterr().err.splitlines()
    return last


def test_an_advantage_of_ones_own_makes_the_same_steps(scored: Run) -> None:
    named = run_of(scored, "dr-grpo")
    own = run_of(scored, "own-advantage", train__advantage="mine:advantages")
    train(named)
    train(own)
    assert_same(named, own)


SAMPLED = {"engine__sampler": "mine:Wrapped", "train__importance_correction": "off"}


def without(run: Run, *kinds: str) -> list[dict[str, Any]]:
    """The metrics but for those of such kinds: the FLOPs are those of a sampler elsewhere."""
    return [
        {name: value for name, value in row.items() if not name.startswith(kinds)}
        for row in rows_of(run)
    ]


def test_a_sampler_around_the_engine_makes_the_same_steps(scored: Run) -> None:
    same = run_of(scored, "same", train__importance_correction="off")
    own = run_of(scored, "own-sampler", **SAMPLED)
    train(same)
    train(own)
    assert {row["sampler/staleness"] for row in rows_of(own)} == {0.0}
    kinds = ("sampler/staleness", "flops/", "tokens/", "sharing/")
    assert without(own, *kinds) == without(same, *kinds)
    assert rollouts_of(own) == rollouts_of(same)
    assert weights_of(own, 2) == weights_of(same, 2)


def test_each_of_two_processes_has_a_sampler(scored: Run) -> None:
    settings = SAMPLED | {"train__documents_per_step": 2}
    alone, shared = (run_of(scored, name, **settings) for name in ("alone", "shared"))
    train(alone)
    ended = commands(2, "train", "--run", str(shared.path))
    assert [one.code for one in ended] == [0, 0], ended
    first = [rollouts_of(run)["step-000001.parquet"] for run in (alone, shared)]
    assert len(first[0]) == 2 * 4 * 3 and first[0] == first[1]


def test_a_bad_sampler_ends_the_step_and_says_where(
    scored: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(scored, "bad-sampler", engine__sampler="mine:Failing")
    said = refused(capsys, "train", "--run", run.path)
    assert "step 1: 'mine:Failing' gave 'nothing', not a list of" in said


def test_a_bad_advantage_ends_the_step_and_says_where(
    scored: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(scored, "bad-advantage", train__advantage="mine:wrong")
    said = refused(capsys, "train", "--run", run.path)
    assert "step 1" in said and "'mine:wrong' returned" in said and "position" in said


def test_a_template_of_ones_own_is_evaluated_under_its_name(scored: Run) -> None:
    templates = ["minimal", "mine:TEMPLATE"]
    asked = {"evaluate__templates": templates, "evaluate__positions": 4}
    run = run_of(scored, "own-template", **asked)
    config = run.config
    both = evaluate_templates(run, "start", config)
    assert [label for label, _ in both] == ["start", "start-template=mine_TEMPLATE"]
    named = evaluate_templates(run, "start", config, label="two")
    assert [label for label, _ in named] == ["two-minimal", "two-mine_TEMPLATE"]
    recorded = read_evaluation(run.evaluation)["evaluations"]
    assert recorded["two-mine_TEMPLATE"]["template"] == "mine:TEMPLATE"


def test_positions_of_equal_weights_are_those_drawn_at_random(scored: Run) -> None:
    named = run_of(scored, "random", selection__strategy="random")
    own = run_of(scored, "own-selection", selection__strategy="mine:alike")
    train(named)
    train(own)
    assert_same(named, own)


def test_pretraining_trains_on_the_positions_that_have_a_weight(scored: Run) -> None:
    settings = {
        "pretrain__tokens": "selected",
        "pretrain__steps": 1,
        "pretrain__eval_every": 0,
        "pretrain__sequence_length": 64,
        "pretrain__tokens_per_step": 600,
    }
    tokens = []
    for strategy in ("random", "mine:alike", "mine:third"):
        run = run_of(scored, f"pretrain-{strategy}", selection__strategy=strategy, **settings)
        pretrain(run)
        (row,) = read_metrics(run.metrics)
        tokens.append(row["tokens/trained"])
    assert tokens[0] == tokens[1] > 2 * tokens[2] > 0


@pytest.mark.parametrize("command", ["train", "warmup"])
def test_a_bad_weight_ends_the_step_and_says_where(
    scored: Run, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    run = run_of(scored, f"bad-weight-{command}", selection__strategy="mine:negative")
    said = refused(capsys, command, "--run", run.path)
    assert "'mine:negative' returned the weight -" in said and "position" in said
    assert f"{command}, step 1" in said


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("train", "train.advantage"),
        ("finetune", "train.advantage"),
        ("train", "engine.sampler"),
        ("finetune", "engine.sampler"),
        ("train", "prompt.template"),
        ("warmup", "prompt.template"),
        ("pretrain", "prompt.template"),
        ("evaluate", "prompt.template"),
        ("budgets", "prompt.template"),
        ("predict", "prompt.template"),
        ("traces self", "prompt.template"),
        ("traces self", "selection.strategy"),
        ("train", "selection.strategy"),
        ("warmup", "selection.strategy"),
        ("pretrain", "selection.strategy"),
    ],
)
def test_what_can_not_be_had_is_said_before_anything_is_loaded(
    scored: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    key: str,
) -> None:
    def loads(*_: Any, **__: Any) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("openrpt.engine.engine.load_model", loads)
    folder = tmp_path / "new" if command == "finetune" else scored.path
    more = {
        "predict": ["start", "--text", "q"],
        "traces self": ["--out", tmp_path / "t.jsonl"],
    }
    given = [*command.split(), *more.get(command, ()), "--run", folder]
    said = refused(capsys, *given, f"--{key}", "mine:absent")
    assert f"{key}: 'mine:absent': module 'mine' has no" in said
