"""Servers on this machine that speak JSON, each in a thread."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer
from typing import Any


class JsonHandler(BaseHTTPRequestHandler):
    """Reads and writes JSON; a server's own class says what to which request."""

    def log_message(self, *_: Any) -> None: ...

    def reply(self, status: int, body: Any = None, **headers: str) -> None:
        """Answers; a header's name has underscores in place of its hyphens."""
        data = json.dumps({} if body is None else body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self) -> Any:
        """Returns what was sent."""
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))


@contextmanager
def in_thread(server: BaseServer) -> Iterator[None]:
    """Lets a server that is bound answer while the block runs."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def json_server(handler: type[JsonHandler]) -> Iterator[str]:
    """Serves while the block runs; yields the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, in_thread(server):
        yield f"http://127.0.0.1:{server.server_port}"
