"""Progress off a terminal: lines that say what is done, seldom enough to be read."""

from collections.abc import Callable

import pytest

from openrpt import progress as module
from openrpt.progress import Lines, live_progress

Lined = Callable[[], list[str]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def test_a_task_has_a_line_at_its_start_its_first_result_each_half_minute_and_its_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with live_progress() as progress:
        assert isinstance(progress, Lines)
        progress.begin("load the models", 0)
        progress.begin("train", 200, "steps")
        for step in range(1, 101):
            clock[0] += 2.0
            progress.update(step, f"step {step} · reward 0.{step:03}")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "load the models …",
        "train (200 steps) …",
        "train: 1 of 200 steps · step 1 · reward 0.001",
    ]
    assert lines[3] == "train: 16 of 200 steps, about 6 min left · step 16 · reward 0.016"
    assert lines[-1] == "train: done, 100 steps, 3 min · step 100 · reward 0.100"
    assert len(lines) == 3 + 6 + 1
    assert all(line.startswith("train: ") for line in lines[2:])


def test_a_total_that_is_passed_gives_way_to_a_new_one(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with live_progress() as progress:
        progress.begin("score", 100, "tokens, at a guess")
        for tokens in (60, 120, 170):
            clock[0] += 60
            progress.update(tokens)
    shown = capsys.readouterr().err
    assert "score: more than was thought, about 180 tokens, at a guess now" in shown
    assert "170 of 180" in shown and "100 %" not in shown


def test_totals_passed_one_after_another_are_said_once(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with live_progress() as progress:
        progress.begin("score", 100, "tokens, at a guess")
        for tokens in (200, 400, 800, 1600):
            clock[0] += 5
            progress.update(tokens)
        clock[0] += 60
        progress.update(3200)
    lines = [line for line in capsys.readouterr().err.splitlines() if "than was thought" in line]
    assert [line.partition("about ")[2].split()[0] for line in lines] == ["300", "4,800"]


def test_a_stage_that_fails_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="broken"), live_progress() as progress:
        progress.begin("train", 2, "steps")
        progress.update(1)
        raise ValueError("broken")
    assert capsys.readouterr().err.splitlines()[-1].startswith("train: stopped, 1 of 2 steps")


@pytest.mark.parametrize("total", [0, 4])
def test_a_bar_is_full_only_at_its_end(
    total: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with live_progress() as progress:
        progress.begin("train", total, "steps")
        progress.update(4, "step 4")
        progress.update(9, "step 9")
    shown = capsys.readouterr().err
    assert "100%" not in shown and "train" in shown
    assert ("more than was thought" in shown) == bool(total)
