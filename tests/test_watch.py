"""The server behind `openrpt watch`: what it answers, and that it reads only."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from fake_run import fake_run, train_row

from openrpt import watch
from openrpt.errors import UserError
from openrpt.metrics import append_metrics
from openrpt.watch import Server, Watched, make_server


@contextmanager
def serving(*paths: Path) -> Iterator[Server]:
    with make_server(paths, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


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
    monkeypatch.setattr(watch, "REST", 0.0)
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


def test_drawing_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def draw(path: Path) -> str:
        drawn.append(path)
        time.sleep(0.05)
        return str(len(drawn))

    monkeypatch.setattr(watch, "draw", draw)
    path = fake_run(tmp_path / "a")
    watched = Watched(path)
    assert watched.page() == watched.page() == "1"
    append_metrics(path / "metrics.jsonl", train_row(5))
    assert watched.page() == "1"  # within ten times the drawing's 0.05 s
    time.sleep(0.6)
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
