"""Checkpoints: plain Hugging Face folders that also hold what a resumed run needs.

`transformers` loads the folder as it is (safetensors only; LoRA is merged, its adapter lies
beside it). `state.safetensors` has the optimizer (the folder `state` its parts, where processes
divide it: `optimizer_state.py`), `checkpoint.json` the rest, with a hash of every file
(`engine/checkpoint_record.py`). Written to a temporary folder and renamed: a folder
under its name is whole.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from openrpt.config.loading import validate_config
from openrpt.config.sections import Config, StageName
from openrpt.engine.checkpoint_record import (
    CARD,
    RECORD,
    CheckpointRecord,
    TrainerState,
    open_checkpoint,
    read_record,
    remedy,
    write_record,
)
from openrpt.engine.fingerprint import require_same_model
from openrpt.engine.loading import quiet_transformers
from openrpt.engine.lora import merged
from openrpt.engine.model import Model
from openrpt.errors import UserError
from openrpt.files import numbered, remove_folder, replacing_folder, writing
from openrpt.rl.workers import ALONE, Workers
from openrpt.runs.card import model_card
from openrpt.runs.optimizer_state import read_state, write_state
from openrpt.runs.run import require_same


def require_own(
    record: CheckpointRecord, folder: Path, config: Config, *, stage: StageName
) -> None:
    """Checks that the checkpoint of a stage was made with the run's values of the keys that bind
    it, and from the same start model. Raises UserError."""
    stored = validate_config(record.config, source=f"{folder}/{RECORD}")
    helps = f"put the old value back into {config.run}/config.toml"
    run = Path(config.run)
    require_same(stored, config, f"{folder}: made", stages={stage}, run=run, helps=helps)
    require_same_model(config.model.path, record.state.start_model, f"{folder}: made from")


def latest_checkpoint(folder: Path) -> Path | None:
    """Returns the folder of the last step's checkpoint; None where there is none."""
    found = list(_checkpoints(folder))
    return found[-1] if found else None


def step_folder(folder: Path, step: int) -> Path:
    """Returns the folder of a step's checkpoint."""
    return folder / f"step-{step:06d}"


def prune(folder: Path, keep: int) -> None:
    """Keeps the last `keep` checkpoints; `best` is a folder of its own."""
    for path in _checkpoints(folder)[:-keep]:
        remove_folder(path)


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in numbered(folder).values() if path.is_dir()]


__all__ = [
    "TrainerState",
    "latest_checkpoint",
    "open_checkpoint",
    "prune",
    "read_record",
    "require_own",
    "restore",
    "save_checkpoint",
    "step_folder",
]

BASELINE = "baseline.safetensors"
"""The moving average of the policy, where a reward keeps one."""


def save_checkpoint(
    folder: Path,
    policy: Model,
    state: TrainerState,
    config: Config,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    baseline: Mapping[str, torch.Tensor] | None = None,
    workers: Workers = ALONE,
) -> Path:
    """Saves a policy with what a resumed run needs; returns its folder. Raises UserError where the
    disk refuses it; what stood in its place before stays untouched.

    `workers`: those among which the weights or the optimizer's state are divided. All of them call
    this; the first writes, and the others their parts of the optimizer's state.

    SmolLM2's 1.5 GB with optimizer take 11 s to write, 1 s to sync and 2.6 s to hash (0.6 GB/s).
    """
    if workers.rank:
        with writing(folder), _disk_errors():
            if policy.divided is not None:
                policy.divided.whole_weights()
            if optimizer is not None:
                write_state(policy, optimizer, folder, workers)
        return folder
    advice = "start the same command again: it goes on from the last checkpoint"
    with replacing_folder(folder, advice=advice) as partial:
        with _disk_errors(), quiet_transformers():
            _save_model(policy, partial)
            if optimizer is not None:
                write_state(policy, optimizer, partial, workers)
            if baseline is not None:
                save_file({n: t.contiguous() for n, t in baseline.items()}, partial / BASELINE)
            policy.tokenizer.save_pretrained(partial)
        (partial / CARD).write_text(model_card(state, config), encoding="utf-8")
        write_record(partial, state, config)
    return folder


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Turns what safetensors and tokenizers raise where the disk refuses a file into an OSError."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from error
    except Exception as error:  # tokenizers raises no class of its own
        if type(error) is not Exception:
            raise
        raise OSError(str(error)) from error


def _save_model(policy: Model, folder: Path) -> None:
    weights = None if policy.divided is None else policy.divided.whole_weights()
    if policy.is_lora:
        policy.network.save_pretrained(folder / "adapter", state_dict=weights)
        merged(policy.network, weights).save_pretrained(folder)
    else:
        policy.network.save_pretrained(folder, state_dict=weights)


def restore(folder: Path, policy: Model, optimizer: torch.optim.Optimizer) -> TrainerState:
    """Puts optimizer (and LoRA weights) back; the model itself was loaded from the folder.

    Raises UserError for a damaged checkpoint.
    """
    record = open_checkpoint(folder)
    read_state(policy, optimizer, folder)
    return record.state


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Returns a file's tensors by name. Raises UserError for one that is damaged or absent."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); {remedy(path.parent)}") from None
