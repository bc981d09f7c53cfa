"""Parquet files that hold their own hash, so that a flipped bit is noticed when they are read.

The hash stands in the file's metadata, as `openrpt-sha256:` and 64 digits. It is that of the file
with zeros in place of these digits. An older file, without it, is read as it is.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openrpt.files import replacing

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


_HASH = b"sha256"
"""Name of the hash in the metadata."""
MARK = b"openrpt-sha256:"
"""The bytes before the digits of the hash."""
_ZEROS = b"0" * 64


def write_table(path: Path, table: "pa.Table", *, shared: bool = False, **options: Any) -> None:
    """Writes a table with its hash; `options` are pyarrow's. `shared`: other processes may be
    writing it, too. Raises UserError where it can't."""
    import pyarrow.parquet as pq

    metadata = (table.schema.metadata or {}) | {_HASH: MARK + _ZEROS}
    with replacing(path, shared=shared) as partial:
        pq.write_table(table.replace_schema_metadata(metadata), partial, **options)
        with partial.open("r+b") as file:
            data = file.read()
            file.seek(data.rindex(MARK) + len(MARK))
            file.write(hashlib.sha256(data).hexdigest().encode())


def read_table(path: Path, *, columns: Sequence[str] | None = None) -> "pa.Table":
    """Reads a table, without the hash in its metadata, which would not be that of a changed table.
    Raises one of `unreadable()` for a file that is missing, foreign or not as it was written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(pa.BufferReader(checked_bytes(path))) as file:  # read_table needs pandas
        table = file.read(columns=None if columns is None else list(columns))
    metadata = table.schema.metadata or {}
    kept = {name: value for name, value in metadata.items() if name != _HASH}
    return table.replace_schema_metadata(kept or None)


def read_columns(path: Path, columns: Sequence[str]) -> "pa.Table":
    """Reads some columns of a table and no other bytes of the file: of what is read, the pages'
    checksums are verified where it has any (`write_page_checksum`), not the file's hash.

    Columns that are not there are left out. Raises one of `unreadable()`.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read(columns=list(columns)).replace_schema_metadata(None)


def values_of(array: "pa.Array", *, missing: Any = None) -> "NDArray[Any]":
    """Returns an array of numbers or truth values as NumPy's [n], to be read only, with `missing`
    where there is none.

    Arrow's own `to_numpy`, like all that makes arrays of Python's objects, imports pandas where
    that is installed: half a second.
    """
    import pyarrow as pa

    is_truth = pa.types.is_boolean(array.type)
    plain = array.cast(pa.uint8()) if is_truth else array  # truth values lie there bit by bit
    dtype = np.dtype(plain.type.to_pandas_dtype())
    if not len(plain):
        return np.empty(0, bool if is_truth else dtype)
    found = np.frombuffer(plain.buffers()[1], dtype, len(plain), plain.offset * dtype.itemsize)
    found = found.view(bool) if is_truth else found
    if array.null_count:
        found = np.where(values_of(array.is_valid()), found, np.asarray(missing, found.dtype))
        found.setflags(write=False)
    return found


def reading_errors() -> tuple[type[Exception], ...]:
    """Returns the exceptions that reading a table and its metadata may raise."""
    import pyarrow as pa

    return (OSError, ValueError, KeyError, TypeError, pa.ArrowException)


def not_readable(path: Path, error: Exception) -> str:
    """Returns a line that says that a table can't be read, and why: one of `reading_errors`."""
    return f"{path}: not readable ({str(error).splitlines()[0]})"


def checked_bytes(path: Path) -> bytes:
    """Returns the file's bytes. Raises ValueError where its hash is not the one that it states."""
    data = path.read_bytes()
    found = data.rfind(MARK)
    if found < 0:
        return data
    start = found + len(MARK)
    end = start + len(_ZEROS)
    view = memoryview(data)
    digest = hashlib.sha256(view[:start])
    digest.update(_ZEROS)
    digest.update(view[end:])
    if digest.hexdigest().encode() != data[start:end]:
        raise ValueError("its hash is not that of its content: it was damaged or changed")
    return data
