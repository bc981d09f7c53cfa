"""A recorded run comes out again: to the draw, and to the rounding of another processor."""

import json
from pathlib import Path

import pytest

from tests.helpers.trajectory import FIXTURE, trajectory


def test_a_recorded_run_comes_out_again(tmp_path: Path) -> None:
    recorded = json.loads(FIXTURE.read_text(encoding="utf-8"))
    found = trajectory(tmp_path)
    assert found["rollouts"] == recorded["rollouts"]
    assert found["evaluation"] == recorded["evaluation"]
    assert len(found["metrics"]) == len(recorded["metrics"]) == 68
    for now, then in zip(found["metrics"], recorded["metrics"], strict=True):
        assert now.pop("stage") == then.pop("stage")
        assert now == pytest.approx(then, rel=1e-8, abs=1e-10)
