"""Perplexity against transformers' own loss, and as a command."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

from openrpt.cli.main import cli, main
from openrpt.config.loading import load_config
from openrpt.data.scored import load_scored
from openrpt.engine.engine import Engine, open_engine
from openrpt.errors import UserError
from openrpt.evaluation.perplexity.perplexity import (
    measure_perplexity,
    ratio_of_documents,
    sampled_texts,
)
from openrpt.evaluation.records import read_evaluation
from openrpt.evaluation.statistics import mean_by_document
from openrpt.report.page import write_report
from openrpt.runs.run import Run
from tests.helpers.tiny import sentencepiece_tokenizer
from tests.helpers.tiny_model import tiny_model_folder, tiny_run

TEXTS = ["The sum of two even numbers is even.", "Let x = 2 and y = 3. Straße 😀", "abc qzx"]


def engine_of(folder: Path, **options: Any) -> Engine:
    tiny_model_folder(folder, **options)
    overrides = {"model.path": str(folder), "model.device": "cpu", "model.threads": 1}
    return open_engine(load_config(overrides=overrides))


@pytest.mark.parametrize("tokenizer", [None, sentencepiece_tokenizer("prepend")])
def test_it_is_transformers_own_loss(tmp_path: Path, tokenizer: Any) -> None:
    engine = engine_of(tmp_path / "model", tokenizer=tokenizer)
    found = measure_perplexity(engine, TEXTS, window=100)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    nats, tokens, size = [], [], 0
    for text in TEXTS:
        ids = engine.model.tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            loss = model(torch.tensor([ids]), labels=torch.tensor([ids])).loss
        nats.append(float(loss) * (len(ids) - 1))
        tokens.append(len(ids) - 1)
        first = engine.model.table.bytes[ids[0]]
        size += len(text.encode()) - len(first) + (tokenizer is not None)  # its space is no text
    estimate = found.nats_per_token
    assert estimate.n == sum(tokens) and estimate.documents == 3
    assert estimate.value == pytest.approx(sum(nats) / sum(tokens), abs=1e-5)
    assert found.perplexity == pytest.approx(math.exp(sum(nats) / sum(tokens)), rel=1e-5)
    assert found.bits_per_byte.n == size
    assert found.bits_per_byte.value == pytest.approx(sum(nats) / math.log(2) / size, abs=1e-5)
    assert "±" in found.describe()
    alone = measure_perplexity(engine, TEXTS[:1], window=100).describe()
    assert "nan" not in alone and "±" not in alone
    low, high = found.interval
    assert low < found.perplexity < high


def test_the_error_is_that_of_a_mean_by_document() -> None:
    rng = np.random.default_rng(0)
    values, documents = rng.normal(size=50), rng.integers(7, size=50)
    sums = np.bincount(documents, weights=values)
    ours, theirs = (
        ratio_of_documents(sums, np.bincount(documents)),
        mean_by_document(values, documents),
    )
    assert ours.as_dict() == pytest.approx(theirs.as_dict())
    assert math.isnan(ratio_of_documents(np.array([1.0]), np.array([2])).standard_error)


def test_long_texts_are_seen_through_windows(tmp_path: Path) -> None:
    """A token's loss is that of its window's prefix: what the scorer gives it, and no more."""
    engine = engine_of(tmp_path / "model")
    text = " ".join(TEXTS[:2])
    whole = measure_perplexity(engine, [text], window=100).nats_per_token
    cut = measure_perplexity(engine, [text], window=8).nats_per_token
    assert whole.n == cut.n and whole.value != cut.value
    with pytest.raises(UserError, match="does not fit"):
        measure_perplexity(engine, [text], window=1000)
    with pytest.raises(UserError, match="no text to measure"):
        measure_perplexity(engine, ["", "a"], window=8)
    stopped = measure_perplexity(engine, TEXTS * 9, window=100, max_tokens=20)
    assert stopped.nats_per_token.documents < 9 and stopped.nats_per_token.n >= 20


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(
        tmp_path_factory.mktemp("perplexity"),
        corpus__heldout_fraction=0.4,
        pretrain__sequence_length=40,
        pretrain__tokens_per_step=60,
        pretrain__learning_rate=3e-3,
    )


def test_sampled_texts_are_whole_documents_in_a_keyed_order(run: Run) -> None:
    corpus = load_scored(run.scored)
    every = list(sampled_texts(corpus, "heldout", tokens=10**9, seed=0))
    assert sorted(every) == sorted(corpus.document(i).text for i in corpus.ids("heldout"))
    few = list(sampled_texts(corpus, "heldout", tokens=70, seed=0))
    assert len(few) == 2 and few == every[:2]


def test_the_commands(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Train, measure on the held-out split and on another text, and find it all recorded."""

    def call(*arguments: object) -> str:
        result = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    steps = ["--pretrain.steps", 30, "--pretrain.schedule", "constant"]
    assert "30 steps in" in call("pretrain", "--run", run.path, *steps)
    general = tmp_path / "general.jsonl"
    lines = [json.dumps({"body": text}) for text in [*TEXTS, "", None]]
    general.write_text("\n".join(lines), encoding="utf-8")
    other = ["--text", general, "--corpus.template", "{body}"]
    for model in ("start", "pretrained"):
        assert "recorded in" in call("perplexity", model, "--run", run.path)
        said = call("perplexity", model, "--run", run.path, *other)
        assert "skipped, not text: 1 document (general.jsonl:5)" in said
        assert "skipped, empty: 1 document (general.jsonl:4)" in said
    found = read_evaluation(run.evaluation)["perplexity"]
    on_split = {m: found[m]["heldout"]["perplexity"]["value"] for m in found}
    assert on_split["pretrained"] < on_split["start"] / 5
    assert found["start"]["general.jsonl"]["nats_per_token"]["documents"] == 3
    assert found["start"]["heldout"]["window"] == 32
    write_report(run)  # its reader of evaluation.json is not disturbed

    elsewhere = ["--run", tmp_path / "none", "--model.device", "cpu", "--prompt.window", 32]
    model_path = run.config.model.path
    out = call("perplexity", model_path, *elsewhere, *other)
    assert "nats a token" in out and "recorded" not in out
    assert not (tmp_path / "none").exists()
    with pytest.raises(SystemExit):
        main(["perplexity", "--run", str(run.path), "--corpus.path", "x"])
    assert "give one by --text PATH" in capsys.readouterr().err


def test_a_control_takes_the_configuration_of_what_it_matches(run: Run, tmp_path: Path) -> None:
    arguments = ["pretrain", "--pretrain.match", str(run.path), "--print-config"]
    (tmp_path / "new").mkdir()
    for folder in (run.path, tmp_path / "new"):
        given = [] if folder == run.path else ["--run", str(folder)]
        out = CliRunner().invoke(cli, [*arguments, *given], catch_exceptions=False).output
        (tmp_path / "found.toml").write_text(out, encoding="utf-8")
        found = load_config(tmp_path / "found.toml")
        assert found.run == str(folder) and found.model == run.config.model
        assert found.pretrain.match == str(run.path)
