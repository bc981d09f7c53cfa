"""A matrix whose rows are divided among processes, and which is gathered and summed by hand: one
that is read outside of the layers, and whose gradient is written in place.
"""

from collections.abc import Collection, Sequence

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor


class DividedMatrix:
    """A matrix that is read outside of the layers: each process keeps some rows of it."""

    def __init__(self, places: Sequence[tuple[nn.Module, str]], mesh: DeviceMesh) -> None:
        """Divides what stands at these places: one parameter, which they share."""
        module, name = places[0]
        self.places, self.mesh, self.whole = places, mesh, getattr(module, name)
        shard = distribute_tensor(self.whole.detach(), mesh, [Shard(0)])
        self.shard = nn.Parameter(shard, requires_grad=self.whole.requires_grad)
        self.release()

    def gather(self) -> None:
        """Makes it whole."""
        values = self.shard.detach().full_tensor()  # type: ignore[attr-defined]
        self.whole = nn.Parameter(values, requires_grad=self.shard.requires_grad)
        self._put(self.whole)

    def release(self) -> None:
        """Leaves this process its own rows."""
        self._put(self.shard)
        self.whole = None

    def sum_gradient(self) -> None:
        """Gives each process its own rows of the gradient's sum, taken in float32 or wider."""
        whole, shard = self.whole, self.shard
        grad = torch.zeros_like(whole) if whole.grad is None else whole.grad
        wide = grad.to(torch.promote_types(grad.dtype, torch.float32))
        whole.grad = None
        parts = DTensor.from_local(wide, self.mesh, [Partial()], run_check=False)
        shard.grad = parts.redistribute(placements=[Shard(0)]).to(shard.dtype)

    def _put(self, parameter: nn.Parameter) -> None:
        for module, name in self.places:
            setattr(module, name, parameter)


def places_of(
    model: nn.Module, parameters: Collection[nn.Parameter]
) -> list[list[tuple[nn.Module, str]]]:
    """Returns where each of these parameters' matrices stands: at several places where the head
    shares its weight with the embeddings."""
    found: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in parameters and parameter.ndim > 1:
                found.setdefault(parameter, []).append((module, name))
    return list(found.values())
