"""Fine-tuning on questions through the stage itself: it learns, resumes, and is measured."""

import io
import json
import os
import signal
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from openrpt.cli.main import cli
from openrpt.config.loading import finetune_config, load_config
from openrpt.config.sections import Config
from openrpt.data.prompts import build_layout
from openrpt.data.questions import QuestionCounts, read_questions
from openrpt.engine.checkpoint_record import TrainerState
from openrpt.engine.engine import open_engine
from openrpt.engine.loading import load_model
from openrpt.errors import UserError
from openrpt.evaluation.questions.checks import checker_of
from openrpt.evaluation.questions.finetuned import (
    outcomes_path,
    print_finetuned,
    question_differences,
    read_finetuned,
)
from openrpt.evaluation.questions.results import AnswerResult
from openrpt.evaluation.questions.task import question_task
from openrpt.progress import Silent
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, open_run
from openrpt.stages.finetune import finetune
from openrpt.stages.predict import checkpoint_config, cut_at_end, predict
from openrpt.stages.train import train
from openrpt.stopping import Interrupted
from tests.helpers.own_module import write_module
from tests.helpers.tiny_model import tiny_model_folder

WORDINGS = ["{a} + {b}", "{a}+{b} =", "sum {a} {b}", "add {a} {b}", "{a} and {b}"]
SETTINGS: dict[str, Any] = {
    "model.threads": 1,
    "model.device": "cpu",
    "prompt.instruction": "Box it.",
    "questions.heldout_fraction": 0.3,
    "questions.development_fraction": 0.2,
    "answers.check": "exact",
    "finetune.questions_per_step": 4,
    "finetune.question_tokens": 24,
    "finetune.think_budget": 2,
    "finetune.answer_budget": 4,
    "train.group_size": 8,
    "train.steps": 4,
    "checkpoints.every": 2,
    "train.eval_every": 0,
    "train.learning_rate": 1e-3,
}


