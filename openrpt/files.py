"""Files that are written in one step: one that stands under its name is whole."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(
            f"{path}: cannot be written ({reason}); free some space or {advice}"
        ) from None


def write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=1) + "\n")


def write_table(path: Path, table: "pa.Table", **options: Any) -> None:
    """A parquet file; `options` are pyarrow's."""
    import pyarrow.parquet as pq

    with replacing(path) as partial:
        pq.write_table(table, partial, **options)
