"""Which processes of a group are alive, how far each has come, and why the group ends.

Each process writes a beat into the group's store once a second, from a thread of its own, and reads
the others'. A process that fails writes why before it ends; one that is killed falls silent. So
whoever waits in vain learns which process it waits for, and why.
"""

import contextlib
import socket
import threading
import time
from dataclasses import dataclass

from torch.distributed import Store

from openrpt.terminal import say

_BEAT_SECONDS = 1.0
SILENT_SECONDS = 6.0
"""Seconds without a beat after which a process is the one that is gone, once it is known that one
is: by a closed connection, at once."""
FROZEN_SECONDS = 45.0
"""Seconds without a beat after which a process counts as gone though nothing else says so, as that
of a frozen machine. Long: on a busy one a thread can wait."""
_SAYING_SECONDS = 20.0
"""Seconds that the first process gets to say why the run ends, what it saves first included."""
_CAUSE, _SAID = "cause", "said"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Heard:
    """What was heard of a process last."""

    beat: bytes
    at: float
    """When it was another than before (`time.monotonic`)."""


class RollCall:
    """The processes of a group, as one of them knows them."""

    def __init__(self, store: Store, *, rank: int, count: int) -> None:
        """Takes the store that all processes of the group share; this one's thread begins."""
        self.rank, self.count = rank, count
        self.meeting, self.place = 0, ""
        """The collectives that this process has come to, and the name of the last."""
        self.cause = ""
        """Why the group ends, as the first process that knew has said it; empty while it runs."""
        self.cut_off = False
        """Whether the store no longer answers: the process or launcher that held it is gone."""
        self.waits_in_torch = False
        """Whether this process is in an exchange of torch's own, which nothing here can end."""
        self._store, self._own = store, store.clone()  # type: ignore[attr-defined]
        self._heard: dict[int, _Heard] = {}
        self._said = False
        """Whether a process has said why the group ends."""
        self._warned = False
        self._closing = threading.Event()
        self._beats = 0
        self._store.set(_host_key(rank), socket.gethostname())
        self._beat(self._store)
        self._thread = threading.Thread(target=self._run, name="roll call", daemon=True)
        self._thread.start()

    def come_to(self, place: str) -> None:
        """Says that this process has come to one more collective."""
        self.meeting += 1
        self.place = place

    def silent(self, seconds: float) -> list[int]:
        """Returns the processes that have had no beat for so long."""
        now = time.monotonic()
        return [rank for rank, one in self._heard.items() if now - one.at > seconds]

    def behind(self) -> dict[int, str]:
        """Returns the processes that have come to fewer collectives than this one, with the place
        that each is at."""
        found = {}
        for rank, one in self._heard.items():
            _, meeting, place = one.beat.decode().split(" ", 2)
            if int(meeting) < self.meeting:
                found[rank] = place
        return found

    def name(self, rank: int) -> str:
        """Returns how a process is called: with its machine, where that is another."""
        host = self._host(rank)
        where = f" on {host}" if host not in ("", socket.gethostname()) else ""
        return f"rank {rank} of {self.count}{where}"

    def end(self, cause: str) -> str:
        """Lets the others know why the group ends; returns the cause that was known first."""
        try:
            self.cause = self._store.compare_set(_CAUSE, "", cause).decode()
        except RuntimeError:  # the store is gone
            self.cut_off = True
            self.cause = self.cause or cause
        return self.cause

    def speaks(self) -> bool:
        """Returns whether it is for this process to say why the run ends: for the first one, and
        for another where that is gone or takes too long. One process says it."""
        until = time.monotonic() + _SAYING_SECONDS
        while self.rank and time.monotonic() < until and 0 not in self.silent(SILENT_SECONDS):
            if self._said or self.cut_off:
                break
            time.sleep(_BEAT_SECONDS / 10)
        if self._said:
            return False
        try:
            if self._store.compare_set(_SAID, "", str(self.rank)) != str(self.rank).encode():
                return False
            self._await_heard(time.monotonic() + SILENT_SECONDS)
        except RuntimeError:  # the store is gone, and with it the first process, or the launcher
            self.cut_off = True
        return True

    def _await_heard(self, until: float) -> None:
        """Waits for the others to hear that it is said: the store may end with this process."""
        others = [rank for rank in range(self.count) if rank != self.rank]
        while time.monotonic() < until:
            waits = [rank for rank in others if rank not in self.silent(SILENT_SECONDS)]
            if not waits or self._store.check([_heard_key(rank) for rank in waits]):
                return
            time.sleep(_BEAT_SECONDS / 10)

    def close(self) -> None:
        """Ends the thread; nobody has to wait until this process hears something."""
        self._closing.set()
        self._thread.join()
        with contextlib.suppress(RuntimeError):  # the store is gone
            self._store.set(_heard_key(self.rank), "")

    def _run(self) -> None:
        try:
            while not self._closing.wait(_BEAT_SECONDS):
                self._beat(self._own)
                self._listen()
                self._warn()
        except RuntimeError:  # the store is gone
            self.cut_off = True

    def _beat(self, store: Store) -> None:
        self._beats += 1
        store.set(_beat_key(self.rank), f"{self._beats} {self.meeting} {self.place}")

    def _listen(self) -> None:
        others = [rank for rank in range(self.count) if rank != self.rank]
        beats = self._own.multi_get([_beat_key(rank) for rank in others])
        for rank, beat in zip(others, beats, strict=True):
            known = self._heard.get(rank)
            if known is None or known.beat != beat:
                self._heard[rank] = _Heard(beat=beat, at=time.monotonic())
        if not self.cause and self._own.check([_CAUSE]):
            self.cause = self._own.get(_CAUSE).decode()
        if not self._said and self._own.check([_SAID]):
            self._own.set(_heard_key(self.rank), "")
            self._said = True

    def _warn(self) -> None:
        """Names the processes that are silent while torch waits for them until its own limit; the
        first of those that are not does so, once."""
        gone = self.silent(FROZEN_SECONDS)
        if not gone or not self.waits_in_torch or self._warned:
            return
        self._warned = True
        if self.rank == min(rank for rank in range(self.count) if rank not in gone):
            who = " and ".join(map(self.name, gone))
            say(
                f"{who}: no sign of life for {FROZEN_SECONDS:g} s ('{self.place}'); unless it comes"
                " back, the run ends after parallel.timeout",
                err=True,
            )

    def _host(self, rank: int) -> str:
        try:
            return self._store.get(_host_key(rank)).decode()
        except RuntimeError:
            return ""


def _host_key(rank: int) -> str:
    return f"host/{rank}"


def _beat_key(rank: int) -> str:
    return f"beat/{rank}"


def _heard_key(rank: int) -> str:
    return f"heard/{rank}"
