"""A run whose model is on a device other than the CPU: from scores to a resumed step.

What a GPU would refuse is refused (`tests/helpers/other_device.py`): tensors of two devices. Its
own kernels and its rounding are not seen here.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from openrpt.runs.run import Run
from openrpt.stages.train import train
from openrpt.stages.warmup.warmup import warmup
from tests.helpers.other_device import NAME, on_other_device
from tests.helpers.run_files import rollouts_of, rows_of, weights_of
from tests.helpers.tiny_model import copied_run, tiny_run

SETTINGS = {
    "warmup__steps": 1,
    "warmup__documents_per_step": 1,
    "train__documents_per_step": 1,
    "train__positions_per_document": 3,
    "train__steps": 2,
    "train__eval_every": 2,
    "train__eval_positions": 4,
    "train__kl_weight": 0.1,
    "prompt__think_budget": 3,
    "corpus__development_fraction": 0.2,
}


def trained(folder: Path, device: str) -> Run:
    run = tiny_run(folder / device, model__device=device, **SETTINGS)
    warmup(run)
    begun = copied_run(run, "begun", model__device=device, **SETTINGS)
    train(run)
    train(with_steps(begun, 1))
    train(begun)
    assert weights_of(begun, 2) == weights_of(run, 2)
    assert rows_of(begun) == rows_of(run)
    return run


def with_steps(run: Run, steps: int) -> Run:
    train_section = run.config.train.model_copy(update={"steps": steps})
    return replace(run, config=run.config.model_copy(update={"train": train_section}))


def train_there(folder: str) -> None:
    trained(Path(folder), NAME)


def test_a_run_gives_what_it_gives_on_the_cpu_and_resumes(tmp_path: Path) -> None:
    """With a reference model, a free thought and an evaluation; tokens alike, numbers to
    rounding."""
    for name in ("cpu", NAME):
        (tmp_path / name).mkdir()
    expected = trained(tmp_path, "cpu")
    on_other_device(train_there, str(tmp_path))
    found = replace(expected, path=tmp_path / NAME / "run")
    ids = [
        [row["token_ids"] for step in rollouts_of(run).values() for row in step]
        for run in (expected, found)
    ]
    assert ids[0] == ids[1]
    for row, wanted in zip(rows_of(found), rows_of(expected), strict=True):
        assert row.keys() == wanted.keys()
        numbers = {key: value for key, value in wanted.items() if isinstance(value, float)}
        assert {key: row[key] for key in numbers} == pytest.approx(numbers, rel=1e-3, abs=1e-5)
