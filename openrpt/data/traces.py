"""Files of traces: thoughts that are given, each with a place in a document and a prediction.

JSON lines (also as .gz) or parquet, one trace a line or row:

    {"key": "p17", "byte_offset": 812, "thought": "\\n12 * 13 = 156", "prediction": "156"}

`key` is the document's (`corpus.key`); `document_id` says which, where several have it. The place
is `byte_offset`, in bytes of the document's text, or `position`, a token of the model's tokenizer.
`kind` and `source` may say what it is a trace of and who made it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openrpt.data.corpus_files import ending_of
from openrpt.data.field_values import type_of
from openrpt.data.readers import read_fields
from openrpt.errors import UserError
from openrpt.files import replacing
from openrpt.parquet import write_table

_TEXTS = ("key", "document_id", "thought", "prediction", "kind", "source")
_NUMBERS = ("byte_offset", "position")
_NEEDED = ("key", "thought", "prediction")
_MOST_OFFSET = 2**62


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenTrace:
    """A thought and the prediction that it leads to, at a place in a document.

    >>> GivenTrace(key="p17", byte_offset=812, thought="\\n12 * 13 = 156", prediction="156").kind
    ''
    """

    key: str
    document_id: str = ""
    byte_offset: int | None = None
    """The place of the prediction in the document's text, in bytes. Either this or `position`."""
    position: int | None = None
    """The token of the model's tokenizer at which the prediction starts."""
    thought: str
    """The text between the thought's opening and its end."""
    prediction: str
    """The text in the box."""
    kind: str = ""
    """The operation of a calculator's trace, or `several`."""
    source: str = ""
    """The maker of the trace: `calculator`, a model, a person."""


def require_new(path: Path) -> None:
    """Checks that traces can be written there. Raises UserError for another ending or a taken
    name."""
    if ending_of(path) not in (".jsonl", ".parquet"):
        raise UserError(f"{path}: traces are .jsonl or .parquet: choose such a name")
    if path.exists():
        raise UserError(f"{path}: is there already; delete it, or give another name")


def write_traces(path: Path, traces: Iterable[GivenTrace]) -> None:
    """Writes a file in one step: JSON lines as they come, a parquet file in the end.

    Raises UserError as `require_new`, and where it can't be written.
    """
    require_new(path)
    if ending_of(path) == ".jsonl":
        with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
            for trace in traces:
                said = {
                    name: value for name, value in asdict(trace).items() if value not in ("", None)
                }
                said |= {name: getattr(trace, name) for name in _NEEDED}
                file.write(json.dumps(said, ensure_ascii=False) + "\n")
        return
    import pyarrow as pa

    columns = [(name, pa.string()) for name in _TEXTS] + [(name, pa.int64()) for name in _NUMBERS]
    rows = [asdict(trace) for trace in traces]
    write_table(path, pa.Table.from_pylist(rows, schema=pa.schema(columns)))


def read_traces(path: Path) -> Iterator[tuple[str, GivenTrace]]:
    """Yields (`file:line`, trace). Raises UserError, with file and line, for what is none."""
    found = False
    for source, fields in read_fields(str(path)):
        found = True
        yield source, _trace(fields, source)
    if not found:
        raise UserError(f"{path}: no traces")


def _trace(fields: Mapping[str, Any], source: str) -> GivenTrace:
    for name in _NEEDED:
        if name not in fields:
            raise UserError(
                f"{source}: field '{name}' is missing; a trace has {', '.join(_NEEDED)}"
            )
    byte_offset = _number(fields.get("byte_offset"), "byte_offset", source)
    position = _number(fields.get("position"), "position", source)
    if (byte_offset is None) == (position is None):
        raise UserError(f"{source}: a trace has either a byte_offset or a position")
    texts = {name: _text(fields.get(name), name, source) for name in _TEXTS}
    if not texts["prediction"]:
        raise UserError(f"{source}: field 'prediction' is empty: nothing would be in the box")
    return GivenTrace(byte_offset=byte_offset, position=position, **texts)


def _text(value: Any, name: str, source: str) -> str:
    if value is None and name not in _NEEDED:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{source}: field '{name}' is not text but {type_of(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{source}: field '{name}' has half a surrogate pair; mend it") from None
    return value


def _number(value: Any, name: str, source: str) -> int | None:
    """Returns the field as a whole number; null, and the NaN that other programs write for it, are
    none."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, float) and value.is_integer():  # a column that had nulls
        value = int(value)
    if type(value) is not int or not 0 <= value < _MOST_OFFSET:
        raise UserError(f"{source}: field '{name}' is {value!r}, no place in a document")
    return value
