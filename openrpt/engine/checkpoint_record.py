"""What a checkpoint says of itself (`checkpoint.json`), and what checks its files. No torch.

The record holds the step, the data cursor, the configuration, size and SHA-256 of every file that
is read again, and its own hash. So a checkpoint that was cut, flipped in one bit or changed by hand
is refused by name before anything of it is used.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import openrpt
from openrpt.config.sections import Config, StageName
from openrpt.engine.fingerprint import READ_BY_MODELS
from openrpt.errors import UserError
from openrpt.files import numbered
from openrpt.hashes import file_hash
from openrpt.json_files import is_sealed, json_text, sealed

_FORMAT = 2
"""1 had no hashes: of its files the sizes are compared."""
RECORD = "checkpoint.json"
CARD = "README.md"
"""The model card, which people may change: it has no hash."""

_Count = Annotated[int, Field(ge=0)]
_Rate = Annotated[float, Field(ge=0, le=1)]


@dataclass(kw_only=True)
class TrainerState:
    """The state that a stage carries from step to step, weights and optimizer aside.

    Random draws carry no state: they are keyed by (seed, step, …).
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    stage: StageName
    warmed_up: bool = True
    """Whether the policy began as a warmup's; False where it began as the start model itself."""
    step: _Count = 0
    cursor: _Count = 0
    """Documents taken so far, over all epochs."""
    seconds: Annotated[float, Field(ge=0)] = 0.0
    """Seconds spent in steps, over all restarts."""
    pass_rates: dict[str, dict[str, _Rate]] = field(default_factory=dict)
    """Share of exact rollouts in the last group of a position: document → position → share."""
    kinds_opened: _Count = 0
    """Kinds that the curriculum opened so far, beside those that are open from the start."""
    right_shares: list[_Rate] = field(default_factory=list)
    """Share of exact rollouts in each of the last steps since the curriculum opened one."""
    best_step: Annotated[int, Field(ge=-1)] = -1
    best_accuracy: Annotated[float, Field(ge=-1, le=1)] = -1.0
    start_model: str = ""
    """Fingerprint of the model at `model.path` when the stage began; empty = not known."""
    traces: str = ""
    """SHA-256 of the file at `warmup.traces`; empty = no thoughts are given."""
    trace_sources: list[str] = field(default_factory=list)
    """Who made the given thoughts that the policy has learned from, as the file says."""


class StoredFile(BaseModel):
    """A file of a checkpoint: its size in bytes, and its hash."""

    size: _Count
    sha256: str = ""

    @model_validator(mode="before")
    @classmethod
    def _of_format_1(cls, value: Any) -> Any:
        return {"size": value} if isinstance(value, int) else value


class CheckpointRecord(BaseModel):
    """The content of `checkpoint.json`."""

    format: int
    openrpt: str
    state: TrainerState
    config: dict[str, Any]
    files: dict[str, StoredFile]


def write_record(folder: Path, state: TrainerState, config: Config) -> None:
    """Writes the last file of a checkpoint that is being written, which describes the others."""
    files = {
        path.relative_to(folder).as_posix(): {
            "size": path.stat().st_size,
            "sha256": file_hash(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CARD
    }
    record = {
        "format": _FORMAT,
        "openrpt": openrpt.__version__,
        "state": asdict(state),
        "config": config.model_dump(mode="json"),
        "files": files,
    }
    (folder / RECORD).write_text(json_text(sealed(record)), encoding="utf-8")


def read_record(folder: Path) -> CheckpointRecord:
    """Returns a checkpoint's record. Raises UserError for a folder that is no checkpoint, for a
    record that is damaged, changed by hand or of a newer version, and for one that is not of this
    folder's step."""
    path = folder / RECORD
    damaged = f"{path}: damaged or changed by hand"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: not a checkpoint ({RECORD} is missing)") from None
    except (ValueError, RecursionError):
        raise UserError(f"{damaged}; {remedy(folder)}") from None
    if isinstance(values, dict) and isinstance(values.get("format"), int):
        if values["format"] > _FORMAT:
            version = values.get("openrpt")
            raise UserError(f"{folder}: written by a newer OpenRPT ({version}); update")
        if values["format"] > 1 and not is_sealed(values):
            raise UserError(f"{damaged}; {remedy(folder)}")
    try:
        record = CheckpointRecord.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "all of it"
        raise UserError(f"{damaged} ({where}: {first['msg']}); {remedy(folder)}") from None
    step = _step_of(folder)
    if step not in (None, record.state.step):
        raise UserError(
            f"{path}: the state is that of step {record.state.step}, the folder's name says {step};"
            f" {remedy(folder)}"
        )
    return record


def open_checkpoint(folder: Path) -> CheckpointRecord:
    """Returns the record, after reading every file: all are as they were written (0.6 GB/s, once a
    process).

    Raises UserError as `read_record`, for a file that is missing, cut or changed, and for one that
    was put there since and that transformers would read (another index, tokenizer, chat template).
    """
    record = read_record(folder)
    own = {*record.files, RECORD}
    for path in sorted(path for path in folder.rglob("*") if path.suffix in READ_BY_MODELS):
        if path.relative_to(folder).as_posix() not in own:
            raise UserError(f"{path}: no part of the checkpoint as it was written; take it out")
    for name, stored in record.files.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != stored.size:
            what = "is missing" if found is None else f"has {found} bytes in place of {stored.size}"
            raise UserError(f"{path}: {what}: the checkpoint is truncated; {remedy(folder)}")
        if stored.sha256 and file_hash(path) != stored.sha256:
            raise UserError(f"{path}: damaged: its content has changed; {remedy(folder)}")
    return record


def remedy(folder: Path) -> str:
    """Returns what to do about a damaged checkpoint."""
    if _step_of(folder) is not None:
        return "delete that folder, and the run resumes from the checkpoint before it"
    if folder.name == "warmup":
        return "delete that folder and run 'openrpt warmup' again"
    return "delete that folder; it has to be made again"


def _step_of(folder: Path) -> int | None:
    return next((n for n, path in numbered(folder.parent).items() if path == folder), None)
