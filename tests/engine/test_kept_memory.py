"""Freed memory that the C library keeps from step to step, and gives back where it has grown."""

import subprocess
import sys

import pytest

SHOWN = """
import torch
from openrpt.engine.cpu import KeptMemory, keep_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def step(pieces):
    made = [torch.ones(1 << 20) for _ in range(pieces)]  # 4 MB each
    return torch.ones(1 << 20)  # lies behind them, so that the heap can't shrink

kept, memory = keep_memory(), KeptMemory()
last = step(64)
full = resident()
memory.step_ended(beyond=1 << 27)
alike = step(64)
memory.step_ended(beyond=1 << 27)
quiet = resident()
longer = step(128)
memory.step_ended(beyond=1 << 27)
given_back = resident()
print(kept, full - quiet < 100 << 20, full - given_back > 100 << 20, memory.resident)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_freed_memory_is_kept_until_the_process_has_grown() -> None:
    done = subprocess.run([sys.executable, "-c", SHOWN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True", "0"]
