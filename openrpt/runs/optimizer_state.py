"""The optimizer's state in a checkpoint: safetensors, a tensor `KIND/PARAMETER` each.

One process writes `state.safetensors`. Where several divide the state, each writes its own part
into the folder `state`, at once, by torch.distributed.checkpoint, whose reader gives each process
of any number what it keeps: from those parts or from the one file.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file

from openrpt.engine.model import Model
from openrpt.errors import foreign
from openrpt.rl.optimizer import PairedAdamW, SharedAdamW
from openrpt.rl.workers import Workers

STATE = "state.safetensors"
"""The one file of one process, which LoRA's weights stand in, too."""
_PARTS = "state"
_WEIGHT, _STEP = "weight", "step"


def write_state(
    policy: Model, optimizer: torch.optim.Optimizer, folder: Path, workers: Workers
) -> None:
    """Writes Adam's moments by parameter, and LoRA's weights (the merged ones can't be unmerged).

    `workers`: those that divide the state, all of which call this; the first one's folder counts.
    Raises OSError where the disk refuses it.
    """
    tensors = {}
    for name, parameter in policy.trained().items():
        for kind, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{kind}/{name}"] = value.detach().clone().contiguous()
        if policy.is_lora:
            tensors[f"{_WEIGHT}/{name}"] = parameter.detach().clone().contiguous()
    if workers.count == 1:
        save_file(tensors, folder / STATE)
        return
    import torch.distributed.checkpoint as dcp

    path = str(workers.gather(folder)[0] / _PARTS)
    writer = dcp.HuggingFaceStorageWriter(path, save_distributed=True)
    with workers.within("checkpoint"), _first_cause():
        dcp.save(tensors, storage_writer=writer, process_group=workers.mesh.get_group())


def read_state(policy: Model, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Puts back what `write_state` has written, as much of it as this process keeps. Raises
    UserError for what can't be read."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    source = folder / _PARTS if (folder / _PARTS).is_dir() else folder
    reader = dcp.HuggingFaceStorageReader(str(source))
    trained = policy.trained()
    with foreign(f"{folder}: the optimizer's state can't be read"), _quiet():
        wanted = {}
        for key, stored in reader.read_metadata().state_dict_metadata.items():
            kind, _, name = key.partition("/")
            if name not in trained or not isinstance(stored, TensorStorageMetadata):
                continue
            if kind != _WEIGHT and not _keeps(optimizer, trained[name]):
                continue
            dtype = stored.properties.dtype
            wanted[key] = (
                torch.empty((), dtype=dtype, device=_counter_device(optimizer, trained[name]))
                if kind.endswith(_STEP)
                else torch.empty_like(trained[name].detach(), dtype=dtype)
            )
        dcp.load(wanted, storage_reader=reader, no_dist=True)
    for key, value in wanted.items():
        kind, _, name = key.partition("/")
        if kind == _WEIGHT:
            with torch.no_grad():
                trained[name].copy_(value)
        else:
            optimizer.state[trained[name]][kind] = value


def _keeps(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> bool:
    return not isinstance(optimizer, SharedAdamW) or optimizer.owns(parameter)


def _counter_device(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> torch.device:
    """Returns where Adam's step counter lies: torch's fused kernels read it on the parameter's
    device, a pair reads it on the host."""
    return torch.device("cpu") if isinstance(optimizer, PairedAdamW) else parameter.device


@contextmanager
def _first_cause() -> Iterator[None]:
    """Raises what failed in the first of the processes where it did: on all of them, an OSError."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        rank, (cause, _) = min(error.failures.items())
        if isinstance(cause, OSError):
            raise cause from None
        raise OSError(f"rank {rank}: {cause}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides that a reader for several processes reads in one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield
