"""Hashes of all files of a model: they tell another model under the same name."""

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path

from openrpt.engine.remembered import REMEMBERED_BYTES, place_of, recall, remember
from openrpt.errors import UserError
from openrpt.hashes import file_hash, file_stamp, is_settled

READ_BY_MODELS = {".safetensors", ".json", ".jinja", ".model", ".txt", ".py"}
"""Files of a model folder that weights, settings or tokenizer are read from."""


def model_fingerprint(name: str) -> str:
    """Returns 16 hex digits that change whenever a model's files do; `name` as in `model.path`.

    Every byte is read (0.6 GB/s), and of a large file once as long as it stays as it is: the cache
    folder keeps its hash. A Hub id is known by its commit. Raises UserError where there is no such
    model.
    """
    spec = json.dumps([(file.name, _hash(file)) for file in _files(name)] or _commit(name))
    return hashlib.sha256(spec.encode()).hexdigest()[:16]


def _hash(path: Path) -> str:
    if path.stat().st_size < REMEMBERED_BYTES or not is_settled(path):
        return file_hash(path)
    place = place_of("hashes", [str(path.resolve()), file_stamp(path)])
    known = recall(place)
    if re.fullmatch("[0-9a-f]{64}", known):
        return known
    found = file_hash(path)
    remember(place, found)
    return found


def is_same_model(name: str, known: str) -> bool:
    """Returns whether the model's files are those from when `known` was taken (empty: not known); a
    model that is no longer there is missed by whoever loads it."""
    if not known:
        return True
    try:
        return model_fingerprint(name) == known
    except UserError:
        return True


def require_same_model(name: str, known: str, whose: str) -> None:
    """Checks that `is_same_model`. Raises UserError."""
    if not is_same_model(name, known):
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
