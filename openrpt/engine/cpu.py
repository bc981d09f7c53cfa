"""Settings of the process that decide how fast torch runs on a CPU: made once, by the command."""

import ctypes
import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
import torch

from openrpt.errors import UserError
from openrpt.launch import launch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>

_GROWTH = 1 << 29
"""Bytes by which a process may grow from step to step before its freed memory is given back."""
_BUSY = 0.75
"""Processes at work by cores, in the mean over a minute, from which on the cores are busy."""


def use_cpu(threads: int) -> None:
    """Sets what a command that runs a model begins with. Raises UserError as `set_threads`."""
    set_threads(threads)
    keep_memory()


def set_threads(threads: int) -> int:
    """Pins torch to `threads`: oversubscription is slow. 0 = every core that this process may use,
    or its part of them, where several were launched on the machine.

    Raises UserError for more than the machine has cores: far more of them crash the process.
    """
    cores = os.cpu_count() or 1
    if threads > cores:
        raise UserError(
            f"model.threads = {threads}, but this machine has {cores} cores; give at most that, or"
            " 0 for all the cores that this process may use"
        )
    torch.set_num_threads(threads or max(1, usable_cpus() // launch().local_count))
    return torch.get_num_threads()


def busy_cores(threads: int) -> str:
    """Returns what to do where the cores are busy and `threads` (model.threads) leaves their number
    to us; empty where there is nothing to do.

    Threads wait for the slowest of them at every product: on cores that others use, so many can be
    ten times slower than one. They are not made fewer unasked, since sums of floats depend on their
    number, and a run goes on to the same bits.
    """
    if threads or sys.platform == "win32":
        return ""
    load, cores = os.getloadavg()[0], usable_cpus()
    if cores < 2 or load < _BUSY * cores:
        return ""
    return (
        f"the {cores} cores are busy (load {load:.1f}), and this takes a thread on each: with"
        " --model.threads 1 it may be faster, a small model most of all"
    )


def usable_cpus() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def processor_name() -> str:
    """Returns the processor's name, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def keep_memory() -> bool:
    """Tells glibc to keep freed memory instead of giving it back after each tensor.

    By default each large activation is mapped anew and its pages are faulted in one by one: a
    training step of SmolLM2 made 300,000 page faults, and makes 2,000 with this. False where the
    C library is another one.
    """
    libc = _glibc()
    if libc is None:
        return False
    kept = libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    return bool(kept)


def give_back_memory() -> None:
    """Gives the system what is freed and kept (`keep_memory`): between two models in one process,
    the second of which would find the first one's gigabytes in pieces. Nothing is done where the
    C library is another one."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(ctypes.c_size_t(0))


@dataclass
class KeptMemory:
    """The freed memory that the process keeps from one step to the next, and its bound.

    Texts differ in length, so what a pass frees rarely fits the next one's tensors: kept for ever,
    the heap of a run of SmolLM2 in mixed precision, 3 GB of which are in use at once, grew to 7 to
    10 GB within a hundred steps. Given back after each step, its pages are faulted in again by the
    next one, 250,000 of them.
    """

    resident: int = 0
    """Bytes that the process had behind the first step since memory was last given back; 0 before
    that step."""

    def step_ended(self, beyond: int = _GROWTH) -> None:
        """Gives the system what is free, where the process has grown by more than `beyond` bytes.
        Nothing is done where the C library is another one."""
        resident = psutil.Process().memory_info().rss
        if not self.resident:
            self.resident = resident
        elif resident > self.resident + beyond:
            give_back_memory()
            self.resident = 0


@cache
def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL("libc.so.6")
    except OSError:
        return None
