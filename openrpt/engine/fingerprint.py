"""Hashes of files, and of all files of a model: they tell another model under the same name."""

import hashlib
import json
import time
from functools import lru_cache
from pathlib import Path

from openrpt.errors import UserError

READ_BY_MODELS = {".safetensors", ".json", ".jinja", ".model", ".txt", ".py"}
"""Files of a model folder that weights, settings or tokenizer are read from."""

_SETTLED_SECONDS = 2
"""Seconds after a file's last change from which on the same times mean the same content: a change
within the file system's tick leaves them as they are."""


def file_hash(path: Path) -> str:
    """Returns the SHA-256 in hex; read once a process, as long as the file stays as it is."""
    stat = path.stat()
    changed = max(stat.st_mtime_ns, stat.st_ctime_ns)
    if time.time_ns() - changed < _SETTLED_SECONDS * 10**9:
        return _hash(path)
    return _settled_hash(path, file_stamp(path))


def file_stamp(path: Path) -> str:
    """Returns size and times, which change whenever the file does: anybody can set the time of its
    last change of content back, but not that of its last change of any kind."""
    stat = path.stat()
    return f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


@lru_cache(maxsize=1024)
def _settled_hash(path: Path, stamp: str) -> str:
    """Returns the SHA-256 in hex; `stamp` is part of the cache's key only."""
    return _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_fingerprint(name: str) -> str:
    """Returns 16 hex digits that change whenever a model's files do; `name` as in `model.path`.

    Every byte is read (0.6 GB/s), once a process. A Hub id is known by its commit. Raises UserError
    where there is no such model.
    """
    spec = json.dumps([(file.name, file_hash(file)) for file in _files(name)] or _commit(name))
    return hashlib.sha256(spec.encode()).hexdigest()[:16]


def require_same_model(name: str, known: str, whose: str) -> None:
    """Checks that the model's files are those from when `known` was taken (empty: not known). A
    model that is no longer there is missed by whoever loads it. Raises UserError."""
    if not known:
        return
    try:
        found = model_fingerprint(name)
    except UserError:
        return
    if found != known:
        raise UserError(
            f"{whose} another model than '{name}' is now: its files have changed; put the old ones"
            " back, or choose another --run"
        )


def _files(name: str) -> list[Path]:
    """Returns the files of a folder or a GGUF file; none for a Hub id."""
    from openrpt.engine.gguf_models import is_gguf
    from openrpt.engine.loading import resolve_model

    if name == "smollm2":
        from openrpt.data.assets import demo_model_gguf

        return [demo_model_gguf()]
    path = Path(name)
    if is_gguf(path) and path.is_file():
        return [path]
    folder = Path(resolve_model(name))  # says what is wrong with it
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in READ_BY_MODELS)


@lru_cache(maxsize=16)
def _commit(name: str) -> str:
    from transformers.utils import cached_file

    try:
        config = cached_file(name, "config.json")
    except OSError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"model '{name}' can't be loaded: {reason}") from None
    return Path(str(config)).parent.name