def sums(path: Path) -> Path:
    """Pairs of digits whose sum is 7, in several wordings."""
    pairs = [(a, 7 - a) for a in range(8)]
    rows = [{"problem": w.format(a=a, b=b), "sum": 7} for a, b in pairs for w in WORDINGS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def config_of(folder: Path, name: str, **overrides: Any) -> Config:
    values = {
        "run": str(folder / name),
        "model.path": str(folder / "model"),
        "questions.path": str(folder / "sums.jsonl"),
        "questions.question": "problem",
        "questions.answer": "sum",
    }
    more = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config(overrides=values | SETTINGS | more)


def run_of(folder: Path, name: str, **overrides: Any) -> Run:
    return open_run(config_of(folder, name, **overrides), min_free_bytes=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model that has the form: it answers 5, 6, 7 or 8, whatever the question."""
    folder = tmp_path_factory.mktemp("finetune")
    model_folder = tiny_model_folder(folder / "model")
    sums(folder / "sums.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    layout = build_layout(tokenizer, finetune_config(config_of(folder, "any")).prompt)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    draw = torch.Generator().manual_seed(0)

    def plain(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    for _ in range(40):
        optimizer.zero_grad()
        for answer in "5678":
            a, b, w, *thought = torch.randint(0, 5, (5,), generator=draw).tolist()
            question = plain(WORDINGS[w].format(a=a, b=b))
            prompt = [*layout.head_ids, *question, *layout.tail_ids, *thought, *layout.close_ids]
            ids = torch.tensor([[*prompt, *plain(answer), *plain("}"), tokenizer.eos_token_id]])
            labels = ids.clone()
            labels[:, : len(prompt)] = -100
            model(ids, labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(model_folder)
    return folder


OF_THE_MACHINE = ("time/", "memory/", "energy/", "efficiency/", "seconds")


def rows_of(run: Run) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in row.items() if not k.startswith(OF_THE_MACHINE)}
        for row in read_metrics(run.metrics)
    ]


def rollouts_of(run: Run) -> dict[str, list[dict[str, Any]]]:
    files = sorted((run.path / "rollouts").glob("step-*.parquet"))
    # The entropy is no number: no scorer has seen a question.
    return {path.name: pq.read_table(path).drop_columns("entropy").to_pylist() for path in files}


def test_it_learns_and_measures_before_and_after(folder):
    """Answers by math-verify: the truth stands there as a fraction."""
    pytest.importorskip("math_verify")
    fractions = folder / "fractions.jsonl"
    text = (folder / "sums.jsonl").read_text(encoding="utf-8")
    fractions.write_text(text.replace('"sum": 7', '"sum": "\\\\frac{14}{2}"'), encoding="utf-8")
    run = run_of(
        folder,
        "learns",
        questions__path=str(fractions),
        answers__check="math",
        finetune__think_budget=0,
        finetune__eval_samples=4,
        finetune__eval_temperature=1.0,
        train__steps=40,
        train__eval_every=20,
        train__eval_positions=4,
        checkpoints__every=100,
    )
    record = finetune(run)
    before, after = (record[when]["summary"]["accuracy"]["all"] for when in ("before", "after"))
    assert before["value"] < 0.5 and after["value"] > 0.9
    assert record["difference"]["accuracy"]["distinguishable"]
    assert before["n"] == record["questions"]["heldout"] > 5
    assert record["before"]["summary"]["any_right"]["all"]["value"] > before["value"]
    rows = rows_of(run)
    assert rows[0]["stage"] == "finetune" and rows[0]["reward/mean"] < 0.6
    assert rows[-1]["reward/mean"] > 0.9
    assert rows[19]["development/positions"] == 4 and "loss/ntp" not in rows[19]
    assert (run.checkpoints / "best").is_dir()
    training = record["training"]
    flops = sum(row["flops/generate"] + row["flops/update"] for row in rows)
    assert training["flops"] == pytest.approx(flops) and training["steps"] == 40
    assert 0 < record["before"]["cost"]["flops"] < training["flops"]
    stored = rollouts_of(run)["step-000040.parquet"]
    assert len(stored) == 4 * 8 and stored[0]["continuation"] == [b"\\frac{14}{2}"]
    right = {row["prediction"] for row in stored if row["reward"] == 1}
    assert right == {b"7"}
    assert read_finetuned(run.path) == record
    # A finished run is left alone.
    files = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert finetune(run) == record
    assert files == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


class CtrlC(Silent):
    """A person who has enough after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps, self.task = steps, ""

    def begin(self, task: str, total: float, unit: str = "") -> None:
        self.task = task

    def update(self, completed: float, note: str = "") -> None:
        if self.task == "finetune" and completed == self.steps:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.usefixtures("heard")
def test_an_interrupted_run_goes_on_to_the_same_bits(folder):
    settings: dict[str, Any] = {
        "finetune__eval_samples": 2,
        "train__dynamic_sampling_from": 2,
        "train__kl_weight": 0.05,
        "train__eval_every": 2,
        "train__eval_positions": 4,
    }
    whole, parts = run_of(folder, "whole", **settings), run_of(folder, "parts", **settings)
    expected = finetune(whole)
    with pytest.raises(Interrupted, match="stopped in finetune after step 3"):
        finetune(parts, progress=CtrlC(3))
    assert "after" not in read_finetuned(parts.path)
    with pytest.raises(UserError, match="no finished `openrpt finetune`"):
        print_finetuned([parts.path], Console())
    (parts.path / "checkpoints" / "step-000004.partial").mkdir()
    found = finetune(parts)
    assert rows_of(whole) == rows_of(parts) and len(rows_of(whole)) == 4
    assert rollouts_of(whole) == rollouts_of(parts) and len(rollouts_of(whole)) == 4
    for name in ("model.safetensors", "state.safetensors"):
        one, other = (run.checkpoints / "step-000004" / name for run in (whole, parts))
        assert one.read_bytes() == other.read_bytes()
    for when in ("before", "after"):
        assert found[when]["summary"] == expected[when]["summary"]
        outcomes = [AnswerResult.load(outcomes_path(r.path, when)).columns for r in (whole, parts)]
        assert all((outcomes[0][name] == outcomes[1][name]).all() for name in outcomes[0])
    # More steps: only `after` is measured again.
    longer = run_of(folder, "parts", **settings | {"train__steps": 5})
    record = finetune(longer)
    assert record["after"]["step"] == 5 and record["before"] == found["before"]


def test_every_question_is_taken_once_an_epoch(folder):
    config = finetune_config(config_of(folder, "epochs"))
    policy = load_model(config.model)
    layout = build_layout(policy.tokenizer, config.prompt, policy.bos_ids)
    questions = read_questions(config.questions, QuestionCounts())
    task = question_task(questions, config, policy, layout, checker_of(config, None))
    ids = list(task.works["train"])
    state = TrainerState(stage="finetune")
    taken = list(islice(task.take(state), 2 * len(ids)))
    assert [cursor for cursor, _ in taken] == list(range(1, 2 * len(ids) + 1))
    found = [work.document.document_id for _, work in taken]
    first, second = found[: len(ids)], found[len(ids) :]
    assert sorted(first) == sorted(second) == sorted(ids) and first != second
    state.cursor = 5
    assert next(task.take(state))[1].document.document_id == found[5]
    assert not set(ids) & set(task.works["heldout"])


def test_an_advantage_and_a_sampler_of_ones_own(folder, tmp_path, monkeypatch):
    module = """
def advantages(rewards, mask): return rewards - rewards.mean(1, keepdim=True)
def itself(engine): return engine
"""
    write_module(tmp_path, monkeypatch, module)
    settings = {"train__steps": 2, "train__algorithm": "dr_grpo"}
    parts = {"train__advantage": "mine:advantages", "engine__sampler": "mine:itself"}
    parts |= {"train__importance_correction": "off"}
    named = run_of(folder, "named-parts", **settings)
    own = run_of(folder, "own-parts", **settings, **parts)
    finetune(named)
    finetune(own)
    assert rollouts_of(named) == rollouts_of(own) and len(rollouts_of(own)) == 2
    norms = [[row["optim/grad_norm"] for row in rows_of(run)] for run in (named, own)]
    assert norms[0] == norms[1]


def test_a_checkpoint_is_asked_as_it_was_trained(folder):
    run = run_of(folder, "asked", train__steps=1)
    finetune(run)
    checkpoint = str(run.checkpoints / "step-000001")
    assert "questions: " in Path(checkpoint, "README.md").read_text(encoding="utf-8")
    config = checkpoint_config(checkpoint)
    assert config is not None and config.prompt.template == "question"
    engine = open_engine(config, path=checkpoint)
    policy = engine.model
    group = predict(engine, cut_at_end(policy.tokenizer, "3 + 4"), config, temperature=0.0)
    stored = rollouts_of(run)["step-000001.parquet"][0]
    prompt = policy.tokenizer.decode([*group.prompt.head_ids, *group.prompt.tail_ids])
    assert "Box it.<|im_end|>\n<|im_start|>assistant\n<think>" in prompt
    assert len(stored["token_ids"]) and group.candidate_ids == ()


def test_runs_in_one_table(folder, tmp_path):
    one = run_of(folder, "one", train__steps=0)
    other = run_of(folder, "other", train__steps=2)
    assert finetune(one)["difference"]["accuracy"]["value"] == 0  # untrained: itself
    finetune(other)
    shown = CliRunner().invoke(
        cli,
        ["finetune", "--run", str(other.path), "--beside", str(one.path)],
        env={"COLUMNS": "200"},
    )
    assert shown.exit_code == 0, shown.output
    assert "greedy" in shown.output and str(folder / "model") in shown.output
    assert f"before: {other.path} − {one.path} = +0.0 [−" in shown.output
    assert "[+0.0, +0.0]" not in shown.output  # equal answers: not known to a hundredth
    sampled = run_of(folder, "sampled", train__steps=0, finetune__eval_samples=2)
    finetune(sampled)
    with pytest.raises(UserError, match="measured otherwise than"):
        print_finetuned([one.path, sampled.path], Console(file=io.StringIO()))


def test_the_shipped_configuration():
    config = load_config("recipe:finetune")
    assert finetune_config(config).train.ntp_weight == 0


def test_differences_are_paired_by_question():
    def result(ids: list[str], right: list[float]) -> AnswerResult:
        names = ("accuracy", "any_right", "reward", "closed", "tokens")
        columns = {name: np.array(right) for name in names}
        return AnswerResult(columns={"question_id": np.array(ids)} | columns)

    a, b = result(["x", "y", "z"], [1, 0, 1]), result(["z", "w", "y"], [0, 1, 0])
    found = question_differences(a, b)["accuracy"]
    assert found.n == 2 and found.value == 0.5  # y: 0 − 0, z: 1 − 0
    with pytest.raises(UserError, match="no question in common"):
        question_differences(a, result(["v"], [1]))


def test_what_it_refuses(folder):
    run = run_of(folder, "pre-training")
    run.start.mkdir()
    with pytest.raises(UserError, match="give finetune a run of its own"):
        finetune(run)
    with pytest.raises(UserError, match=r"lower finetune\.question_tokens by"):
        finetune(run_of(folder, "room", finetune__question_tokens=200))
    with pytest.raises(UserError, match=r"have more than finetune\.question_tokens"):
        finetune(run_of(folder, "long", questions__path=str(long_questions(folder))))
    done = run_of(folder, "mixed", train__steps=1)
    finetune(done)
    with pytest.raises(
        UserError, match="a checkpoint of 'finetune': give 'train' a run of its own"
    ):
        train(done)


def long_questions(folder: Path) -> Path:
    path = folder / "long.jsonl"
    rows = [{"problem": f"{n} {'z' * 60}", "sum": n} for n in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
