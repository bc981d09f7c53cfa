"""The workers that a launcher has started: how they find one another, and what ends them all."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from openrpt.errors import SaidElsewhere, UserError
from openrpt.launch import Launch, launch
from openrpt.rl.process_group import ProcessGroup
from openrpt.rl.roll_call import RollCall
from openrpt.rl.workers import ALONE, Workers

_JOIN_SECONDS = 300.0
"""Seconds that the processes have to find one another."""
_NEVER = timedelta(days=30)
"""The limit that torch has: ours ends a collective, and says which process it waits for."""


@contextmanager
def launched_workers(device: str, *, minutes: float) -> Iterator[Workers]:
    """Gives the workers that a launcher has started, of which this process is one; a process that
    was started alone is ALONE. A process group that stands already (Ray Train's) is used.

    `device`: as `model.device`; of several GPUs each process gets its own. `minutes`: the limit of
    a collective. An error that leaves this block ends the other processes, with its message; where
    another process says it, it becomes a SaidElsewhere. Raises UserError where the processes do not
    find one another, and for a device that they can't share.
    """
    place = _place()
    if place.count == 1:
        yield ALONE
        return
    on_gpu = _take_gpu(device, place)
    stands = dist.is_initialized()
    group = _joined(place, on_gpu=on_gpu, timeout=minutes * 60)
    try:
        yield group
    except Exception as error:
        group.fail(error)
        if isinstance(error, UserError) and not group.roll.speaks():
            raise SaidElsewhere(str(error)) from None
        raise
    except BaseException as stop:  # an interrupt
        group.fail(stop)
        raise
    finally:
        group.roll.close()
        if not stands:
            group.leave()


def _place() -> Launch:
    if dist.is_initialized():
        rank, count = dist.get_rank(), dist.get_world_size()
        return Launch(rank=rank, count=count, local_rank=launch().local_rank)
    return launch()


def _joined(place: Launch, *, on_gpu: bool, timeout: float) -> ProcessGroup:
    """Joins the other processes. Raises UserError."""
    try:
        if not dist.is_initialized():
            limit = timedelta(seconds=_JOIN_SECONDS)
            store, rank, count = next(dist.rendezvous("env://", timeout=limit))
            dist.init_process_group(
                "nccl" if on_gpu else "gloo",
                store=dist.PrefixStore("openrpt", store),
                rank=rank,
                world_size=count,
            )
        store = dist.distributed_c10d._get_default_store()
        roll = RollCall(dist.PrefixStore("roll", store), rank=place.rank, count=place.count)
        objects = dist.new_group(backend="gloo", timeout=_NEVER)
        gradients = dist.new_group(backend="nccl") if on_gpu else objects
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"rank {place.rank} of {place.count} does not find the others: {reason}; see that all"
            " are started with the same MASTER_ADDR, and that MASTER_PORT is free there"
        ) from None
    return ProcessGroup(roll, objects=objects, gradients=gradients, timeout=timeout)


def _take_gpu(device: str, place: Launch) -> bool:
    """Gives this process its own GPU, where the processes run on such; returns whether they do."""
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return False
    if device not in ("auto", "cuda"):
        raise UserError(
            f"model.device = '{device}' is for one process, and {place.count} were started; give"
            " auto, cuda (one GPU a process) or cpu"
        )
    if not place.local_rank < torch.cuda.device_count():
        raise UserError(
            f"rank {place.rank} of {place.count} is process {place.local_rank + 1} of its machine,"
            f" which has {torch.cuda.device_count()} GPUs; start one process a GPU"
        )
    torch.cuda.set_device(place.local_rank)
    return True
