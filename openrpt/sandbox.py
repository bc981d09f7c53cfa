"""Runs a Python program that nobody has read, in a process of its own with limits.

What holds it: time (wall and CPU), memory, size of files, number of processes, an empty temporary
folder as its home and working folder, no inherited environment, no input; on Linux, where the
kernel lets a user have namespaces, no network either. Everything that it started is killed with
it. That keeps accidents in; it is no wall against a program that means harm: it can still read
what the user can read. For that use a container or a virtual machine.
"""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openrpt.errors import UserError

WORKER = Path(__file__).with_name("sandbox_worker.py")
Verdict = Literal["passed", "failed", "time", "memory"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    seconds: float = 10.0
    """Of wall time, and of CPU time rounded up."""
    memory_mib: int = 1024
    """Of address space."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    verdict: Verdict
    """passed: it ran to its end without an exception."""
    error: str = ""
    """The exception that ended it."""
    offline: bool = False
    """It had no network."""


def require_sandbox() -> None:
    """Raises UserError where there are no limits for processes."""
    if sys.platform == "win32":
        raise UserError(
            "programs can't be limited on Windows: run them in WSL, or leave out the flag that runs"
            " them"
        )


def run_program(source: str, limits: Limits) -> Outcome:
    """Runs a program to its end; a program that ends itself (`sys.exit`) has not reached it."""
    require_sandbox()
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="openrpt-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-B", str(WORKER)),
                *(token, str(limits.seconds), str(limits.memory_mib << 20)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"HOME": folder, "TMPDIR": folder, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            start_new_session=True,
        )
        try:
            # Two seconds for the interpreter to start; the CPU limit is the program's own.
            said, _ = process.communicate(source.encode(), timeout=limits.seconds + 2)
        except subprocess.TimeoutExpired as late:
            said = late.stdout or b""
        finally:
            _kill_group(process)
    lines = [line.split(" ", 2) for line in said.decode(errors="replace").splitlines()]
    reported = {line[1]: line[-1] for line in lines if len(line) > 1 and line[0] == token}
    offline = "offline" in reported
    for verdict in ("passed", "failed", "memory"):
        if verdict in reported:
            error = "" if verdict == "passed" else reported[verdict]
            return Outcome(verdict=verdict, error=error, offline=offline)
    ended_early = process.returncode not in (-signal.SIGXCPU, -signal.SIGKILL)
    return Outcome(verdict="failed" if ended_early else "time", offline=offline)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """The program and whatever it left running in its session."""
    with suppress(ProcessLookupError, PermissionError):  # all gone (macOS says it the second way)
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
