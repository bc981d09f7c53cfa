"""A laboratory of a few steps: every arm from the same start, on the same problems."""

from pathlib import Path

import pytest

from openrpt.evaluation.records import read_evaluation
from openrpt.experiments.lab import CONTROLS, TEXT_ARMS, Lab, by_depth, lab_sheet, run_lab
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import existing_run
from openrpt.stages.pretrain.matched import spent_flops

SMALL = {
    "model.threads": 1,
    "train.steps": 2,
    "train.documents_per_step": 4,
    "train.group_size": 4,
    "pretrain.steps": 3,
    "evaluate.positions": 12,
    "evaluate.controls": ["emptied"],
}


def test_every_arm_goes_on_from_one_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRPT_CACHE", str(tmp_path / "cache"))
    world = "scan?depth=4&shown=2"
    lab = Lab(folder=tmp_path / "lab", world=world, documents=600, changes=SMALL)
    run = run_lab(lab)
    start = run.config.model.path
    assert Path(start).parent.parent == tmp_path / "lab" / "text"
    found = read_evaluation(run.evaluation)["evaluations"]
    assert set(found) == {"start", "rpt", *TEXT_ARMS, *CONTROLS}
    assert {one["positions"] for one in found.values()} == {found["start"]["positions"]}
    budget = spent_flops(run)
    for name in TEXT_ARMS:
        arm = existing_run(tmp_path / "lab" / name)
        assert arm.config.model.path == start
        flops = [row["flops/update"] for row in read_metrics(arm.metrics)]
        assert budget <= sum(flops) < budget + max(flops)
    before = run.evaluation.read_bytes()
    assert run_lab(lab).evaluation.read_bytes() == before  # nothing is done twice
    sheet = lab_sheet(run, shown=2)
    assert [row[0] for row in sheet.rows] == list(found)


def test_depths_are_weighed_by_their_problems() -> None:
    summary = {
        "all": {"value": 0.5, "n": 9},
        "kind: 2": {"value": 1.0, "n": 1},
        "kind: 10": {"value": 0.5, "n": 3},
    }
    assert by_depth(summary, lambda depth: True) == "62.5 %"
    assert by_depth(summary, lambda depth: depth > 2) == "50.0 %"
    assert by_depth(summary, lambda depth: depth > 10) == "–"
