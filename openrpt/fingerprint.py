"""What tells one model from another that lies under the same name: a hash of its files."""

import hashlib
import json
from pathlib import Path

from openrpt.errors import UserError
from openrpt.files import file_hash

READ_BY_MODELS = {".safetensors", ".json", ".jinja", ".model", ".txt", ".py"}
"""Files of a model folder that weights, settings or tokenizer are read from."""


def model_fingerprint(name: str) -> str:
    """16 hex digits that change whenever a model's files do; `name` as in `model.path`.

    Every byte is read (0.6 GB/s), once a process. A Hub id is known by its commit. Raises
    UserError where there is no such model.
    """
    spec = json.dumps([(file.name, file_hash(file)) for file in _files(name)] or _commit(name))
    return hashlib.sha256(spec.encode()).hexdigest()[:16]


def _files(name: str) -> list[Path]:
    """Those of a folder or a GGUF file; none for a Hub id."""
    from openrpt.models import resolve_model

    if name == "smollm2":
        from openrpt.assets import demo_model_gguf

        return [demo_model_gguf()]
    path = Path(name)
    if path.suffix == ".gguf" and path.is_file():
        return [path]
    folder = Path(resolve_model(name))  # says what is wrong with it
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in READ_BY_MODELS)


def _commit(name: str) -> str:
    from transformers.utils import cached_file

    try:
        config = cached_file(name, "config.json")
    except OSError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"model '{name}' can't be loaded: {reason}") from None
    return Path(config).parent.name
