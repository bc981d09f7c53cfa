"""A device that is not the CPU, on machines that have no other: `other`.

Its tensors say `device="other"` and hold tensors of the CPU, on which their operations run. What a
GPU would refuse is refused: an operation that meets tensors of two devices. What a GPU would make
the host wait for is counted: `counted_waits`. So device faults and synchronisations are seen where
there is no GPU; speed, a GPU's rounding and its own kernels are not.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    return_and_correct_aliasing,
)

NAME = "other"
aten = torch.ops.aten

_ASKS = {aten._local_scalar_dense, aten.equal, aten.is_nonzero}
"""Operations whose outcome is a number of the host's."""
_SHAPES = {
    aten.nonzero,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.masked_select,
    aten.repeat_interleave,
    aten.bincount,
}
"""Operations whose outcome's shape the host must learn from the device."""
_COPIES = {aten._to_copy, aten.copy_}


class _Module(backend_registration._DummyBackendModule):
    """What `torch.other` says of the device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: Any) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any) -> None:
        torch.set_rng_state(state)


@cache
def other_device() -> torch.device:
    """Registers the device, once a process, and returns it."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    return torch.device(NAME, 0)


class OtherTensor(Tensor):
    """A tensor of the other device: `held` is what it holds, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OtherTensor":
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=other_device(),
            requires_grad=held.requires_grad,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"OtherTensor({self.held!r})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def storage(self) -> torch.TypedStorage:
        return self.held.storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a tensor of the other device to numpy: copy it to the host")

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, types, args, kwargs or {})


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yields the tensors among an operation's arguments and in their lists. Not by torch's pytree,
    which took more than half of the time of all."""
    for x in values:
        if isinstance(x, Tensor):
            yield x
        elif isinstance(x, list | tuple):
            yield from _tensors(x)


def _each(change: Callable[[Any], Any], x: Any) -> Any:
    """Returns an argument or result with its tensors changed."""
    if isinstance(x, list | tuple):
        return type(x)([_each(change, one) for one in x])
    return change(x) if isinstance(x, Tensor) else x


def _held(x: Tensor) -> Tensor:
    return x.held if isinstance(x, OtherTensor) else x


def _run(func: Any, types: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs one operation on what the tensors hold; refuses tensors of two devices. `types`: the
    classes of tensors among its arguments."""
    if OtherTensor not in types and kwargs.get("device") is None:
        return func(*args, **kwargs)
    tensors = list(_tensors([*args, *kwargs.values()]))
    others = [x for x in tensors if isinstance(x, OtherTensor)]
    packet = func.overloadpacket
    if others and packet not in _COPIES and packet is not aten._foreach_copy_:
        indices = packet in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
        fused = str(packet).startswith("aten._fused_")  # a number of the host's is none to it
        for x in tensors:
            if not isinstance(x, OtherTensor) and (x.ndim or fused) and not indices:
                raise RuntimeError(
                    f"{func}: expected all tensors to be on the same device, but found {NAME} and"
                    f" {x.device} {tuple(x.shape)}"
                )
        if indices and not isinstance(args[0], OtherTensor):
            raise RuntimeError(f"{func}: a tensor of the CPU with indices of {NAME}")
    wanted = kwargs.get("device")
    named = wanted is not None
    on_other = torch.device(wanted).type == NAME if named else bool(others)
    if packet is aten.copy_:
        on_other = isinstance(args[0], OtherTensor)
    _count(func, args, kwargs, others, on_other)
    held_args = _each(_held, tuple(args))
    held = {name: _each(_held, value) for name, value in kwargs.items()}
    if named and on_other:
        held["device"] = torch.device("cpu")
    found = func(*held_args, **held)
    if named and packet is aten._to_copy and on_other != bool(others):
        found = found.clone() if any(found is x for x in held_args) else found
    if not on_other:
        return args[0] if packet is aten.copy_ else found
    wrapped = _each(OtherTensor, found)
    if not _aliases(func):
        return wrapped
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


@cache
def _aliases(func: Any) -> bool:
    """Whether what an operation returns is one of its arguments, or shares its memory."""
    return any(value.alias_info is not None for value in func._schema.returns)


def _count(func: Any, args: Any, kwargs: Any, others: list[Any], on_other: bool) -> None:
    packet = func.overloadpacket
    if not others:
        if on_other and packet is aten._to_copy and not kwargs.get("non_blocking"):
            for waits in _waiting:
                waits["copy to the device"] += 1
        return
    to_host = packet in _COPIES and not on_other
    masks = packet in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_) and any(
        x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
    )
    if packet in _ASKS or packet in _SHAPES or to_host or masks:
        for waits in _waiting:
            waits[str(packet)] += 1


_waiting: list[Counter[str]] = []


def on_other_device(work: Callable[..., None], *given: str) -> None:
    """Calls a function of a test module in a new process that has the device: torch must know of it
    before its first backward pass, and other tests must not."""
    code = (
        "from tests.helpers.other_device import OtherDevice, other_device\n"
        f"from {work.__module__} import {work.__name__} as work\n"
        "other_device()\n"
        f"with OtherDevice():\n    work(*{given!r})\n"
        "import os; os._exit(0)\n"  # taking torch apart takes a second
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


on_the_host = _disable_current_modes
"""The context in which nothing is on the device: operations take their short way."""


@contextmanager
def counted_waits() -> Iterator[Counter[str]]:
    """Counts, by operation, how often the host has waited for the device."""
    waits: Counter[str] = Counter()
    _waiting.append(waits)
    try:
        yield waits
    finally:
        _waiting.remove(waits)


class OtherDevice(TorchDispatchMode):
    """The context in which tensors can be made on the device."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and keeping it from being is half of each call

    def __enter__(self) -> "OtherDevice":
        # torch.tensor(…, device=…) makes it on the CPU first; what then moves it is seen here.
        self._before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        # `module.to` on a GPU keeps the parameters that two modules share one.
        torch.__future__.set_swap_module_params_on_conversion(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self._before)
        torch.__future__.set_swap_module_params_on_conversion(False)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, types, args, kwargs or {})
