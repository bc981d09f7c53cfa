"""The process in which `openrpt.sandbox` runs a program: it limits itself, then runs what it reads
from its standard input. Its arguments: a token, seconds, bytes of memory.

Imports nothing of OpenRPT: it runs by its path. It reports with the token, on a file of its own:
`TOKEN passed` once the program has come to its end, so that neither a program's output nor its
early exit passes for that by accident.
"""

import ctypes
import math
import os
import resource
import sys

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
"""Flags of Linux's unshare(2)."""
FILE_BYTES = 16 << 20
PROCESSES = 64


def go_offline() -> bool:
    """A network namespace of its own, which has no way out; False where that is not allowed."""
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None, use_errno=True).unshare(NEW_USER | NEW_NETWORK) == 0


def limit(seconds: float, memory: int) -> None:
    cpu = math.ceil(seconds)
    limits = {
        resource.RLIMIT_CPU: (cpu, cpu + 1),
        resource.RLIMIT_AS: (memory, memory),
        resource.RLIMIT_FSIZE: (FILE_BYTES, FILE_BYTES),
        resource.RLIMIT_NPROC: (PROCESSES, PROCESSES),
        resource.RLIMIT_CORE: (0, 0),
    }
    for name, (soft, hard) in limits.items():
        most = resource.getrlimit(name)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        try:
            resource.setrlimit(name, (soft, hard))
        except (ValueError, OSError):  # macOS refuses some; the wall time still holds
            continue


def main(token: str, seconds: float, memory: int) -> None:
    source = sys.stdin.buffer.read().decode()
    report = os.fdopen(os.dup(1), "w")
    with open(os.devnull, "r+b") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)  # what the program prints goes nowhere
    if go_offline():
        print(token, "offline", file=report, flush=True)
    limit(seconds, memory)
    sys.argv = ["program.py"]
    verdict = "passed"
    try:
        exec(compile(source, "program.py", "exec"), {"__name__": "__main__"})
    except MemoryError:
        verdict = "memory MemoryError"
    except BaseException as error:  # SystemExit, too: the tests come last
        message = " ".join(str(error).split())[:200]
        verdict = f"failed {type(error).__name__}: {message}"
    print(token, verdict, file=report, flush=True)
    os._exit(0)  # no handlers that the program has left


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
