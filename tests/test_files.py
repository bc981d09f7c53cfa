"""What stands under its name is whole, whatever happened on the way."""

import errno
import json
import math
import os

import pytest

from openrpt.cli.main import main
from openrpt.errors import UserError
from openrpt.files import clear_leftovers, remove_folder, replacing, replacing_folder, write_text
from openrpt.json_files import read_json, write_sealed


def fill(path, text, **options):
    with replacing_folder(path, **options) as partial:
        (partial / "a.txt").write_text(text, encoding="utf-8")


def test_a_folder_takes_the_place_of_the_old_one_once_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "folder"
    fill(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing_folder(path) as partial:
        (partial / "a.txt").write_text("half", encoding="utf-8")
        raise KeyboardInterrupt
    assert (path / "a.txt").read_text(encoding="utf-8") == "old"
    fill(path, "new")
    assert (path / "a.txt").read_text(encoding="utf-8") == "new"
    assert list(path.parent.iterdir()) == [path]


def test_of_processes_that_fill_the_same_folder_the_first_stays(tmp_path):
    with replacing_folder(tmp_path / "model", shared=True) as partial:
        (partial / "a.txt").write_text("second", encoding="utf-8")
        (tmp_path / "model").mkdir()  # another process is done
        (tmp_path / "model" / "a.txt").write_text("first", encoding="utf-8")
    assert (tmp_path / "model" / "a.txt").read_text(encoding="utf-8") == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_cannot_be_written_is_named_on_one_line(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"folder: cannot be written \(.+\); use another disk"):
        fill(tmp_path / "file" / "folder", "new", advice="use another disk")


def test_json_is_json_for_every_reader(tmp_path):
    """NaN is an extension of Python's: others refuse the whole file."""
    estimate = {"value": math.nan, "standard_error": math.nan, "n": 0}
    write_sealed(tmp_path / "a.json", {"all": estimate, "none": None, "rows": (math.inf, 1.0)})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse)["rows"] == [None, 1.0]
    found = read_json(tmp_path / "a.json", advice="")
    assert math.isnan(found["all"]["value"]) and math.isnan(found["all"]["standard_error"])
    assert found["all"]["n"] == 0 and found["none"] is None


def test_a_damaged_file_is_named_with_its_line(tmp_path):
    (tmp_path / "a.json").write_text('{\n "a": 1,\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.json:3: damaged; run it again"):
        read_json(tmp_path / "a.json", advice="run it again")


def test_a_sealed_file_notices_any_change(tmp_path):
    path = tmp_path / "a.json"
    write_sealed(path, {"b": [1, 0.1, None], "a": {"é": math.nan}})
    assert read_json(path, advice="") == {"b": [1, 0.1, None], "a": {"é": None}}
    write_sealed(path, json.loads(path.read_text(encoding="utf-8")) | {"c": 2})  # its old hash goes
    assert read_json(path, advice="")["c"] == 2
    path.write_text(path.read_text(encoding="utf-8").replace("0.1", "0.3"), encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.json: damaged or changed by hand; run it again"):
        read_json(path, advice="run it again")


@pytest.mark.parametrize("text", ["[1]", "\xff", "[" * 100_000])
def test_what_is_no_object_is_damaged(tmp_path, text):
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"a\.json.*: damaged.*; run it again"):
        read_json(tmp_path / "a.json", advice="run it again")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, r"\(No space left on device\); free some space"),
        (errno.EIO, r"\(Input/output error\); the disk, or the way to it, fails"),
        (errno.EACCES, r"\(Permission denied\); see who may read and write there"),
        (errno.EROFS, r"\(Read-only file system\); the disk is read-only"),
        (errno.ENAMETOOLONG, r"\(File name too long\); choose a shorter name"),
    ],
)
def test_the_advice_fits_the_reason(tmp_path, number, words):
    with (
        pytest.raises(UserError, match=rf"a\.txt: cannot be written {words}"),
        replacing(tmp_path / "a.txt"),
    ):
        raise OSError(number, os.strerror(number))
    assert not list(tmp_path.iterdir())


def test_what_was_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def renamed(old, new):
        calls.append(f"{os.path.basename(old)} -> {os.path.basename(new)}")
        replace(old, new)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_text(tmp_path / "a.txt", "a")
    assert calls == ["a.txt.partial", "a.txt.partial -> a.txt", tmp_path.name]
    calls.clear()
    fill(tmp_path / "folder", "new")
    assert calls == ["a.txt", "folder.partial", "folder.partial -> folder", tmp_path.name]


def test_a_kill_leaves_nothing_that_the_next_start_does_not_mend(tmp_path, monkeypatch):
    """At each step of replacing and of removing a folder."""

    class Killed(BaseException):
        pass

    steps = ("rename", "replace", "rmdir", "unlink", "mkdir")

    def run_killed(action, at):
        count = 0

        def counted(real):
            def call(*args, **kwargs):
                nonlocal count
                count += 1
                if count >= at:
                    raise Killed
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in steps:
                patch.setattr(os, name, counted(getattr(os, name)))
            try:
                action()
            except Killed:
                return True
        return False

    def refill():
        fill(tmp_path / "best", "new")

    for action, allowed in ((refill, {"old", "new"}), (None, {"old", None})):
        at, killed = 1, True
        while killed:
            fill(tmp_path / "best", "old")
            (tmp_path / "best" / "deep").mkdir()
            killed = run_killed(action or (lambda: remove_folder(tmp_path / "best")), at)
            clear_leftovers(tmp_path)
            assert {path.name for path in tmp_path.iterdir()} <= {"best"}, at
            file = tmp_path / "best" / "a.txt"
            assert (file.read_text() if file.parent.exists() else None) in allowed, at
            at += 1
        assert at > 4


def test_leftovers_of_a_run_inside_are_its_own(tmp_path):
    inner = tmp_path / "controls" / "own"
    inner.mkdir(parents=True)
    for path in (tmp_path / "config.toml", inner / "config.toml", inner / "a.partial"):
        path.write_text("")
    (tmp_path / "scored.partial").mkdir()
    (tmp_path / "scored.partial" / "a").write_text("half")
    clear_leftovers(tmp_path)
    assert (inner / "a.partial").is_file() and not (tmp_path / "scored.partial").exists()


@pytest.mark.parametrize("command", ["status", "report", "train"])
def test_what_the_disk_refuses_is_one_line_whoever_asks(command, capsys):
    name = "a" * 300
    with pytest.raises(SystemExit) as end:
        main([command, *(["--run"] if command == "train" else []), name])
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.count("\n") == 1
    assert f"{name}" in said and "(File name too long); choose a shorter name" in said
