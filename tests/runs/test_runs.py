"""load_run and status: what a run folder holds, whatever state it is in."""

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import polars
import pytest
from click.testing import CliRunner

import openrpt
from openrpt.cli.main import cli
from openrpt.errors import UserError
from openrpt.runs.journal import StageRecord
from openrpt.runs.metrics import append_metrics, read_metrics, readable_metrics, truncate_metrics
from openrpt.runs.rollouts import write_rollouts
from openrpt.runs.show import print_groups
from openrpt.runs.status import read_status
from openrpt.types import Split
from tests.helpers.fake_run import fake_run, rollout, train_row
from tests.helpers.tiny_model import tiny_run


def test_tables(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "run")
    append_metrics(path / "metrics.jsonl", {"stage": "warmup", "step": 1, "loss/imitation": 2.0})
    warning = {"name": "all_flat", "step": 5, "seen": "x", "helps": "y"}
    append_metrics(path / "metrics.jsonl", train_row(5, extra=1.0, warnings=[warning]))
    run = openrpt.load_run(path)
    metrics = run.metrics()
    assert metrics.num_rows == 6 and "warnings" not in metrics.column_names
    assert metrics["extra"].to_pylist() == [None] * 5 + [1.0]
    frame = run.metrics("train").to_pandas()
    assert frame["step"].tolist() == [1, 2, 3, 4, 5] and "loss/imitation" not in frame
    assert polars.from_arrow(run.rollouts()).shape[0] == 4 * 8
    assert set(run.rollouts(2)["step"].to_pylist()) == {2}
    assert run.steps == [1, 2, 3, 4] and run.config.train.steps == 10
    assert run.warnings == [{"stage": "train"} | warning]
    assert run.evaluation["evaluations"] == {}
    with pytest.raises(UserError, match="no rollouts of step 9"):
        run.rollouts(9)


def test_scores_are_a_table(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, corpus__heldout_fraction=0.3)
    table = openrpt.load_run(run.path).scores()
    corpus = openrpt.load_scored(run.scored)
    rows = table.to_pylist()
    splits = {row["split"] for row in rows}
    assert splits == {one for one in get_args(Split) if corpus.ids(one)} and len(splits) > 1
    for split in splits:
        document = corpus.document(corpus.ids(split)[0])
        own = [row for row in rows if row["document_id"] == document.document_id]
        assert {row["split"] for row in own} == {split}
        assert [row["token_id"] for row in own] == document.token_ids.tolist()
        assert [row["entropy"] for row in own][1:] == document.entropy.tolist()[1:]
    assert polars.from_arrow(table).shape[0] == len(rows)
    with pytest.raises(UserError, match="no scores here"):
        openrpt.load_run(fake_run(tmp_path / "fake")).scores()


def test_public_names_are_completed() -> None:
    assert set(openrpt.__all__) <= set(dir(openrpt))


