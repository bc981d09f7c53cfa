"""How much faster a device multiplies in bfloat16 than in float32: what `model.compute_dtype =
"auto"` is decided by, measured once a machine and kept in the cache folder.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import torch

from openrpt.costs.limits import matrix_product_rate
from openrpt.engine.cpu import processor_name
from openrpt.engine.remembered import place_of, remember
from openrpt.errors import UserError
from openrpt.json_files import read_as

_SHAPES = [(256, 576, 1536), (256, 1536, 576)]
"""A feed-forward layer of the default model, and rows as in decoding and in training."""
_GPU_SHAPES = [(4096, 2048, 2048)]
_SECONDS = 0.05
"""Seconds that a measurement in one precision takes, about."""
_ROUNDS = 5
"""How often each is measured, in turn: other programs slow some rounds down, and the best one says
what the processor can do."""
_HOPELESS = 0.1
"""The gain of a round below which no other is made: a processor without instructions for bfloat16
takes some 50 times as long, seconds for all rounds, and no other program does that."""
_GAIN = 2.0
"""The factor by which products must be faster in bfloat16: what is between them is no faster, and
turning numbers into the other precision takes time, so less than twice is hardly a gain."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductSpeed:
    """The rates of matrix products, in GFLOP/s (10⁹ operations a second), of a GPU or of one
    thread of a processor."""

    float32: float
    bfloat16: float

    @classmethod
    def measured(cls, device: torch.device) -> "ProductSpeed":
        """Measures both in this process: some 500 ms.

        A processor's is taken on one thread and by that thread's own time: by a clock on the wall,
        threads that wait for a core beside other programs are as slow in either precision.
        """
        on_gpu = device.type == "cuda"
        shapes = _GPU_SHAPES if on_gpu else _SHAPES
        clock = time.perf_counter if on_gpu else time.thread_time

        def rate(dtype: torch.dtype) -> float:
            found = matrix_product_rate(shapes, dtype, device=device, seconds=_SECONDS, clock=clock)
            return found / 1e9

        rounds: list[ProductSpeed] = []
        with _one_thread():
            while len(rounds) < _ROUNDS and (not rounds or rounds[-1].gain >= _HOPELESS):
                rounds.append(cls(float32=rate(torch.float32), bfloat16=rate(torch.bfloat16)))
        return cls(
            float32=max(one.float32 for one in rounds),
            bfloat16=max(one.bfloat16 for one in rounds),
        )

    @property
    def gain(self) -> float:
        """The factor by which products are faster in bfloat16."""
        return self.bfloat16 / self.float32

    @property
    def compute_dtype(self) -> Literal["same", "bfloat16"]:
        """The value of `model.compute_dtype`: that of the weights unless bfloat16 is at least twice
        as fast."""
        return "bfloat16" if self.gain >= _GAIN else "same"


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def product_speed(device: torch.device) -> ProductSpeed:
    """Returns the rates of a device as they were measured first with this torch."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    capability = torch.backends.cpu.get_cpu_capability()
    place = place_of("speed", [name, device.type, capability, torch.__version__, "one thread"])
    with contextlib.suppress(UserError, OSError):  # none, or one that is damaged
        return read_as(ProductSpeed, place, advice="delete it")
    found = ProductSpeed.measured(device)
    remember(place, json.dumps(asdict(found)))
    return found
