"""The machine, what OpenRPT will use of it, and what to do about anything wrong.

Reads and measures only: nothing is downloaded, written or set.
"""

import math
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from rich.console import Console

from openrpt.console import PlainConsole
from openrpt.costs.product_speed import ProductSpeed
from openrpt.data.assets import asset_status, cache_dir
from openrpt.engine.cpu import processor_name
from openrpt.extras import EXTRAS, installing
from openrpt.sheets import Sheet, print_sheet

_GB = 1e9
_DEMO_MEMORY_GB = 7.0
"""The demo's peak, the operating system not counted."""
_DEMO_DISK_GB = 2.0
"""The demo's model, packed and as float32 safetensors, its corpus, and room for the downloads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """One line of the report; `advice` is empty where there is nothing to do."""

    name: str
    value: str
    ok: bool = True
    advice: str = ""


def diagnose() -> list[Diagnosis]:
    """Finds everything `openrpt doctor` says, in its order. Takes two to ten seconds."""
    return [
        Diagnosis(name="python", value=platform.python_version()),
        Diagnosis(name="system", value=f"{platform.system()} {platform.release()}"),
        Diagnosis(name="processor", value=f"{processor_name()}, {_core_counts()}"),
        _memory(),
        Diagnosis(name="torch", value=_torch_build()),
        check_threads(torch.get_num_threads(), usable_cores()),
        _device(),
        _speed(),
        _disk(),
        *_assets(),
        *_extras(),
    ]


def print_report(findings: Sequence[Diagnosis], console: Console | None = None) -> None:
    """Prints the findings as a table, what to do about each beside it."""
    print_sheet(_findings_sheet(findings), console or PlainConsole())


def _findings_sheet(findings: Sequence[Diagnosis]) -> Sheet:
    """Returns a row a finding; `no` stands before what is wrong."""
    return Sheet(
        title="",
        headings=["", "what", "found", "what to do"],
        rows=[
            ["ok" if finding.ok else "no", finding.name, finding.value, finding.advice]
            for finding in findings
        ],
        labels=4,
        notes=[f"an extra is installed by its name: {installing('NAME')}"],
        styles={"ok": "green", "no": "red"},
    )


def usable_cores() -> int:
    """Returns the number of cores that this process may keep busy: no hyper-threads, affinity and
    CPU quota respected."""
    logical = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else logical
    # Two hyper-threads share one core's arithmetic units, so a matrix product gains nothing.
    threads_a_core = max(1, logical // (psutil.cpu_count(logical=False) or logical))
    return max(
        1, min(math.ceil(allowed / threads_a_core), _cpu_quota(Path("/sys/fs/cgroup/cpu.max")))
    )


def _cpu_quota(path: Path) -> int:
    """Returns a container's share in whole cores (control groups v2: `quota period`,
    microseconds)."""
    if not path.is_file():
        return os.cpu_count() or 1
    quota, period = path.read_text().split()
    return (os.cpu_count() or 1) if quota == "max" else max(1, int(quota) // int(period))


def check_threads(threads: int, cores: int) -> Diagnosis:
    """Checks the number of threads: more threads than cores are several times slower, not
    faster."""
    if threads <= cores:
        return Diagnosis(name="threads", value=f"{threads} for {cores} usable cores")
    return Diagnosis(
        name="threads",
        value=f"{threads} for {cores} usable cores",
        ok=False,
        advice=f"set OMP_NUM_THREADS={cores}: threads beyond the cores slow each other down",
    )


def _bfloat16_units() -> str:
    """Returns which of its instructions for bfloat16 products this processor has, as torch sees
    them."""
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else "no instructions for it"


def _core_counts() -> str:
    physical = psutil.cpu_count(logical=False) or "?"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{physical} cores, {os.cpu_count()} threads, {capability}"


def _memory() -> Diagnosis:
    memory = psutil.virtual_memory()
    enough = memory.available >= _DEMO_MEMORY_GB * _GB
    return Diagnosis(
        name="memory",
        value=f"{memory.available / _GB:.1f} GB free of {memory.total / _GB:.1f} GB",
        ok=enough,
        advice=""
        if enough
        else f"the demo takes up to {_DEMO_MEMORY_GB:.0f} GB: close other programs",
    )


def _torch_build() -> str:
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return f"{torch.__version__} ({build})"


def _device() -> Diagnosis:
    if torch.cuda.is_available():
        return Diagnosis(name="device", value=f"cuda ({torch.cuda.get_device_name()})")
    if torch.backends.mps.is_available():
        return Diagnosis(name="device", value="mps (Apple GPU)")
    if torch.version.cuda:
        return Diagnosis(
            name="device",
            value="cpu",
            ok=False,
            advice="torch is built for CUDA and sees no GPU: check the driver with nvidia-smi",
        )
    return Diagnosis(name="device", value="cpu")


def _speed() -> Diagnosis:
    found = ProductSpeed.measured(torch.device("cpu"))
    return Diagnosis(
        name="CPU speed",
        value=f"{found.float32:.0f} GFLOP/s a thread in float32, {found.bfloat16:.0f} in bfloat16"
        f" ({_bfloat16_units()})",
        advice=f"model.compute_dtype on the CPU: {found.compute_dtype}",
    )


def _disk() -> Diagnosis:
    folder = cache_dir()
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    enough = free >= _DEMO_DISK_GB * _GB
    return Diagnosis(
        name="disk",
        value=f"{free / _GB:.1f} GB free for {folder}",
        ok=enough,
        advice=""
        if enough
        else f"the demo takes {_DEMO_DISK_GB:.0f} GB: name a folder in OPENRPT_CACHE",
    )


def _assets() -> list[Diagnosis]:
    advice = {
        (True, True): "",
        (True, False): "damaged: the next command that needs it downloads it again",
        (False, False): "not here yet: the first command that needs it downloads it",
    }
    return [
        Diagnosis(
            name="asset",
            value=f"{status.name}: {status.path.relative_to(cache_dir())}",
            ok=status.ok or not status.present,
            advice=advice[status.present, status.ok],
        )
        for status in asset_status()
    ]


def _extras() -> list[Diagnosis]:
    return [
        Diagnosis(
            name=f"extra: {name}",
            value="installed" if extra.installed else "not installed",
            advice="" if extra.installed else f"for {extra.what_for}",
        )
        for name, extra in EXTRAS.items()
    ]
