"""The processes of torch.distributed as workers: gloo on CPUs; on GPUs NCCL sums the gradients.

What is no gradient goes over gloo, from CPU to CPU, and every sum of gradients begins with such a
meeting. So a process that is gone is noticed by its closed connection, also where NCCL would wait.
"""

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from openrpt.errors import UserError
from openrpt.rl.roll_call import FROZEN_SECONDS, SILENT_SECONDS, RollCall
from openrpt.rl.workers import T

_BUCKET_ELEMENTS = 1 << 25
"""Most elements of gradients that are summed at once (134 MB in float32)."""
_PAUSES = 1e-4, 0.02
"""Seconds between two looks at a collective that is under way: the first, and at most."""


class LostProcess(UserError):
    """Another process of the group has failed, is gone or doesn't come."""


class ProcessGroup:
    """Processes that torch.distributed has brought together: see `Workers`."""

    def __init__(
        self,
        roll: RollCall,
        *,
        objects: dist.ProcessGroup,
        gradients: dist.ProcessGroup,
        timeout: float,
    ) -> None:
        """Takes the group over gloo that objects are gathered by, and the one that sums gradients.

        `timeout`: seconds that a collective waits for the slowest process; `first` waits as long as
        it lives.
        """
        self.roll, self.timeout = roll, timeout
        self._objects, self._gradients = objects, gradients
        self._take_part: Callable[[], None] = lambda: None
        """What comes before a meeting: passes that others have left (`taking_part`)."""

    @property
    def rank(self) -> int:
        """The number of this process."""
        return self.roll.rank

    @property
    def count(self) -> int:
        """The number of processes."""
        return self.roll.count

    def share(self, items: Sequence[T]) -> list[T]:
        """Returns the items rank, rank + count, …"""
        return list(items)[self.rank :: self.count]

    def gather(self, value: T) -> list[T]:
        """Returns the values of all processes. Raises LostProcess."""
        self._take_part()
        return self._gather(value, "gather", self.timeout)

    def gather_amid_passes(self, value: T) -> list[T]:
        """Returns the values of all processes, which are between passes. Raises LostProcess."""
        return self._gather(value, "turn", self.timeout)

    @contextmanager
    def taking_part(self, take_part: Callable[[], None]) -> Iterator[None]:
        """Encloses passes that all take part in: `Workers.taking_part`."""
        before, self._take_part = self._take_part, take_part
        try:
            yield
        finally:
            self._take_part = before

    def first(self, do: Callable[[], T]) -> T:
        """Does it on rank 0, and returns what came of it on all. Raises LostProcess."""
        value = do() if self.rank == 0 else None
        self._take_part()
        found: list[T] = self._gather(value, "what rank 0 does alone", float("inf"))  # type: ignore[arg-type]
        return found[0]

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Sums `.grad` over the processes, in float32 or wider. Raises LostProcess."""
        missing = self.gather([parameter.grad is None for parameter in parameters])
        absent = [all(by_rank) for by_rank in zip(*missing, strict=True)]
        own = [p for p, is_absent in zip(parameters, absent, strict=True) if not is_absent]
        for bucket in _buckets(own):
            flat = torch.cat([_wide(p).flatten() for p in bucket])
            work = dist.all_reduce(flat, group=self._gradients, async_op=True)
            self._finish(work, "sum of gradients", self.timeout)
            for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                if p.grad is None:
                    p.grad = torch.empty_like(p)
                p.grad.copy_(part.view_as(p))

    @torch.no_grad()
    def spread(self, owned: Sequence[Sequence[torch.nn.Parameter]]) -> None:
        """Copies each process' own parameters to the others. Raises LostProcess."""
        self.gather(None)  # whoever is gone is noticed here
        for owner, parameters in enumerate(owned):
            for bucket in _buckets(parameters):
                flat = torch.cat([p.detach().flatten() for p in bucket])
                work = dist.broadcast(flat, group=self._gradients, group_src=owner, async_op=True)
                self._finish(work, "spread of weights", self.timeout)
                for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                    p.copy_(part.view_as(p))

    @cached_property
    def mesh(self) -> DeviceMesh:
        """The processes, with a group of their own: made when all first ask for it."""
        backend = dist.get_backend(self._gradients)
        group = dist.new_group(backend=backend, timeout=timedelta(seconds=self.timeout))
        device = "cuda" if backend == "nccl" else "cpu"
        return DeviceMesh.from_group(group, device)

    @contextmanager
    def within(self, place: str) -> Iterator[None]:
        """Encloses exchanges that torch makes by itself. Raises LostProcess where one fails since
        another process has failed, is gone or doesn't come."""
        self.roll.come_to(place)
        self.roll.waits_in_torch = True
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            known = self._known_reason(place)
            if known is None and "timed out" in str(error).lower():
                minutes = self.timeout / 60
                known = (
                    f"'{place}' of {self.count} processes was not done within {minutes:g} min;"
                    f" where it only is slow, give --parallel.timeout {2 * minutes:g}"
                )
            if known is None:  # it is this process that fails
                raise
            raise self._lost(known) from None
        finally:
            self.roll.waits_in_torch = False

    def fail(self, error: BaseException) -> None:
        """Lets the others know that this process ends, and why: at once, by closed connections."""
        self.roll.end(f"{self.roll.name(self.rank)}: {str(error) or type(error).__name__}")
        self.leave()

    def leave(self) -> None:
        """Closes the connections to the other processes."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def _gather(self, value: T, place: str, timeout: float) -> list[T]:
        own = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        size = torch.tensor([len(own)])
        sizes = [torch.zeros_like(size) for _ in range(self.count)]
        self._finish(
            dist.all_gather(sizes, size, group=self._objects, async_op=True), place, timeout
        )
        longest = max(int(one) for one in sizes)
        padded = own.new_zeros(longest)
        padded[: len(own)] = own
        each = [own.new_empty(longest) for _ in range(self.count)]
        self._finish(
            dist.all_gather(each, padded, group=self._objects, async_op=True), place, timeout
        )
        return [
            pickle.loads(one[: int(length)].numpy().tobytes())
            for one, length in zip(each, sizes, strict=True)
        ]

    def _finish(self, work: dist.Work, place: str, timeout: float) -> None:
        """Waits for a collective. Raises LostProcess where it fails, where another process has
        failed or fallen silent, and after `timeout` seconds."""
        self.roll.come_to(place)
        began, (pause, longest) = time.monotonic(), _PAUSES
        try:
            while not work.is_completed():
                roll = self.roll
                if roll.cause or roll.cut_off or roll.silent(FROZEN_SECONDS):
                    raise self._lost(self._reason(place, "another process is gone"))
                if time.monotonic() - began > timeout:
                    raise self._lost(self._late(place, timeout))
                time.sleep(pause)
                pause = min(2 * pause, longest)
            work.wait()
        except RuntimeError as error:
            said = " ".join(str(error).split())[:200]
            raise self._lost(self._reason(place, said)) from None

    def _lost(self, cause: str) -> LostProcess:
        return LostProcess(self.roll.end(cause))

    def _reason(self, place: str, otherwise: str) -> str:
        """Says why a collective failed, as far as that is known."""
        failed = f"'{place}' of {self.count} processes failed: {otherwise}"
        return self._known_reason(place) or failed

    def _known_reason(self, place: str) -> str | None:
        """Says why another process is gone, once that is known; it takes a killed one some seconds
        to be missed. None where all are there."""
        roll, deadline = self.roll, time.monotonic() + SILENT_SECONDS + 2
        is_late = False
        while not is_late:
            # Looked at before the others are: a busy machine may take seconds between two looks.
            is_late = time.monotonic() >= deadline
            if roll.cause:
                return roll.cause
            if gone := roll.silent(SILENT_SECONDS):
                return (
                    f"{' and '.join(map(roll.name, gone))} ended without a word while the others"
                    f" waited for it ('{place}'): killed, out of memory, or its machine is gone;"
                    " the same command goes on from the last checkpoint"
                )
            if roll.cut_off:
                return (
                    f"the launcher, or rank 0 of {self.count}, ended without a word ('{place}');"
                    " the same command goes on from the last checkpoint"
                )
            time.sleep(0.1)
        return None

    def _late(self, place: str, timeout: float) -> str:
        behind = self.roll.behind() or {self.rank: place}
        which = " and ".join(f"{self.roll.name(rank)} (at '{at}')" for rank, at in behind.items())
        return (
            f"{which} did not come to '{place}' within {timeout / 60:g} min; where it only is slow,"
            f" give --parallel.timeout {2 * timeout / 60:g}"
        )


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Yields parameters in their order, as many as are summed at once, of one precision."""
    bucket: list[torch.nn.Parameter] = []
    for parameter in parameters:
        elements = sum(one.numel() for one in bucket) + parameter.numel()
        if bucket and (elements > _BUCKET_ELEMENTS or bucket[0].dtype != parameter.dtype):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def _wide(parameter: torch.nn.Parameter) -> Tensor:
    """Returns the gradient in float32 or wider; 0 where there is none."""
    grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return grad.to(torch.promote_types(grad.dtype, torch.float32))
