"""The way back: a sharded checkpoint of verl's becomes a model folder that every stage opens.

Run by `python scripts/environments.py --check verl`, in verl's environment.
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="needs verl's environment")

import torch
from safetensors.torch import load_file

from openrpt.data.scored import load_scored
from openrpt.data.tokens import tokenizer_fingerprint
from openrpt.engine.engine import bind
from openrpt.engine.loading import load_model
from openrpt.evaluation.models import model_path
from openrpt.evaluation.next_token.evaluate import evaluate_policy
from tests.helpers.numbers import record
from tests.helpers.verl_checkpoint import CHANGE, write_checkpoint
from tests.helpers.verl_export import text_run


def test_a_merged_checkpoint_is_a_model_here(tmp_path: Path) -> None:
    """By verl's checkpoint manager over two ranks, its merger, and our own evaluation."""
    run = text_run(tmp_path)
    actor, merged = tmp_path / "global_step_1" / "actor", tmp_path / "merged"
    write_checkpoint(tmp_path / "model", actor, tmp_path / "store")
    assert len(list(actor.glob("model_world_size_2_rank_*.pt"))) == 2
    merge = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    merge += ["--local_dir", str(actor), "--target_dir", str(merged)]
    done = subprocess.run(merge, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = (load_file(p / "model.safetensors") for p in (tmp_path / "model", merged))
    assert before.keys() == after.keys()
    for name, values in before.items():
        torch.testing.assert_close(after[name], (values + CHANGE).bfloat16())
    policy = load_model(run.config.model, path=model_path(run, str(merged)))
    ours = load_model(run.config.model)
    assert tokenizer_fingerprint(policy.tokenizer) == tokenizer_fingerprint(ours.tokenizer)
    assert policy.stop_ids == ours.stop_ids
    result = evaluate_policy(
        bind("tree", policy),
        load_scored(run.scored),
        run.config,
        split="development",
        positions=12,
    )
    assert result.development()
    record(merged_tensors=len(after), merged_ranks=2)
