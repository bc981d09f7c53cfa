"""The server behind `openrpt watch`, in a thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openrpt.report.watch import Server, make_server
from tests.helpers.json_server import in_thread


@contextmanager
def serving(*paths: Path) -> Iterator[Server]:
    with make_server(paths, 0) as server, in_thread(server):
        yield server
