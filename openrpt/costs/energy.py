"""Energy in joules: measured where the machine says it, else estimated and labelled so.

A CPU's packages and memory by RAPL, as Linux shows it under /sys/class/powercap (most systems let
only root read it); an NVIDIA GPU by NVML's counter (`pip install "openrpt[energy]"`). Where the
device that computes has no counter: seconds times watts, the user's (`cost.watts`) or a guess.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_POWERCAP = Path("/sys/class/powercap")
DEFAULT_WATTS = {"cpu": 65.0, "cuda": 400.0, "mps": 30.0}
"""Guesses in watts, where nothing measures and the user says nothing: a desktop processor's
package, a data-centre GPU at work, a laptop's chip."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Counter:
    """A running total of joules that begins again at `wraps_at`."""

    read: Callable[[], float]
    wraps_at: float = float("inf")

    def between(self, before: float, after: float) -> float:
        """Returns the joules between two readings, of which the counter may have begun again
        once."""
        return after - before if after >= before else after - before + self.wraps_at


def rapl_counters(root: Path = _POWERCAP) -> list[_Counter]:
    """Returns a counter a processor package, and one for the memory of each; none where they can't
    be read.

    Cores and the graphics unit are parts of a package and "psys" holds packages: left out.
    """
    found = []
    for zone in sorted(root.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text().strip()
            wraps_at = float((zone / "max_energy_range_uj").read_text()) / 1e6
            (zone / "energy_uj").read_text()
        except OSError:  # not ours to read
            continue
        if re.fullmatch(r"package-\d+|dram", name):
            found.append(_Counter(read=_microjoules(zone / "energy_uj"), wraps_at=wraps_at))
    return found


def _microjoules(path: Path) -> Callable[[], float]:
    return lambda: float(path.read_text()) / 1e6


def _nvml_counter(device: torch.device) -> _Counter | None:
    """Returns the GPU's energy since its driver was loaded; None without NVML or such a counter."""
    try:
        import pynvml
    except ImportError:
        return None
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return _Counter(read=lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)


class EnergyMeter:
    """A meter of the joules between `begin` and `joules`, of the device and (where it can be read)
    the CPU."""

    def __init__(
        self, device: torch.device, *, watts: float = 0.0, powercap: Path = _POWERCAP
    ) -> None:
        """Takes the device; `watts`: power of the whole while it works, for the estimate; 0 = a
        guess."""
        self.counters = rapl_counters(powercap)
        self.measured = bool(self.counters) and device.type == "cpu"
        if device.type == "cuda" and (gpu := _nvml_counter(device)):
            self.counters.append(gpu)
            self.measured = True
        self.watts = watts or DEFAULT_WATTS.get(device.type, DEFAULT_WATTS["cpu"])
        self.begin()

    def begin(self) -> None:
        """Begins to count anew."""
        self._before = [counter.read() for counter in self.counters]
        self._since = time.perf_counter()

    def joules(self) -> float:
        """Returns the joules since `begin`."""
        if not self.measured:
            return self.watts * (time.perf_counter() - self._since)
        pairs = zip(self.counters, self._before, strict=True)
        return sum(counter.between(before, counter.read()) for counter, before in pairs)

    def metrics(self) -> dict[str, float]:
        """Returns the joules since `begin` as metrics, and whether they were measured."""
        return {"energy/joules": self.joules(), "energy/measured": float(self.measured)}


def money(seconds: float, price_per_hour: float) -> float:
    """Returns the price of so many seconds, in the currency of the price."""
    return seconds / 3600 * price_per_hour
