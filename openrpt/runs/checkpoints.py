"""Checkpoints: plain Hugging Face folders that also hold what a resumed run needs.

`transformers` loads the folder as it is (safetensors only; LoRA is merged, its adapter lies
beside it). `state.safetensors` has the optimizer (and `state-0001.safetensors` … the parts of other
processes, where they divide it), `checkpoint.json` the rest, with a hash of every
file (`engine/checkpoint_record.py`). Written to a temporary folder and renamed: a folder
under its name is whole.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

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
from openrpt.engine.model import Model
from openrpt.errors import UserError
from openrpt.files import numbered, remove_folder, replacing_folder, writing
from openrpt.rl.optimizer import SharedAdamW
from openrpt.rl.workers import ALONE, Workers
from openrpt.runs.card import model_card
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
    "save_part",
    "step_folder",
]

_STATE = "state.safetensors"
STATES = "state*.safetensors"
"""The optimizer's state (and LoRA's weights): of one process, or the part that each of several
keeps."""
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

    `workers`: those among which the optimizer's state is divided. The first calls this, and the
    others `save_part` meanwhile.

    SmolLM2's 1.5 GB with optimizer take 11 s to write, 1 s to sync and 2.6 s to hash (0.6 GB/s).
    """
    advice = "start the same command again: it goes on from the last checkpoint"
    with replacing_folder(folder, advice=advice) as partial:
        with _disk_errors(), quiet_transformers():
            _save_model(policy, partial)
            if optimizer is not None:
                save_file(_trained_state(policy, optimizer), partial / _STATE)
                workers.gather(partial)
            if baseline is not None:
                save_file({n: t.contiguous() for n, t in baseline.items()}, partial / BASELINE)
            policy.tokenizer.save_pretrained(partial)
        workers.gather(None)  # all parts are there
        (partial / CARD).write_text(model_card(state, config), encoding="utf-8")
        write_record(partial, state, config)
    return folder


def save_part(policy: Model, optimizer: torch.optim.Optimizer, workers: Workers) -> None:
    """Saves this process' part of the optimizer's state into the checkpoint that the first one
    writes. Raises UserError where the disk refuses it."""
    folder = workers.gather(Path())[0]
    path = folder / f"state-{workers.rank:04d}.safetensors"
    with writing(path), _disk_errors():
        save_file(_trained_state(policy, optimizer), path)
    workers.gather(None)


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
    if policy.is_lora:
        policy.network.save_pretrained(folder / "adapter")
        # Merging in place and back would change the weights by rounding.
        copy.deepcopy(policy.network).merge_and_unload().save_pretrained(folder)
    else:
        policy.network.save_pretrained(folder)


def _trained_state(policy: Model, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Returns Adam's moments by parameter, and LoRA's weights (the merged ones can't be
    unmerged)."""
    tensors = {}
    for name, parameter in policy.trained().items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value.detach().clone().contiguous()
        if policy.is_lora:
            tensors[f"weight/{name}"] = parameter.detach().clone().contiguous()
    return tensors


def restore(folder: Path, policy: Model, optimizer: torch.optim.Optimizer) -> TrainerState:
    """Puts optimizer (and LoRA weights) back; the model itself was loaded from the folder.

    Raises UserError for a damaged checkpoint.
    """
    record = open_checkpoint(folder)
    trained = policy.trained()

    def is_read(key: str) -> bool:
        kind, name = key.split("/", 1)
        if kind == "weight" or name not in trained or not isinstance(optimizer, SharedAdamW):
            return True
        return optimizer.owns(trained[name])

    by_parameter: dict[str, dict[str, torch.Tensor]] = {}
    for path in sorted(folder.glob(STATES)) or [folder / _STATE]:
        for key, value in read_tensors(path, is_read).items():
            kind, name = key.split("/", 1)
            by_parameter.setdefault(name, {})[kind] = value
    for name, parameter in trained.items():
        values = by_parameter.get(name, {})
        if "weight" in values:
            with torch.no_grad():
                parameter.copy_(values.pop("weight"))
        if values:
            # Adam's step counter stays on the host, as torch keeps it.
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device)
                for key, value in values.items()
            }
    return record.state


def read_tensors(
    path: Path, is_read: Callable[[str], bool] = lambda name: True
) -> dict[str, torch.Tensor]:
    """Returns the tensors of a file that `is_read`, by name. Raises UserError for one that is
    damaged or absent."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if is_read(name)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); {remedy(path.parent)}") from None
