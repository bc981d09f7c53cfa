"""What the processes of a stage must have in common, compared before the first step: their code,
configuration, data, weights and state."""

import hashlib
import platform
from functools import cache
from pathlib import Path

import torch
import transformers

import openrpt
from openrpt.config.loading import flatten
from openrpt.config.sections import STAGES
from openrpt.engine.checkpoint_record import RECORD, TrainerState
from openrpt.errors import UserError
from openrpt.hashes import file_hash
from openrpt.stages.own_parts import own_parts
from openrpt.stages.stage import Stage
from openrpt.user_code import module_file

_OWN = {"model.device", "model.threads"}
"""Keys that each process may have for itself."""
_ABSENT = "not there"
_DIGITS = 12


def require_alike(stage: Stage) -> None:
    """Checks that all processes of a stage begin with the same. Raises UserError, in each of them,
    that names the first thing that differs, and where."""
    if stage.workers.count == 1:
        return
    each = stage.workers.gather((platform.node(), _facts(stage)))
    host, expected = each[0]
    for name, value in expected.items():
        for rank, (other, facts) in enumerate(each):
            if facts.get(name) != value:
                raise UserError(
                    f"{name}: {value} on rank 0 ({host}), but {facts.get(name, _ABSENT)} on rank"
                    f" {rank} ({other}); give all processes the same code, command and files"
                )


def _facts(stage: Stage) -> dict[str, str]:
    """Returns what all must have in common: its name → what this process has."""
    run, config = stage.run, stage.config
    keys = flatten(config.model_dump(mode="json"))
    return {
        "OpenRPT": f"{openrpt.__version__}, source {_source()}",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **{name: repr(value) for name, value in keys.items() if name not in _OWN},
        **{f"the module of '{part}'": _module(part) for part in own_parts(config)},
        "the run folder's config.toml": _hash(run.path / "config.toml"),
        "the scores": _hash(run.path / STAGES["score"].mark),
        "the warmed-up policy": _hash(run.start / RECORD),
        "the checkpoint": _state(stage.state),
        "the weights": stage.engine.model.weights_hash[:_DIGITS],
    }


def _module(part: str) -> str:
    """Returns a hash of the source of a user's own part."""
    path = module_file(part)
    return _ABSENT if path is None else _hash(path)


@cache
def _source() -> str:
    """Returns a hash of the package's source."""
    digest, folder = hashlib.sha256(), Path(openrpt.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:_DIGITS]


def _hash(path: Path) -> str:
    return file_hash(path)[:_DIGITS] if path.is_file() else _ABSENT


def _state(state: TrainerState) -> str:
    rates = hashlib.sha256(repr(state).encode()).hexdigest()[:_DIGITS]
    return f"step {state.step} (state {rates})"
