"""Files and folders that are written in one step: one that stands under its name is whole."""

import csv
import hashlib
import io
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrpt.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def replacing(
    path: Path, *, shared: bool = False, advice: str = "choose another folder"
) -> Iterator[Path]:
    """A file to write, which takes the place of `path` once it is whole; its folder is made.

    `shared`: other processes may be writing it, too. Raises UserError where it can't be written;
    `advice`: what helps against that, apart from space.
    """
    suffix = f".{os.getpid()}.partial" if shared else ".partial"
    partial = path.with_name(f"{path.name}{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)  # moved already, where all went well
    except OSError as error:
        raise _unwritten(path, error, f"free some space or {advice}") from None


@contextmanager
def replacing_folder(
    path: Path, *, shared: bool = False, advice: str = "free some space"
) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` once it is whole.

    `shared`: other processes may be filling the same, and the first one that is whole stays.
    Raises UserError where it can't be written; `advice`: what to do about it.
    """
    suffix = f".{os.getpid()}.partial" if shared else ".partial"
    partial = path.with_name(f"{path.name}{suffix}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        if not (shared and path.is_dir()):
            shutil.rmtree(path, ignore_errors=True)
            os.replace(partial, path)
    except OSError as error:
        raise _unwritten(path, error, advice) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # moved already, where all went well


def _unwritten(path: Path, error: OSError, advice: str) -> UserError:
    reason = error.strerror or " ".join(str(error).split())
    return UserError(f"{path}: cannot be written ({reason}); {advice}")


def write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    write_text(path, json_text(values))


def json_text(values: Any) -> str:
    """As any reader takes it: JSON has neither NaN nor infinity, so these become null."""
    return json.dumps(_finite(values), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path, *, advice: str) -> Any:
    """What `write_json` wrote: where an estimate has null, it was NaN.

    Raises UserError for a damaged file; `advice`: what to do about it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_hook=_estimate)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}{line}: damaged; {advice}") from None


def _estimate(values: dict[str, Any]) -> dict[str, Any]:
    if "standard_error" not in values and "low" not in values:
        return values
    names = ("value", "standard_error", "low", "high", "p")
    return values | {name: math.nan for name in names if values.get(name, 0.0) is None}


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A header of the first row's keys, and the rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_table(path: Path, table: "pa.Table", **options: Any) -> None:
    """A parquet file; `options` are pyarrow's."""
    import pyarrow.parquet as pq

    with replacing(path) as partial:
        pq.write_table(table, partial, **options)


def file_hash(path: Path) -> str:
    """SHA-256 in hex; read once a process, as long as the file stays as it is."""
    stat = path.stat()
    changed = max(stat.st_mtime_ns, stat.st_ctime_ns)
    # A change within the clock's tick (some ms) leaves the times as they are.
    settled = time.time_ns() - changed > SETTLED_SECONDS * 10**9
    return (_hash if settled else _hash.__wrapped__)(path, stat.st_size, changed)


SETTLED_SECONDS = 2


@lru_cache(maxsize=1024)
def _hash(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
