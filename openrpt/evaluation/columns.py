"""The results of an instrument with one model, as they are stored: a row an observation, in
parquet."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from openrpt.errors import UserError
from openrpt.parquet import read_table, reading_errors, write_table

_ABOUT = b"openrpt"
"""The key of a file's metadata under which all but the columns stands, as JSON."""
NOT_STORED = {"stored": False}
"""The metadata of a field that is no part of the file."""
_ADVICE = "delete it and evaluate again"


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """Arrays [n] by name, one value an observation, and what they are about.

    An instrument's own kind adds fields that JSON holds, and what is read off the columns.
    """

    columns: dict[str, np.ndarray]
    cost: dict[str, Any] = field(default_factory=dict)
    """The cost of measuring, as WorkMeter gives it; after a stop, from the last start on. Empty
    where it was not counted."""
    mark: str = ""
    """8 hex digits of the weights, settings and inputs that they were made from; empty where
    nobody asked."""

    def save(self, path: Path) -> None:
        """Writes the file in one step."""
        table = pa.table({name: pa.array(values) for name, values in self.columns.items()})
        about = {name: getattr(self, name) for name in _stored_fields(type(self))}
        write_table(path, table.replace_schema_metadata({_ABOUT: json.dumps(about)}))

    @classmethod
    def load(cls, path: Path, *, advice: str = _ADVICE) -> Self:
        """Reads a stored result. Raises UserError for a file that is missing, broken or of another
        version or kind; `advice`: what helps."""
        try:
            table = read_table(path)
            about = json.loads((table.schema.metadata or {}).get(_ABOUT, b"{}"))
            known = {name: about[name] for name in _stored_fields(cls) if name in about}
            arrays = {n: table[n].to_numpy(zero_copy_only=False) for n in table.column_names}
            return cls(columns=arrays, **known)
        except reading_errors():
            raise UserError(f"{path}: missing, broken or of another version; {advice}") from None


def _stored_fields(kind: type[Columns]) -> list[str]:
    """Returns the names of the fields that stand in the metadata."""
    return [
        one.name
        for one in fields(kind)
        if one.name != "columns" and one.metadata.get("stored", True)
    ]
