"""Runs a Python program that nobody has read, behind walls that Linux builds (`sandbox_worker`).

What holds it: namespaces of its own of processes, files, network and IPC, an ordinary user without
rights, and limits of time (wall and CPU), memory, size of files and number of processes (one, with
one thread). It sees Python's library and the machine's, read-only, and an empty folder that goes
with it: no file of the user's, no network, no environment, no input. Where a machine can't build
one of these walls nothing is run.

What does not hold it: the kernel's own faults, and a program that is written to deceive. Tests run
in the process of the program that they test, so one that is made for it can pass them wrongly.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from openrpt.errors import UserError

WORKER = Path(__file__).with_name("sandbox_worker.py")
_START_SECONDS = 30
"""The most time that the walls may take to build, beside the program's own."""
_Verdict = Literal["passed", "failed", "time", "memory"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits of one program."""

    seconds: float = 10.0
    """Seconds of wall time, and of CPU time rounded up."""
    memory_mib: int = 1024
    """Address space in MiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The way a program ended."""

    verdict: _Verdict
    """The verdict; passed: it ran to its end without an exception."""
    error: str = ""
    """The exception that ended it."""


@cache
def require_sandbox() -> None:
    """Checks, by trying, that this machine can build the walls. Raises UserError where it can't."""
    if sys.platform != "linux":
        raise UserError(
            "programs can be walled in on Linux only: run this in WSL, a container or a virtual"
            " machine, or leave out --coding.run_code"
        )
    found = _ask("import decimal, random", Limits())
    if found.verdict != "passed":
        raise UserError(
            f"programs can't run behind this machine's walls ({found.verdict} {found.error}); leave"
            " out --coding.run_code"
        )


def run_program(source: str, limits: Limits) -> Outcome:
    """Runs a program to its end; a program that ends itself (`sys.exit`) has not reached it.

    Raises UserError where this machine can't build the walls.
    """
    require_sandbox()
    # Half a surrogate pair, which no source may hold, as a string's escape: the same text.
    return _ask(source.encode("utf-8", "backslashreplace").decode(), limits)


def _ask(source: str, limits: Limits) -> Outcome:
    asked = {"source": source, "seconds": limits.seconds, "memory": limits.memory_mib << 20}
    with tempfile.TemporaryDirectory(prefix="openrpt-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(WORKER), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            start_new_session=True,
        )
        try:
            data = json.dumps(asked).encode()
            said, _ = process.communicate(data, timeout=limits.seconds + _START_SECONDS)
        except subprocess.TimeoutExpired:
            return Outcome(verdict="time")
        finally:
            _end(process)
    if not said:
        return Outcome(verdict="failed", error="something on this machine ended it")
    reply = json.loads(said)
    if "refused" in reply:
        raise UserError(
            f"this machine can't wall programs in ({reply['refused']}): leave out"
            " --coding.run_code, or run it where a user may have namespaces (Linux 5.12 or later;"
            " a container needs the right to make them)"
        )
    return Outcome(verdict=reply["verdict"], error=reply["error"])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the keeper and the judge, and with the judge all processes of its namespace."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=_START_SECONDS)
