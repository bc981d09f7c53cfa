"""Jobs in processes: in the order that they need, and none left behind."""

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from openrpt.errors import UserError
from openrpt.experiments.side_by_side import Job, run_jobs
from openrpt.files import write_text
from openrpt.progress import SILENT, Progress


def write(folder: Path, name: str, needs: tuple[str, ...], progress: Progress) -> str:
    progress.begin(name, 1)
    assert all((folder / need).exists() for need in needs)
    (folder / name).touch()
    progress.update(1)
    return name.upper()


def write_late(folder: Path, name: str, progress: Progress) -> None:
    time.sleep(1)
    (folder / name).touch()


def wait_long(folder: Path, progress: Progress) -> None:
    write_text(folder / "pid", str(os.getpid()))  # in one step: the other job waits for it
    time.sleep(600)


def fail_once_others_run(folder: Path, progress: Progress) -> None:
    while not (folder / "pid").exists():
        time.sleep(0.01)
    raise UserError("a.jsonl:7: bad")


def end_at_once(progress: Progress) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Heard:
    """A `Progress` that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.lines: list[str] = []

    def begin(self, task: str, total: float, unit: str = "") -> None:
        self.notes.append(task)

    def update(self, completed: float, note: str = "") -> None:
        self.notes.append(note)

    def say(self, line: str) -> None:
        self.lines.append(line)


def say_and_fill(progress: Progress) -> None:
    progress.begin("pretrain", 4, "steps")
    progress.update(1)
    progress.say("one of four")
    progress.update(6)  # four was a guess


def run_all(jobs: list[Job[Any]], workers: int) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    run_jobs(jobs, workers=workers, ended=found.__setitem__, progress=SILENT)
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_jobs_begin_after_those_that_they_need(tmp_path: Path, workers: int) -> None:
    late = Job[str](key="late", title="late", work=partial(write_late, tmp_path, "late"))
    jobs = [
        late,
        Job(
            key="b",
            title="b",
            work=partial(write, tmp_path, "b", ("late",)),
            after=("late",),
        ),
        Job(key="c", title="c", work=partial(write, tmp_path, "c", ())),
    ]
    assert run_all(jobs, workers) == {"late": None, "b": "B", "c": "C"}


def test_what_each_process_is_at_is_shown() -> None:
    jobs = [Job(key=key, title=f"arm {key}", work=say_and_fill) for key in range(2)]
    heard = Heard()
    run_jobs(jobs, workers=2, ended=lambda key, result: None, progress=heard)
    assert any("arm 0: pretrain 25%" in note for note in heard.notes)
    assert not any("150%" in note for note in heard.notes)
    assert {"arm 0: one of four", "arm 1: one of four"} <= set(heard.lines)
    assert sorted(line.split(": done")[0] for line in heard.lines if "done" in line) == [
        "arm 0",
        "arm 1",
    ]


def test_a_failure_ends_the_others(tmp_path: Path) -> None:
    jobs = [
        Job(key=0, title="long", work=partial(wait_long, tmp_path)),
        Job(key=1, title="bad", work=partial(fail_once_others_run, tmp_path)),
    ]
    with pytest.raises(UserError, match=r"a\.jsonl:7"):
        run_all(jobs, 2)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_process_that_is_killed_is_named() -> None:
    jobs = [Job(key=key, title=f"arm {key}", work=end_at_once) for key in range(2)]
    with pytest.raises(UserError, match=r"arm [01]: its process ended without a word"):
        run_all(jobs, 2)
