"""What asks a command to stop: Ctrl-C at a terminal, SIGTERM from a scheduler, SIGHUP from a
terminal that is closed. A signal that was ignored when the command began (nohup) stays so.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

_ENDING = (signal.SIGTERM,) if sys.platform == "win32" else (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a process, apart from Ctrl-C's SIGINT."""

_Handler = Callable[[int, FrameType | None], Any]
_Made = TypeVar("_Made")


class Interrupted(Exception):
    """A stage that stopped early, at the user's wish; what it has done is saved."""

    def __init__(self, message: str, *, exit_code: int = 128 + signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Terminated(KeyboardInterrupt):
    """A SIGTERM or SIGHUP where no stage has asked for a clean stop: an interrupt, as Ctrl-C is."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def exit_code(stop: BaseException) -> int:
    """Returns the exit code that a shell gives a stop: 130 for Ctrl-C, 143 for SIGTERM, 129 for
    SIGHUP."""
    return 128 + (stop.signum if isinstance(stop, Terminated) else signal.SIGINT)


@contextmanager
def _handled(handlers: Mapping[signal.Signals, _Handler]) -> Iterator[None]:
    """Sets these handlers, and at the end those from before.

    Ignored signals stay ignored. Signals reach the main thread only: elsewhere nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        signum: signal.signal(signum, handler)
        for signum, handler in handlers.items()
        if signal.getsignal(signum) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def ending_as_interrupts() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP raise Terminated, so that what is open is closed, as at Ctrl-C."""

    def handle(signum: int, frame: FrameType | None) -> None:
        raise Terminated(signum)

    with _handled(dict.fromkeys(_ENDING, handle)):
        yield


class StopFlag:
    """A flag that the first signal that asks for a stop sets."""

    def __init__(self) -> None:
        self.signum = 0
        self.cuts = False
        """Whether the first signal interrupts what runs."""

    @property
    def requested(self) -> bool:
        """Whether a signal has asked for a stop."""
        return self.signum > 0

    @property
    def exit_code(self) -> int:
        """The exit code of a stop by that signal."""
        return 128 + self.signum

    def cut_short(self, do: Callable[[], _Made]) -> _Made | None:
        """Returns what `do` returns; None where a signal asks for a stop before it has: it is
        interrupted then, so it has to leave nothing half done."""
        try:
            self.cuts = True
            return None if self.requested else do()
        except KeyboardInterrupt:
            if not self.requested:
                raise
            return None
        finally:
            self.cuts = False


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[StopFlag]:
    """Gives a flag that the first signal sets; from then on Ctrl-C stops at once, as without this.

    A second SIGTERM or SIGHUP changes nothing: closing a terminal sends two, and so do schedulers.
    """
    flag = StopFlag()

    def handle(signum: int, frame: FrameType | None) -> None:
        if flag.requested and signum == signal.SIGINT:
            raise KeyboardInterrupt
        first, flag.signum = not flag.requested, flag.signum or signum
        if first:
            with suppress(OSError):  # the terminal may be what was closed
                say("Stopping after this step (Ctrl-C now stops at once) …")
            if flag.cuts:
                raise KeyboardInterrupt

    with _handled(dict.fromkeys((signal.SIGINT, *_ENDING), handle)):
        yield flag
