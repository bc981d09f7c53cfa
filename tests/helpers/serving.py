"""The server behind `openrpt watch`, in a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openrpt.report.watch import Server, make_server


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
