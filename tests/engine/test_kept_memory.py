"""Freed memory that the C library keeps, and gives back between two steps."""

import subprocess
import sys

import pytest

SHOWN = """
import torch
from openrpt.engine.cpu import give_back_memory, keep_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

kept = keep_memory()
pieces = [torch.ones(1 << 20) for _ in range(64)]  # 256 MB
last = torch.ones(1 << 20)
del pieces
full = resident()
give_back_memory()
quiet = resident()
give_back_memory(beyond=1 << 27)
print(kept, full - quiet < 1 << 24, full - resident() > 200 << 20, float(last.sum()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_freed_memory_is_kept_to_a_bound_and_then_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", SHOWN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True", "1048576.0"]
