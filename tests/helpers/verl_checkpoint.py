"""A checkpoint as verl's FSDP workers write it, by verl's own manager, over two processes."""

import os
from pathlib import Path

import torch
import torch.multiprocessing
from omegaconf import OmegaConf
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

CHANGE = 0.25
"""What is added to every weight: as if it had been trained."""


def write_checkpoint(model: Path, folder: Path, store: Path) -> None:
    """Writes the changed model to `folder`, sharded by FSDP2; `store`: a free file's name."""
    given = (str(model), str(folder), str(store))
    torch.multiprocessing.spawn(_write, args=given, nprocs=2)  # type: ignore[no-untyped-call]


def _write(rank: int, model: str, folder: str, store: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    loaded = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(CHANGE)
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("fsdp",))
    for layer in loaded.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(loaded, mesh=mesh)
    manager = FSDPCheckpointManager(
        loaded,
        processing_class=AutoTokenizer.from_pretrained(model),
        checkpoint_config=OmegaConf.create({"save_contents": ["model"], "load_contents": []}),
    )
    manager.save_checkpoint(folder, global_step=1)
    distributed.destroy_process_group()
