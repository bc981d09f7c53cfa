"""The server behind `openrpt watch`: what it answers, and that it reads only."""

import json
import socket
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openrpt.errors import UserError
from openrpt.report import watch
from openrpt.report.watch import Server, Watched, make_server
from openrpt.runs.metrics import append_metrics
from tests.helpers.fake_run import fake_run, train_row
from tests.helpers.serving import serving


def get(server: Server, path: str, host: str = "") -> tuple[int, str]:
    connection = HTTPConnection(watch.HOST, server.server_port)
    connection.request("GET", path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def states(server: Server) -> list[dict[str, Any]]:
    return json.loads(get(server, "/state")[1])["runs"]


def files_of(path: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in path.rglob("*")}


def test_pages_of_several_runs_while_they_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_REST", 0.0)
    first, second = fake_run(tmp_path / "a"), fake_run(tmp_path / "b", steps=2)
    before = files_of(tmp_path)
    with serving(first, second) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert get(server, "/")[0] == get(server, "/run/1")[0] == 200
        one, other = states(server)
        assert (one["step"], other["step"]) == (4, 2)
        status, page = get(server, "/run/1/report")
        assert status == 200 and "2 steps of train" in page
        assert states(server)[1]["version"] == other["version"]
        assert files_of(tmp_path) == before  # nothing was written
        append_metrics(second / "metrics.jsonl", train_row(3))
        again = states(server)
        assert again[0]["version"] == one["version"] and again[1]["version"] != other["version"]
        assert "3 steps of train" in get(server, "/run/1/report")[1]


def test_what_is_not_there_and_who_may_ask(tmp_path: Path) -> None:
    with serving(fake_run(tmp_path / "a")) as server:
        for path in ("/run/1", "/run/1/report", "/run/x", "/../etc/passwd", "/config.toml"):
            assert get(server, path)[0] == 404, path
        # Another name that was made to point to this machine: DNS rebinding.
        assert get(server, "/state", host=f"evil.example:{server.server_port}")[0] == 403
        assert get(server, "/state", host=f"localhost:{server.server_port}")[0] == 200


def test_a_run_that_has_not_begun_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a<b>").mkdir()
    with serving(tmp_path / "a<b>") as server:
        (state,) = states(server)
        assert "is empty" in state["error"]
        page = get(server, "/run/0/report")[1]
        assert "is empty" in page and "a&lt;b&gt;" in page


def test_half_written_files(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "a")
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "tr')
    with serving(path) as server:
        (state,) = states(server)
        assert state["step"] == 4 and any("cut off" in note for note in state["notes"])
        assert "its last line is cut off" in get(server, "/run/0/report")[1]


def test_a_damaged_run_does_not_take_down_the_others(tmp_path: Path) -> None:
    """A torn block at the end of the metrics, a damaged line, and files of another shape."""
    whole, torn, middle = (fake_run(tmp_path / name) for name in ("whole", "torn", "middle"))
    shape, folder = fake_run(tmp_path / "shape"), fake_run(tmp_path / "folder")
    with (torn / "metrics.jsonl").open("ab") as file:
        file.write(b'{"stage": "train", "ste\xff\x00\x00')
    lines = (middle / "metrics.jsonl").read_bytes().split(b"\n")
    lines[1] = b"\xff" + lines[1]
    (middle / "metrics.jsonl").write_bytes(b"\n".join(lines))
    stage = {"stage": "train", "steps": "many", "seconds": 0, "state": "running"}
    (shape / "stage.json").write_text(json.dumps(stage))
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()
    with serving(whole, torn, middle, shape, folder) as server:
        found = states(server)
        assert [state.get("step") for state in found] == [4, 4, 4, 4, 0]
        assert any("last line is cut off" in note for note in found[1]["notes"])
        assert "metrics.jsonl:2: damaged and left out" in found[2]["notes"]
        assert any("stage.json: damaged (steps: " in note for note in found[3]["notes"])
        assert any("metrics.jsonl: cannot be read" in note for note in found[4]["notes"])
        pages = [get(server, f"/run/{i}/report") for i in range(5)]
        assert [status for status, _ in pages] == [200] * 5
        assert "metrics.jsonl:2: damaged and left out" in pages[2][1]
        assert "3 steps of train" in pages[2][1] and "4 steps of train" in pages[1][1]


def test_drawing_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, drawn = SimpleNamespace(now=100.0), []

    def draw(path: Path) -> str:
        drawn.append(path)
        clock.now += 0.05
        return str(len(drawn))

    monkeypatch.setattr(watch, "draw", draw)
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: clock.now))
    path = fake_run(tmp_path / "a")
    watched = Watched(path)
    assert watched.page() == watched.page() == "1"
    append_metrics(path / "metrics.jsonl", train_row(5))
    clock.now += 0.49
    assert watched.page() == "1"  # within ten times the drawing's 0.05 s
    clock.now += 0.02
    assert watched.page() == watched.page() == "2"


def test_ports(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "a", steps=1)
    with pytest.raises(UserError, match="start the run, then watch it"):
        make_server([tmp_path / "nowhere"])
    with socket.create_server((watch.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is in use; choose another"):
            make_server([path], port)
    with make_server([path]) as one, make_server([path]) as two:
        assert one.server_port != two.server_port
        assert {one.server_port, two.server_port} <= set(watch.PORTS)
