"""Linear layers' weights as decoding reads them: input by input.

A layer's weight is [out, in], and few rows at a time meet all of it. MKL turns it round in every
product, which costs as much for one row as for hundreds. Backward passes want it as it comes, so
copies live no longer than a call that decodes. From 16 rows on both give the same bits, fewer are
summed in another order.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

WORTHWHILE_PASSES = 64
"""Passes from which on a copy is made: it takes as long as some thirty of 64 rows gain."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ByInput:
    """Copies of a module's weights that lie input by input: of those that are multiplied by MKL."""

    module: nn.Module
    _copies: dict[Tensor, tuple[int, Tensor]] = field(default_factory=dict)
    """With the version of the weight that was copied: torch counts its changes in place."""

    @contextmanager
    def used(self) -> Iterator[None]:
        """Runs the module with the copies; its parameters stay the same objects, and are not to be
        changed meanwhile."""
        lying = {weight: weight.data for weight in _weights(self.module)}
        copies = {weight: self._copy(weight) for weight in lying}
        try:
            for weight, copy in copies.items():
                weight.data = copy
            yield
        finally:
            for weight, data in lying.items():
                weight.data = data

    def _copy(self, weight: Tensor) -> Tensor:
        version, copy = self._copies.get(weight, (-1, weight))
        if version != weight._version:
            version, copy = weight._version, weight.detach().t().contiguous().t()
            self._copies[weight] = version, copy
        return copy


def _weights(module: nn.Module) -> list[Tensor]:
    """Returns the weights of the linear layers on a CPU in MKL's precisions, each once."""
    found = dict.fromkeys(m.weight for m in module.modules() if isinstance(m, nn.Linear))
    precisions = (torch.float32, torch.float64)
    return [w for w in found if w.device.type == "cpu" and w.dtype in precisions]
