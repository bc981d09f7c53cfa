"""A run folder: one process at a time works there, and a kill at any moment leaves a run."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from openrpt.errors import UserError
from openrpt.runs.lock import LOCK, sole_process
from openrpt.runs.run import Run, existing_run, open_run, works_in_run
from openrpt.runs.status import read_status
from tests.helpers.tiny_model import tiny_config

HOLDER = """
import sys
from pathlib import Path
from openrpt.runs.lock import sole_process
with sole_process(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process works in the folder."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "in\n"
            yield process
        finally:
            process.kill()


@works_in_run
def stage(run: Run, text: str) -> str:
    return text


def test_a_second_process_is_refused_and_named(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    run = open_run(config, min_free_bytes=0)
    before = (run.path / "config.toml").stat().st_mtime_ns
    with held_elsewhere(run.path) as other:
        for again in (lambda: open_run(config, min_free_bytes=0), lambda: stage(run, "")):
            with pytest.raises(UserError, match=f"works in this run .pid {other.pid} on ") as error:
                again()
            assert "since 20" in str(error.value) and "\n" not in str(error.value)
        assert read_status(run.path).state == "not begun"  # reading needs no lock
        assert (run.path / "config.toml").stat().st_mtime_ns == before
        inner = open_run(
            tiny_config(tmp_path, run=str(run.path / "controls" / "a")), min_free_bytes=0
        )
        assert stage(inner, "its own") == "its own"
        other.kill()
        other.wait()
        assert stage(run, "free") == "free"  # the system freed it


def test_a_process_gets_in_again_and_out(tmp_path: Path) -> None:
    with sole_process(tmp_path) as first:
        assert first
        renamed = tmp_path.rename(tmp_path.with_name("renamed"))
        with sole_process(renamed) as again:
            assert not again
    with held_elsewhere(renamed), pytest.raises(UserError), sole_process(renamed):
        pass
    renamed.rename(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys) -> None:
    import fcntl

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with sole_process(tmp_path):
        pass
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "its file system has no locks" in said


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL, errno.ESTALE, errno.EPERM])
def test_another_error_is_not_taken_for_another_process(tmp_path, monkeypatch, number) -> None:
    import fcntl

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"\.lock: cannot be locked \("), sole_process(tmp_path):
        pass


def test_a_kill_before_the_first_configuration_is_whole_leaves_a_run(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml.partial").write_text("[mod")
    (folder / LOCK).write_text("")
    assert open_run(config, min_free_bytes=0).path == folder
    assert not (folder / "config.toml.partial").exists()
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "thesis.doc").write_text("")
    with pytest.raises(UserError, match="the folder is not empty and not a run"):
        open_run(config, min_free_bytes=0)
    assert [path.name for path in folder.iterdir()] == ["thesis.doc"]


def test_leftovers_are_cleared_at_the_next_start(tmp_path: Path) -> None:
    """The kill was while checkpoints were deleted, while `best` was replaced, and after warmup."""
    run = open_run(tiny_config(tmp_path), min_free_bytes=0)
    for name in ("step-000002.partial", "best.replaced", "step-000004"):
        (run.checkpoints / name).mkdir(parents=True)
        (run.checkpoints / name / "a").write_text(name)
    run.start.mkdir()
    (run.checkpoints_of("warmup") / "step-000009").mkdir(parents=True)
    (run.path / "metrics.jsonl.partial").write_text("half")
    stage(existing_run(run.path), "")
    assert {path.name for path in run.checkpoints.iterdir()} == {"best", "step-000004"}
    assert (run.checkpoints / "best" / "a").read_text() == "best.replaced"
    assert not run.checkpoints_of("warmup").exists()
    assert not (run.path / "metrics.jsonl.partial").exists()
