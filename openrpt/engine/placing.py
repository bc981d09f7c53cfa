"""Small tensors of the host's that a device needs: handed over without waiting for it."""

import torch
from torch import Tensor


def put(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor of the host's on a device, in whose order of work the copy takes its place.

    `tensor.to(device)` would wait for all that a GPU still has before it. The host's memory is read
    before this returns, since it isn't pinned.
    """
    return tensor.to(device, non_blocking=True)
