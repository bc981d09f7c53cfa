"""Training whose rollouts vLLM draws: over a server of the same protocol."""

from dataclasses import replace
from pathlib import Path

import pytest

from openrpt.cli.main import main
from openrpt.config.loading import load_config, with_overrides
from openrpt.errors import UserError
from openrpt.runs.metrics import read_metrics
from openrpt.runs.rollouts import read_rollouts
from openrpt.stages.train import train
from tests.helpers.fake_vllm import fake_vllm
from tests.helpers.tiny_model import copied_run, tiny_run


def test_training_records_which_weights_drew(tmp_path: Path) -> None:
    small = {
        "train__steps": 3,
        "train__group_size": 3,
        "prompt__think_budget": 4,
        "reward__terms": {"random": 1.0},  # no group is flat
        "reward__random_probability": 0.5,
    }
    whole = tiny_run(tmp_path, **small)
    with fake_vllm(tmp_path / "model") as server:
        server.root = str(tmp_path / "shared" / "model")
        keys = {
            "engine__sampler": "vllm",
            "engine__server": server.address,
            "engine__shared_folder": str(tmp_path / "shared"),
            "engine__max_staleness": 1,
        }
        run = copied_run(whole, "vllm", **small, **keys)
        train(replace(run, config=with_overrides(run.config, {"train.steps": 2})))
        train(run)  # resumed: it begins with the weights of the checkpoint
    assert run.config.importance_correction == "truncate"
    metrics = read_metrics(run.metrics)
    assert [row["sampler/staleness"] for row in metrics] == [0, 1, 0]
    assert all(row["time/hand_over"] >= 0 for row in metrics)
    mismatch = [row["policy/mismatch"] for row in metrics]
    assert max(mismatch[0], mismatch[2]) < 1e-4 < mismatch[1]  # weights of the step before
    for step, version in ((1, 0), (2, 0), (3, 2)):
        rows = read_rollouts(run.path, step)
        assert set(rows["policy_version"].to_pylist()) == {version}
        assert set(rows["loss_mask"].to_pylist()[0]) == {True, False}


REFUSED = {
    "engine.sampler": ({"engine.sampler": "vlm"}, "unknown sampler 'vlm'; nearest: 'vllm'"),
    "float64": ({"engine.sampler": "vllm", "model.dtype": "float64"}, "vLLM has no float64"),
    "exact": (
        {
            "engine.sampler": "vllm",
            "train.answer_gradient": "exact",
            "train.algorithm": "dr_grpo",
            "reward.terms": {"expected": 1.0},
        },
        "needs engine.sampler = 'same'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_with_vllm(name: str) -> None:
    overrides, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        load_config(overrides=overrides)


def test_vllm_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("openrpt.extras.importlib.util.find_spec", lambda name: None)
    run = tiny_run(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--run", str(run.path), "--engine.sampler", "vllm"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "engine.sampler = 'vllm' needs vllm; install it: pip install" in error
