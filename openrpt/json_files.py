"""JSON files that are written in one step, and checked when they are read: by their own hash, and
by the kind of their values.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from openrpt.errors import UserError
from openrpt.files import write_text

_Kind = TypeVar("_Kind")
SEAL = "sha256"
"""The key of a JSON file's own hash."""


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON with its own hash, under the key SEAL, by which `read_json` notices any change.
    Raises UserError where it can't be written."""
    write_text(path, json_text(sealed(values)))


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values as JSON gives them back, and their hash."""
    own = {key: value for key, value in values.items() if key != SEAL}
    kept = json.loads(json.dumps(finite_json(own), allow_nan=False))
    return kept | {SEAL: _digest(kept)}


def is_sealed(values: Mapping[str, Any]) -> bool:
    """Returns whether the hash that the values state is that of the rest."""
    kept = {key: value for key, value in values.items() if key != SEAL}
    return values.get(SEAL) == _digest(kept)


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def json_text(values: Any) -> str:
    """Returns the values as JSON that any reader takes: it has neither NaN nor infinity, so these
    become null."""
    from pydantic_core import to_json

    # A tenth of the time of the standard library's, which indents in Python.
    return to_json(values, indent=1, inf_nan_mode="null").decode() + "\n"


def finite_json(value: Any) -> Any:
    """Returns tables and lists of JSON with null for each number that is none."""
    if isinstance(value, dict):
        return {name: finite_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path, *, advice: str) -> dict[str, Any]:
    """Returns the values that `write_sealed` wrote: where an estimate has null, it was NaN.

    Raises UserError for a damaged file; `advice`: what to do about it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}{line}: damaged; {advice}") from None
    if not isinstance(values, dict) or (SEAL in values and not is_sealed(values)):
        raise UserError(f"{path}: damaged or changed by hand; {advice}")
    return {key: _estimates(value) for key, value in values.items() if key != SEAL}


def read_as(kind: type[_Kind], path: Path, *, advice: str) -> _Kind:
    """Returns what `read_json` gives as that kind; raises UserError also where it is of another."""
    return checked_as(kind, read_json(path, advice=advice), path, advice=advice)


def checked_as(kind: type[_Kind], values: Any, path: Path, *, advice: str) -> _Kind:
    """Returns values that were read from a file as that kind; raises UserError where they are of
    another."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: damaged ({where}: {first['msg']}); {advice}") from None


def _estimates(value: Any) -> Any:
    if isinstance(value, list):
        return [_estimates(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {name: _estimates(item) for name, item in value.items()}
    if "standard_error" not in found and "low" not in found:
        return found
    names = ("value", "standard_error", "low", "high", "p")
    return found | {name: math.nan for name in names if found.get(name, 0.0) is None}
