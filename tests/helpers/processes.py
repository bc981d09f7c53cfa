"""Several processes that share a stage, as a launcher would start them: forked, so that each begins
with what is imported already."""

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrpt.cli.main import main

PATIENCE = 900
"""Seconds until processes that do not end are killed: the test fails then."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How one of the processes ended."""

    code: int | None
    out: str
    err: str


def in_processes(count: int, work: Callable[[int], Any], **environment: str) -> list[Ended]:
    """Calls `work` with the rank of each of `count` processes; how each ended, by rank."""
    # The port stays bound, so that no other program is given it before rank 0 listens there.
    with socket.socket() as held, tempfile.TemporaryDirectory() as folder:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        launched = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
        launched |= {"MASTER_PORT": str(held.getsockname()[1]), "LOCAL_WORLD_SIZE": str(count)}
        launched |= environment
        context = multiprocessing.get_context("fork")
        files = [
            [Path(folder) / f"{rank}.{name}" for name in ("out", "err")] for rank in range(count)
        ]
        processes = []
        for rank in range(count):
            own = launched | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = context.Process(target=_child, args=(work, rank, own, files[rank]))
            process.start()
            processes.append(process)
        until = time.monotonic() + PATIENCE
        for process in processes:
            process.join(max(until - time.monotonic(), 0))
            if process.is_alive():
                process.kill()
                process.join()
        return [
            Ended(code=process.exitcode, out=out.read_text(), err=err.read_text())
            for process, (out, err) in zip(processes, files, strict=True)
        ]


def commands(count: int, *arguments: str, **environment: str) -> list[Ended]:
    """Runs a command of openrpt in `count` processes; how each ended, by rank."""
    return in_processes(count, lambda rank: main(list(arguments)), **environment)


def await_files(folder: Path, *names: str) -> None:
    """Waits for other processes; one that waits in vain is killed in the end, as all are."""
    while not all((folder / name).exists() for name in names):
        time.sleep(0.01)


def _child(
    work: Callable[[int], Any], rank: int, environment: dict[str, str], files: list[Path]
) -> None:
    os.environ.update(environment)
    for number, path in zip((1, 2), files, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        work(rank)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
