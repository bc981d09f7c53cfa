"""`openrpt watch`: the reports of runs in the browser, kept up to date while the runs go on.

A server for this machine only. It reads a run's files and changes none; a page that was drawn is
kept until they change, and drawing is rationed, so that it takes little from a training that
shares the processor.
"""

import errno
import html
import json
import re
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

from openrpt.errors import UserError
from openrpt.runs.reading import look_at
from openrpt.runs.status import read_status

HOST = "127.0.0.1"
PORTS = range(8720, 8740)
"""The ports that are tried in turn where none is asked for."""
_REST = 10.0
"""A report is drawn anew when this many times its own drawing time has passed: a tenth of one
core at most."""


class Watched:
    """A run and the page that was last drawn of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._page = ""
        self._version = ""
        self._rest_until = 0.0

    def version(self) -> str:
        """Returns the version of the page that `page` would give: it changes with the run's files,
        but not before the drawing has rested."""
        if self._version and time.monotonic() < self._rest_until:
            return self._version
        return _files_version(self.path)

    def page(self) -> str:
        """Returns the report, drawn anew where the run's files have changed."""
        with self._lock:
            version = self.version()
            if version != self._version:
                import openrpt.report.page  # noqa: F401  seconds, the first time: no part of drawing

                started = time.monotonic()
                self._page = draw(self.path)
                now = time.monotonic()
                self._version, self._rest_until = version, now + _REST * (now - started)
            return self._page

    def state(self) -> dict[str, Any]:
        """Returns the run's status and its page's version; or an error, as long as no run is
        there."""
        try:
            return read_status(self.path).as_dict() | {"version": self.version()}
        except Exception as error:  # a folder may hold anything, and other runs are shown beside it
            said = _describe(error)
            return {"path": str(self.path), "error": said, "version": self.version()}


def _files_version(run: Path) -> str:
    """Returns another text whenever the run has written anything that its report shows."""
    facts = []
    for name in ("config.toml", "metrics.jsonl", "evaluation.json", "patterns.json", "rollouts"):
        try:
            stat = (run / name).stat()
        except OSError:
            continue
        facts.append(f"{name}:{stat.st_mtime_ns}:{stat.st_size}")
    return "|".join(facts) or "empty"


def draw(path: Path) -> str:
    """Draws the run's report; where no run is yet, or none that can be shown, a page that says
    so."""
    from openrpt.report.page import render

    try:
        run, notes = look_at(path)
        return render(run, notes=notes)
    except Exception as error:  # as in `Watched.state`
        return f"<!doctype html><meta charset=utf-8><p>{html.escape(_describe(error))}</p>"


def _describe(error: Exception) -> str:
    """Returns an error in words: our own messages as they are; of others, what they are as well."""
    if isinstance(error, UserError):
        return str(error)
    return f"cannot be shown: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


class Server(ThreadingHTTPServer):
    """The server of the watched runs, for this machine only."""

    daemon_threads = True
    # On Windows this option would let two servers share a port.
    allow_reuse_address = sys.platform != "win32"

    def __init__(self, port: int, watched: Sequence[Watched]) -> None:
        self.watched = watched
        super().__init__((HOST, port), _Handler)

    @property
    def url(self) -> str:
        """The address of the server's page."""
        return f"http://{HOST}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    """The answers to the browser's requests."""

    server: Server

    def do_GET(self) -> None:
        """Answers with the page of the runs, a run's report or a run's state."""
        # A page elsewhere whose name was made to point here would give its own name as the host.
        if self.headers.get("Host") not in {f"{h}:{self.server.server_port}" for h in _HOSTS}:
            self.send_error(HTTPStatus.FORBIDDEN, "this server answers this machine only")
            return
        path = self.path.partition("?")[0]
        match = re.fullmatch(r"/run/(\d{1,4})(/report)?", path)
        if match and int(match[1]) >= len(self.server.watched):
            match = None
        if path == "/state":
            runs = [watched.state() for watched in self.server.watched]
            self._answer(json.dumps({"runs": runs}), "application/json")
        elif match and match[2]:
            self._answer(self.server.watched[int(match[1])].page(), "text/html")
        elif path == "/" or match:
            self._answer(_shell(), "text/html")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _answer(self, text: str, kind: str) -> None:
        body = text.encode("utf-8")
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "SAMEORIGIN")
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:  # the browser has left the page
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Writes nothing: a line every two seconds helps nobody."""


_HOSTS = (HOST, "localhost")


def _shell() -> str:
    """Returns the page around a report: a table of the runs, and the frame that follows one of
    them."""
    return files("openrpt.report").joinpath("watch.html").read_text(encoding="utf-8")


def make_server(paths: Sequence[Path], port: int | None = None) -> Server:
    """Listens, and answers once `serve_forever` runs. Port 0: any free one.

    Raises UserError for a folder that is not there and a port that is taken.
    """
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path}: no such run folder; start the run, then watch it")
    watched = [Watched(path) for path in paths]
    for candidate in PORTS if port is None else (port,):
        try:
            return Server(candidate, watched)
        except PermissionError:
            if port is None:  # Windows keeps some ports to itself
                continue
            raise UserError(f"port {candidate}: not allowed; choose one from 1024 on") from None
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    if port is None:
        raise UserError(
            f"ports {PORTS[0]} to {PORTS[-1]} are all in use; give another: --port 9000"
        )
    raise UserError(f"port {port} is in use; choose another, or none: the first free one is taken")


def serve(
    paths: Sequence[Path],
    *,
    port: int | None,
    open_browser: bool,
    say: Callable[[str], object],
) -> None:
    """Serves until Ctrl-C."""
    with make_server(paths, port) as server:
        runs = "1 run" if len(paths) == 1 else f"{len(paths)} runs"
        say(f"watching {runs} at {server.url} (Ctrl-C ends it)")
        if open_browser and not webbrowser.open(server.url):
            say(f"no browser was found here; open {server.url} yourself")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("stopped; the runs go on")
