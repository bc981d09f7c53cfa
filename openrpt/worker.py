"""A process of its own for work that can hang or fill the memory inside one call into C, where no
signal reaches it: `Worker` asks, a module's `serve` answers, one JSON value a line either way.

What takes too long or too much memory ends the process; the next question starts another.
"""

import faulthandler
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openrpt.errors import UserError

_READY = "ready"
"""The first line of a process, once all that a question needs is imported."""


class Worker:
    """A module of this package (`python -m MODULE` calls `serve`), started when it is first asked
    and again where it has ended. Not for several threads."""

    def __init__(self, module: str, *, broken: str) -> None:
        """Takes a module's name; `broken`: the error's message where it can't be started."""
        self.module, self.broken = module, broken
        self.process: subprocess.Popen[str] | None = None

    def ask(self, question: Any, *, seconds: float) -> Any:
        """Returns the answer; None where the process ended before it. Raises UserError where no
        process can be started."""
        process = self.process = self.process or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps([seconds, question]) + "\n")
            process.stdin.flush()
            reply = process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        except KeyboardInterrupt:  # the reply would be taken for the next one's
            self.close()
            raise
        if not reply:  # it ended itself, or was ended
            self.close()
            return None
        return json.loads(reply)

    def _start(self) -> "subprocess.Popen[str]":
        # It is to be this package, also where only its folder is on this process's path.
        paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", self.module],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",  # JSON escapes the rest
        )
        assert process.stdout is not None
        if json.loads(process.stdout.readline() or "null") != _READY:
            process.kill()
            process.communicate()
            raise UserError(self.broken)
        return process

    def close(self) -> None:
        """Ends the process, if one runs; the next question starts another."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def serve(answer: Callable[[Any], Any], *, ready: Callable[[], bool], memory: int) -> None:
    """Answers each line of the standard input until it ends, within `memory` bytes of address space
    (on Linux). `ready` comes before all else: it imports and compiles what every question needs,
    and says whether that works."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # for the process that asks, which ends this one
        if name in signal.Signals.__members__:  # Windows has no SIGHUP
            signal.signal(signal.Signals[name], signal.SIG_IGN)
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
    replies, sys.stdout = sys.stdout, sys.stderr
    if not ready():
        return
    print(json.dumps(_READY), file=replies, flush=True)
    with open(os.devnull, "w") as nowhere:
        for line in sys.stdin:
            seconds, question = json.loads(line)
            faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
            reply = answer(question)
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps(reply), file=replies, flush=True)