def test_the_report_shows_inline(tmp_path: Path) -> None:
    run = openrpt.load_run(fake_run(tmp_path / "run"))
    found = {}

    class Frame(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            found[tag] = dict(attributes)

    report = run.report()
    Frame().feed(report._repr_html_())
    assert list(found) == ["iframe"]  # the page is inside an attribute, whole
    assert found["iframe"]["srcdoc"] == report.page and "</html>" in report.page


def test_import_stays_light() -> None:
    code = (
        "import sys, openrpt, openrpt.runs.status, openrpt.report.watch; openrpt.load_run\n"
        "print({'torch', 'pyarrow'} & set(sys.modules))\n"
        "import openrpt.runs.rollouts, openrpt.runs.show, openrpt.report.page\n"
        "import openrpt.evaluation.next_token.compare\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\nset()\n"


def test_a_run_in_a_bad_state_shows_what_is_there(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "run")
    with (path / "config.toml").open("a") as file:
        file.write("\n[novelty]\nkey = 1\n")
    text = (path / "config.toml").read_text().replace("[train]", "[train]\nfuture = 2")
    (path / "config.toml").write_text(text)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "train", "st')
    (path / "environment.json").write_text('{"openrpt": "99.0"}')
    run = openrpt.load_run(path)
    notes = " / ".join(run.notes)
    assert "train.future" in notes and "novelty" in notes
    assert "99.0" in notes and "last line is cut" in notes
    assert run.metrics().num_rows == 4 and run.config.train.steps == 10
    assert "cut" in repr(run)

    (path / "config.toml").write_text("run = [")
    assert "not valid TOML" in openrpt.load_run(path).notes[0]
    (path / "config.toml").unlink()
    assert "config.toml is missing" in openrpt.load_run(path).notes[0]
    status = read_status(path)
    assert status.step == 4 and any("missing" in note for note in status.notes)


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        openrpt.load_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is empty"):
        openrpt.load_run(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="not a run folder"):
        openrpt.load_run(tmp_path)


def test_time_left_by_steps_and_by_limit(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "steps")  # 4 of 10 steps, 10 s each
    now = (path / "metrics.jsonl").stat().st_mtime + 7
    status = read_status(path, now=now)
    assert (status.step, status.goal, status.share) == (4, 10, 0.4)
    assert status.seconds_left == pytest.approx(60) and status.age == pytest.approx(7)
    assert status.state == "running"
    assert read_status(path, now=now + 3600).state == "quiet"
    limited = read_status(fake_run(tmp_path / "limit", seconds=60.0))
    assert limited.seconds_left == pytest.approx(20) and limited.share == pytest.approx(2 / 3)
    assert limited.goal == 0
    # A stage that its limit ended early is done all the same; one that was interrupted is not.
    done = read_status(fake_run(tmp_path / "done", seconds=60.0, state="done"))
    assert (done.state, done.share, done.seconds_left) == ("done", 1, 0)
    stopped = fake_run(tmp_path / "stopped", state="stopped")
    assert read_status(stopped, now=now + 3600).state == "stopped"
    StageRecord(stage="finetune", steps=5, seconds=0.0, state="running").write(stopped)
    next_stage = read_status(stopped)
    assert (next_stage.stage, next_stage.step, next_stage.goal) == ("finetune", 0, 5)
    assert next_stage.state == "running" and next_stage.seconds_left is None
    (stopped / "stage.json").write_text("{}")
    damaged = read_status(stopped)
    assert any("stage.json" in note for note in damaged.notes)
    begun = read_status(fake_run(tmp_path / "begun", steps=0))
    assert begun.state == "not begun" and begun.seconds_left is None
    assert any("no metrics yet" in note for note in begun.notes)


def test_status_command(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "run")
    seen = "95% of the groups"
    warning = {"name": "all_flat", "step": 5, "seen": seen, "helps": "more candidates"}
    append_metrics(path / "metrics.jsonl", train_row(5, warnings=[warning]))
    done = CliRunner().invoke(cli, ["status", str(path), str(tmp_path / "nowhere")])
    assert "step 5 of 10" in done.output and "left" in done.output
    assert "! all_flat (train step 5): 95% of the groups" in done.output
    assert "no such folder" in str(done.exception)
    both = CliRunner().invoke(cli, ["status", str(path), str(path), "--json"]).output
    assert [json.loads(line)["step"] for line in both.splitlines()] == [5, 5]


def test_damaged_metrics_are_named(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "run")
    lines = (path / "metrics.jsonl").read_text().splitlines()
    (path / "metrics.jsonl").write_text("\n".join(["{", *lines]) + "\n")
    assert any("metrics.jsonl:1" in note for note in read_status(path).notes)
    (path / "metrics.jsonl").write_text(json.dumps(train_row(3, seconds=None)) + "\n")
    assert read_status(path).step == 3 and read_status(path).seconds_left is None
    (path / "metrics.jsonl").write_text("[1]")
    assert any("its last line is cut off" in note for note in read_status(path).notes)


def test_a_damaged_line_is_named_with_what_helps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [train_row(step) for step in range(1, 7)]
    lines = [json.dumps(row).encode() for row in rows]
    for tail in (b"", b'{"stage": "tr', b"\x00" * 600, b"\xff\xfe", lines[0][:40] + b"\x80"):
        path.write_bytes(b"\n".join(lines) + b"\n" + tail)
        assert read_metrics(path) == rows
    for damaged in (b"{", b"\xff" + lines[1], b"\x00" * 9, b'["stage", "step"]', b'{"stage": 1}'):
        path.write_bytes(b"\n".join([lines[0], damaged, *lines[2:]]) + b"\n")
        with pytest.raises(
            UserError, match=r"metrics\.jsonl:2: damaged, .*; delete that line"
        ) as e:
            truncate_metrics(path, "train", 5)
        assert "\n" not in str(e.value)
        found, notes = readable_metrics(path)
        assert [row["step"] for row in found] == [1, 3, 4, 5, 6]
        assert notes == ["metrics.jsonl:2: damaged and left out"]
    path.write_bytes(b"\n".join([lines[0], *lines[2:]]) + b"\n")  # as the message says
    truncate_metrics(path, "train", 5)
    assert [row["step"] for row in read_metrics(path)] == [1, 3, 4, 5]


def test_the_report_of_a_run_in_a_bad_state_says_so(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "run")
    (path / "config.toml").unlink()
    done = CliRunner().invoke(cli, ["report", str(path)])
    assert done.exit_code == 0 and "note: config.toml is missing" in done.stderr
    assert (path / "report.html").is_file()


def test_rollouts_have_colours_and_hide_nothing(tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(force_terminal=True, color_system="standard", width=200)
    rows = [rollout(thought=b"a\x1b[31m", reward=1.0), rollout(number=1, reward=0.0)]
    with console.capture() as capture:
        print_groups(rows, console)
    right, wrong = [line for line in capture.get().splitlines() if "reward" in line]
    assert "\x1b[32m" in right and "\x1b[32m" not in wrong
    assert "\x1b[31m" not in capture.get() and "a⟨U+001B⟩[31m" in capture.get()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_long_output_goes_through_the_pager(tmp_path: Path) -> None:
    import pty

    path = fake_run(tmp_path / "run", steps=0)
    write_rollouts(path, 1, [rollout("d0", position) for position in range(30)])
    pager = tmp_path / "pager.sh"
    pager.write_text(f"#!/bin/sh\ncat > {tmp_path}/paged\n")
    pager.chmod(0o755)
    main, end = pty.openpty()
    command = [sys.executable, "-m", "openrpt", "rollouts", str(path), "--limit", "40"]
    settings = os.environ | {"PAGER": str(pager), "LINES": "24", "COLUMNS": "100", "TERM": "xterm"}
    process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, env=settings)
    os.close(end)
    output = b""
    while chunk := read_some(main):
        output += chunk
    os.close(main)
    assert process.wait() == 0
    assert b"position 0" not in output
    assert "position 29" in (tmp_path / "paged").read_text()


def read_some(descriptor: int) -> bytes:
    """Linux says the other end's closing by an error."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


@pytest.mark.parametrize(
    "text",
    ["", "5", '"x"', "[{}]", "{}", "[" * 100_000, '{"openrpt": null}', '{"openrpt": [1]}', "\0"],
    ids=lambda text: text[:20],
)
@pytest.mark.parametrize("name", ["environment.json", "stage.json", "scored/cost.json"])
def test_files_beside_the_metrics_may_be_damaged(tmp_path: Path, name: str, text: str) -> None:
    path = fake_run(tmp_path / "run")
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text(text)
    for command in ("status", "report"):
        done = CliRunner().invoke(cli, [command, str(path)])
        assert done.exit_code == 0, done.exception


def test_numbers_of_a_cost_that_are_none_are_not_added(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "run")
    (path / "scored").mkdir(exist_ok=True)
    for value in ("null", "1e400", '"x"', "[]", "1" + "0" * 400):
        (path / "scored/cost.json").write_text(f'{{"flops": {value}, "seconds": 3}}')
        assert CliRunner().invoke(cli, ["report", str(path)]).exit_code == 0


def test_a_step_that_is_there_twice(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "run")
    text = (path / "metrics.jsonl").read_text().splitlines()[-1] + "\n"
    (path / "metrics.jsonl").write_text(text * 2)
    assert read_status(path).step == 4


@pytest.mark.parametrize(
    "text",
    [
        '{"format": 1}',
        "[]",
        '{"format": 1, "evaluations": 3}',
        '{"format": 1, "evaluations": {"a": {}}, "differences": []}',
    ],
)
def test_an_evaluation_of_another_shape_is_one_line(tmp_path: Path, text: str) -> None:
    path = fake_run(tmp_path / "run")
    (path / "evaluation.json").write_text(text)
    for command in ("control", "compare"):
        done = CliRunner().invoke(cli, [command, str(path)])
        assert isinstance(done.exception, UserError), command
        assert "delete it and evaluate again" in str(done.exception)
    assert CliRunner().invoke(cli, ["report", str(path)]).exit_code == 0
