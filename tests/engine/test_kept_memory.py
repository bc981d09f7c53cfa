"""Freed memory that the C library keeps, and gives back between two steps."""

import sys

import pytest
import torch

from openrpt.engine.cpu import give_back_memory, keep_memory
from tests.helpers.processes import in_processes


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def show(rank: int) -> None:
    give_back_memory(beyond=0)  # what was freed before
    kept = keep_memory()
    pieces = [torch.ones(1 << 20) for _ in range(64)]  # 256 MB
    last = torch.ones(1 << 20)
    del pieces
    full = resident()
    give_back_memory()
    quiet = resident()
    give_back_memory(beyond=1 << 27)
    print(kept, full - quiet < 1 << 24, full - resident() > 200 << 20, float(last.sum()))


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_freed_memory_is_kept_to_a_bound_and_then_given_back() -> None:
    """In a process of its own, whose settings end with it."""
    (ended,) = in_processes(1, show)
    assert ended.out.split() == ["True", "True", "True", "1048576.0"], ended
