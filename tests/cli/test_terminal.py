"""What reaches the terminal: hidden characters are named; any encoding and closed streams do."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table
from rich.text import Text

from openrpt.cli.main import main
from openrpt.console import PlainConsole
from openrpt.progress import live_progress
from openrpt.runs.metrics import append_metrics
from openrpt.runs.rollouts import write_rollouts
from openrpt.terminal import KEPT, LONGEST_ERROR, printable, say, say_error
from tests.helpers.fake_run import fake_run, rollout, train_row

HOSTILE = "n\x1b]0;title\x07\x1b[31m\x9b2J\x7f\u202eevil\u2066"
NAMED = "⟨U+001B⟩"
ROOT = Path(__file__).parents[2]


def hidden(output: str) -> list[str]:
    """What a terminal would take for a command, or show in another order."""
    return re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", output)


def openrpt(*arguments: object, shell: str = "", **environment: str) -> Any:
    """The command as a process: what it is done with, as bytes. `shell`: redirections."""
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-m", "openrpt"]
    return subprocess.run(
        [*command, *(os.fsencode(str(one)) for one in arguments)],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "300"} | environment,
        cwd=ROOT,
    )


@pytest.fixture
def written(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command in this process: its exit code, and all that it has written."""
    monkeypatch.setenv("COLUMNS", "300")

    def call(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(one) for one in arguments])
        return int(str(stopped.value.code or 0)), "".join(capfd.readouterr())

    return call


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command in this process, with streams of an encoding, as PYTHONIOENCODING makes
    them: its exit code, and what it has written to stdout and to stderr, as bytes."""
    monkeypatch.setenv("COLUMNS", "300")

    def call(encoding: str, *arguments: object) -> tuple[int, bytes, bytes]:
        written = io.BytesIO(), io.BytesIO()
        for name, data in zip(("stdout", "stderr"), written, strict=True):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(data, encoding, write_through=True))
        with pytest.raises(SystemExit) as stopped:
            main([str(one) for one in arguments])
        return int(str(stopped.value.code or 0)), written[0].getvalue(), written[1].getvalue()

    return call


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its documents, rewards, warnings and its own name hold escape sequences."""
    path = fake_run(tmp_path_factory.mktemp("hostile") / f"run {HOSTILE}")
    warning = {"name": HOSTILE, "step": 5, "seen": HOSTILE, "helps": HOSTILE}
    append_metrics(path / "metrics.jsonl", train_row(5, warnings=[warning]))
    terms = [{"name": HOSTILE, "value": 0.5}]
    write_rollouts(path, 4, [rollout(f"d{HOSTILE}", reward_terms=terms, step=4)])
    return path


def test_only_what_is_hidden_is_named() -> None:
    kept = "Grüße, 中文字, 😀, naïve\u00a0café\n\tline two"
    assert printable(kept, KEPT) == kept and printable(kept).endswith("⏎⇥line two")
    assert printable("\r\x00\x85\u200b\ud800") == "␍⟨U+0000⟩⟨U+0085⟩⟨U+200B⟩⟨U+D800⟩"
    assert hidden(printable("".join(map(chr, range(0x3000))))) == []


def test_messages_are_named_and_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"{HOSTILE}\nforged")
    say_error(f"a\nb {HOSTILE}")
    say_error(f"first {'x' * 100_000} what to do")
    out, err = capsys.readouterr()
    assert hidden(out + err) == [] and NAMED in out and out.endswith("⏎forged\n")
    first, second = err.splitlines()
    assert first.startswith("openrpt: a b n⟨U+001B⟩")
    assert len(second) < LONGEST_ERROR + 20
    assert second.startswith("openrpt: first xxx") and second.endswith("xxx what to do")


def test_tables_name_what_is_hidden_and_read_no_markup() -> None:
    console = PlainConsole()
    table = Table(HOSTILE, "[link=file:///x]a[/link] :smile: [/b]", title=f"[b]{HOSTILE}")
    table.add_row(HOSTILE, Text(HOSTILE))
    with console.capture() as capture:
        console.print(table, HOSTILE, Text(HOSTILE), soft_wrap=True)
        console.print(f"[/red] {HOSTILE}")
    shown = capture.get()
    assert hidden(shown) == [] and NAMED in shown
    assert "[link=file:///x]a[/link] :smile: [/b]" in shown and "[/red]" in shown


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_names_what_is_hidden_and_reads_no_markup(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
        monkeypatch.setenv("TERM", "xterm")
    with live_progress() as progress:
        progress.begin(f"[/b]{HOSTILE}", 2106.25, "tokens")
        progress.update(1000, f"[/i]{HOSTILE}")
        progress.say(f"[/u]{HOSTILE}")
    shown = capsys.readouterr().err
    assert f"[/u]n{NAMED}" in shown and f"[/b]n{NAMED}" in shown
    assert re.findall("\x1b\\]|\x1b\\[31m|[\x07\x9b\x7f\u202e]", shown) == []
    assert terminal or "(2,106 tokens)" in shown


@pytest.mark.parametrize("command", ["status", "rollouts", "report", "train"])
def test_escape_sequences_of_a_run_folder_stay_text(
    hostile_run: Path, command: str, written: Any
) -> None:
    arguments = ["--run", hostile_run, "--seed", 5] if command == "train" else [hostile_run]
    code, output = written(command, *arguments)
    assert code == (2 if command == "train" else 0), output
    assert hidden(output) == [] and NAMED in output


def test_json_is_exact_and_plain(hostile_run: Path, encoded: Any) -> None:
    _, out, _ = encoded("ascii", "rollouts", hostile_run, "--json")
    assert hidden(out.decode("ascii")) == []
    (row,) = map(json.loads, out.decode().splitlines())
    assert row["document_id"] == f"d{HOSTILE}"


def test_escape_sequences_of_a_corpus_stay_text(tmp_path: Path, written: Any) -> None:
    (tmp_path / "c.jsonl").write_text(json.dumps({HOSTILE: "a"}) + "\n", encoding="utf-8")
    code, output = written("score", tmp_path / "c.jsonl", "--run", tmp_path / "run")
    assert code == 2
    assert hidden(output) == [] and NAMED in output


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("command", ["status", "report"])
def test_any_encoding_is_enough(
    hostile_run: Path, command: str, encoding: str, encoded: Any
) -> None:
    """A message, a table and text with signs that the encoding lacks."""
    code, out, err = encoded(encoding, command, hostile_run)
    assert (code, err) == (0, b"")
    assert hidden(out.decode(encoding)) == [] and b"\\u27e8U+001B\\u27e9" in out


@pytest.mark.usefixtures("small_products")
def test_tables_in_ascii(encoded: Any) -> None:
    code, out, _ = encoded("ascii", "doctor")
    assert code == 0 and b"torch" in out


def test_an_encoding_is_that_of_the_environment(hostile_run: Path) -> None:
    done = openrpt("status", hostile_run, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u27e8U+001B\\u27e9" in done.stdout and done.stdout.isascii()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell's redirections")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams(hostile_run: Path, closed: str) -> None:
    done = openrpt("status", hostile_run, shell=closed)
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) is not (">&-" in closed.split())
    done = openrpt("status", hostile_run / "none", shell=closed)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == (0 if "2>&-" in closed else 1)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell's redirections")
def test_a_closed_stdout_writes_into_no_file(tmp_path: Path) -> None:
    """The number of a closed stdout goes to the null device, and not to a file of the run."""
    path = fake_run(tmp_path / "run")
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert openrpt("status", path, shell=">&-").returncode == 0
    assert openrpt("patterns", path, "--out", tmp_path / "p", shell=">&-").returncode == 0
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
