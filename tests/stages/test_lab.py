"""A world's text and a model from scratch go through the stages as any corpus and model do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from openrpt.cli.main import cli
from openrpt.config.loading import load_config, to_toml
from openrpt.data.scored import load_scored
from openrpt.data.worlds.reading import open_world
from openrpt.errors import UserError
from openrpt.evaluation.models import model_path
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import existing_run
from openrpt.stages.train import train

WORLD = "lab:scan?documents=200&depth=3&shown=2"
SETTINGS: dict[str, Any] = {
    "model.path": "new:llama?layers=1&width=16&heads=2&context=64",
    "model.threads": 1,
    "corpus.min_tokens": 4,
    "prompt.window": 32,
    "prompt.min_context": 4,
    "prompt.candidates": 0,
    "prompt.think_budget": 7,
    "prompt.prediction_budget": 2,
    "selection.strategy": "random",
    "pretrain.steps": 3,
    "pretrain.sequence_length": 64,
    "pretrain.tokens_per_step": 200,
    "pretrain.eval_every": 0,
    "reward.terms": {"random": 1.0},
    "train.steps": 2,
    "train.documents_per_step": 4,
    "train.positions_per_document": 1,
    "train.group_size": 4,
    "train.ntp_weight": 0.0,
    "train.eval_every": 0,
    "evaluate.min_entropy": 0.0,
}


def call(command: str, run: Path, **more: Any) -> str:
    own = {key.replace("__", "."): value for key, value in more.items()}
    config = run.with_suffix(".toml")
    config.write_text(to_toml(load_config(overrides=SETTINGS | {"run": str(run)} | own)))
    result = CliRunner().invoke(cli, [command, "--config", str(config)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_pretrain_train_and_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRPT_CACHE", str(tmp_path / "cache"))
    call("score", tmp_path / "text", corpus__path=WORLD)
    call("pretrain", tmp_path / "text", corpus__path=WORLD)
    answer = open_world(WORLD).answer_index
    own = {
        "model__path": model_path(existing_run(tmp_path / "text"), "pretrained"),
        "corpus__path": f"{WORLD}&worked=0&filler=0&seed=1",
        "prompt__min_context": answer,
    }
    call("score", tmp_path / "rpt", **own)
    # One token of each document can be predicted: its answer.
    entries = load_scored(tmp_path / "rpt" / "scored").entries.values()
    assert {entry.num_tokens for entry in entries} == {answer + 1}
    call("train", tmp_path / "rpt", **own)
    rows = read_metrics(tmp_path / "rpt" / "metrics.jsonl")
    steps = [row for row in rows if row["stage"] == "train"]
    assert [row["group/generated"] for row in steps] == [4.0, 4.0]
    run_steps = [row for row in steps if row["tokens/trained_run"]]
    assert run_steps
    assert all(row["policy/sampler_difference"] < 1e-5 for row in run_steps)
    assert "by the kind of document" in call("evaluate", tmp_path / "rpt", **own)  # its depth


def test_tokens_without_scores_train_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRPT_CACHE", str(tmp_path / "cache"))
    own = {"corpus__path": WORLD, "score__splits": ["train"]}
    weights = []
    for name, tokens_only in (("scored", []), ("tokens", ["train"])):
        call("score", tmp_path / name, score__tokens_only=tokens_only, **own)
        call("pretrain", tmp_path / name, score__tokens_only=tokens_only, **own)
        model = Path(model_path(existing_run(tmp_path / name), "pretrained"))
        weights.append((model / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    corpora = [load_scored(tmp_path / name / "scored") for name in ("scored", "tokens")]
    assert corpora[0].ids("train") == corpora[1].ids("train")
    for document_id in corpora[0].ids("train")[:20]:
        scored, bare = (corpus.document(document_id) for corpus in corpora)
        assert (scored.token_ids == bare.token_ids).all() and scored.kind == bare.kind
        assert not np.isnan(scored.entropy[1:]).any() and np.isnan(bare.entropy).all()
    with pytest.raises(
        UserError, match=r"leave a split out of score\.tokens_only, and score in another"
    ):
        train(existing_run(tmp_path / "tokens"))
    with pytest.raises(UserError, match="so no scorer runs"):
        bare = {"score.splits": ["train"], "score.tokens_only": ["train"]}
        load_config(overrides={**bare, "score.model": "other"})
