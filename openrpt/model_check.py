"""What a loaded model must hold before a stage may trust it."""

from collections.abc import Iterable

from torch import Tensor

from openrpt.errors import UserError


def require_finite(named_tensors: Iterable[tuple[str, Tensor]], *, what: str) -> None:
    """Raises UserError that names the first tensor with NaN or infinity in it.

    `what` stands before the name: "model 'x'", "the checkpoint of step 3". One pass over each
    tensor, without a copy.
    """
    for name, tensor in named_tensors:
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        low, high = (float(end) for end in tensor.detach().aminmax())
        if low != low or high != high:
            raise UserError(f"{what} has NaN in the weights ({name})")
        if low == float("-inf") or high == float("inf"):
            raise UserError(f"{what} has infinity in the weights ({name})")
