"""Files and folders that are written in one step: one that stands under its name is whole.

Each is written under another name, brought to the disk (fsync), and renamed. So a kill or a power
cut leaves the old one or the new one, and beside it at most leftovers: `NAME.partial`, half
written or half deleted, and `NAME.replaced`, an old folder whose place the new one takes.
"""

import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from openrpt.errors import UserError

_Kind = TypeVar("_Kind")

_PARTIAL, _REPLACED = ".partial", ".replaced"
"""Endings of leftovers: half written or half deleted; an old folder whose place the new one
takes."""
SEAL = "sha256"
"""The key of a JSON file's own hash."""
REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space: the quota is used up",
    errno.EACCES: "see who may read and write there",
    errno.EPERM: "see who may read and write there",
    errno.EROFS: "the disk is read-only: choose a folder on another one",
    errno.EIO: "the disk, or the way to it, fails: see the system's log",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "it was moved or deleted meanwhile",
}


@contextmanager
def replacing(path: Path, *, shared: bool = False, advice: str = "") -> Iterator[Path]:
    """Gives a file to write, which takes the place of `path` once it is whole; its folder is made.

    `shared`: other processes may be writing it, too. Raises UserError where it can't be written;
    `advice`: what helps against that.
    """
    suffix = f".{os.getpid()}{_PARTIAL}" if shared else _PARTIAL
    partial = path.with_name(f"{path.name}{suffix}")
    with writing(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            _sync(partial)
            os.replace(partial, path)
            _sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)  # moved already, where all went well


@contextmanager
def replacing_folder(path: Path, *, shared: bool = False, advice: str = "") -> Iterator[Path]:
    """Gives a folder to fill, which takes the place of `path` once it is whole.

    `shared`: other processes may be filling the same, and the first one that is whole stays. Raises
    UserError where it can't be written; `advice`: what to do about it.
    """
    suffix = f".{os.getpid()}{_PARTIAL}" if shared else _PARTIAL
    partial = path.with_name(f"{path.name}{suffix}")
    try:
        with writing(path, advice):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            for place, _, names in os.walk(partial):
                for name in names:
                    _sync(Path(place, name))
                _sync(Path(place))
            if not (shared and path.is_dir()):
                _take_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # moved already, where all went well


def _take_place(partial: Path, path: Path) -> None:
    old = path.with_name(f"{path.name}{_REPLACED}")
    shutil.rmtree(old, ignore_errors=True)
    if path.is_dir():
        os.replace(path, old)
    try:
        os.replace(partial, path)
    except OSError:
        if old.is_dir():
            os.replace(old, path)
        raise
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Deletes a folder, if it is present: a kill on the way leaves nothing under its name."""
    doomed = path.with_name(f"{path.name}{_PARTIAL}")
    with writing(path, what="deleted"):
        shutil.rmtree(doomed, ignore_errors=True)
        if path.is_dir():
            os.replace(path, doomed)
            shutil.rmtree(doomed)


def clear_leftovers(folder: Path) -> None:
    """Removes what a killed process left in a run folder, half written or half deleted, and gives
    a folder that was about to be replaced its name back. Runs inside it are left alone."""
    with writing(folder, what="cleared of leftovers"):
        for place, folders, names in os.walk(folder):
            if "config.toml" in names and Path(place) != folder:
                folders.clear()
                continue
            for name in names:
                if name.endswith(_PARTIAL):
                    Path(place, name).unlink()
            for name in folders:
                path = Path(place, name)
                if name.endswith(_REPLACED) and not path.with_suffix("").exists():
                    os.replace(path, path.with_suffix(""))
                elif is_leftover(name):
                    shutil.rmtree(path)
            folders[:] = [name for name in folders if not is_leftover(name)]


def is_leftover(name: str) -> bool:
    """Returns whether a name is that of a leftover of a process that was killed."""
    return name.endswith((_PARTIAL, _REPLACED))


def _sync(path: Path) -> None:
    """Brings a file's content, or the names in a folder, to the disk, so that they outlast a power
    cut."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # can't be opened there
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (is_folder and error.errno == errno.EINVAL):  # file systems of networks
            raise
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path, advice: str = "", *, what: str = "written") -> Iterator[None]:
    """Turns what the disk refuses into a UserError that names the file and what helps."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be {what} {reason_of(error, advice)}") from None


def reason_of(error: OSError, advice: str = "") -> str:
    """Returns an error of the disk as a message's end: `(No space left on device); free some
    space`."""
    reason = error.strerror or " ".join(str(error).split())
    helps = [REMEDIES.get(error.errno or 0, ""), advice]
    return "; ".join([f"({reason})", *filter(None, helps)])


def append_line(path: Path, line: str) -> None:
    """Appends a line, which is on the disk when this returns. Raises UserError where it can't be
    written."""
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def numbered(folder: Path, suffix: str = "") -> dict[int, Path]:
    """Returns the entries `step-000040{suffix}` of a folder by their number, in order; others are
    left out. From step 1,000,000 on the number has more digits, so names do not sort as it does."""
    found = {}
    for path in folder.glob(f"step-*{suffix}"):
        match = re.fullmatch(r"step-(\d{6,})" + re.escape(suffix), path.name, re.ASCII)
        if match:
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def write_text(path: Path, text: str) -> None:
    """Writes a text file in one step. Raises UserError where it can't be written."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON with its own hash, under the key SEAL, by which `read_json` notices any change.
    Raises UserError where it can't be written."""
    write_text(path, json_text(sealed(values)))


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values as JSON gives them back, and their hash."""
    own = {key: value for key, value in values.items() if key != SEAL}
    kept = json.loads(json.dumps(_finite(own), allow_nan=False))
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
    return json.dumps(_finite(values), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
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


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as CSV, behind a header of the first row's keys."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
