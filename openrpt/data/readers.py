"""From a file, folder or dataset to records: its lines, rows or blocks, read as a stream."""

import codecs
import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from openrpt.config.corpus import CorpusConfig
from openrpt.data.corpus_files import ending_of, list_files, one_line, open_bytes, unreadable
from openrpt.data.encodings import check_encoding, is_utf8
from openrpt.data.field_values import WrittenFloat, arrow_value
from openrpt.data.made_corpora import is_made, made_records
from openrpt.data.text_files import BOM, cut_at_separator, cut_blocks, open_text
from openrpt.errors import UserError
from openrpt.extras import missing

_DATASETS = "datasets:"
_DEMO = "champ"
# Builders of the `datasets` library that have no data of their own.
_FILE_BUILDERS = ("arrow", "csv", "json", "parquet", "text")

_CONVERT = "; convert it, if it is Latin-1: iconv -f LATIN1 -t UTF-8"
_Reason = Literal["invalid_utf8", "empty", "not_text", "left_out"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A line, row or block before templating."""

    source: str
    fields: Mapping[str, Any]
    key: str | None = None
    """The text whose hash decides the split, where no field is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unusable:
    """A record or document that cannot be had, in its place."""

    source: str
    reason: _Reason
    message: str
    """The reason in words; for a file that was left out, its ending."""

    def __str__(self) -> str:
        return f"{self.source}: {self.message}"


_JSON = json.JSONDecoder(parse_float=WrittenFloat)


def read_records(config: CorpusConfig, columns: list[str] | None) -> Iterator[Record | Unusable]:
    """Yields all records of `config.path`; first, one a file of a folder that is left out.

    `columns`: the fields that are needed (None: all). Raises UserError for what can't be read.
    """
    if config.path.startswith(_DATASETS):
        yield from _read_datasets(config.path, columns)
        return
    if is_made(config.path):
        for source, fields in made_records(config):
            yield Record(source=source, fields=fields)
        return
    if config.path == _DEMO:
        from openrpt.data.assets import demo_corpus_jsonl

        path = demo_corpus_jsonl()
    else:
        path = Path(config.path)
    files = list_files(path)
    for name, ending in files.left_out:
        yield Unusable(source=name, reason="left_out", message=ending)
    for file, name in files.found:
        try:
            yield from _read_file(file, name, config, columns)
        except (OSError, EOFError, zlib.error) as error:
            raise unreadable(file, error) from None


def require_there(path: str) -> None:
    """Raises UserError where a corpus is to be a file or a folder, and there is none of a known
    kind. Nothing is read."""
    if not (path.startswith(_DATASETS) or is_made(path) or path == _DEMO):
        list_files(Path(path))


class MissingField(UserError):
    """The error that a record lacks a field that is wanted."""

    def __init__(self, source: str, name: str, present: Collection[str]) -> None:
        known = ", ".join(present) or "none"
        super().__init__(f"{source}: field '{name}' is missing; there are: {known}")
        self.name, self.present = name, list(present)


def check_fields(source: str, wanted: Iterable[str], present: Collection[str]) -> None:
    """Checks that a record has the fields that are wanted. Raises MissingField for the first that
    it lacks."""
    for name in wanted:
        if name not in present:
            raise MissingField(source, name, present)


def invalid_utf8(source: str, advice: str = "") -> Unusable:
    """Returns the record in place of a text that is not UTF-8."""
    return Unusable(source=source, reason="invalid_utf8", message=f"invalid UTF-8{advice}")


def _read_file(
    path: Path, name: str, config: CorpusConfig, columns: list[str] | None
) -> Iterator[Record | Unusable]:
    if path.stat().st_size == 0:
        yield Unusable(source=name, reason="empty", message="the file is empty")
        return
    kind = ending_of(path).removesuffix(".gz")
    if kind == ".parquet":
        yield from _read_parquet(path, name, columns)
        return
    check_encoding(path)
    yield from _read_jsonl(path, name) if kind == ".jsonl" else _read_txt(path, name, config)


def _read_jsonl(path: Path, name: str) -> Iterator[Record | Unusable]:
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            source = f"{name}:{number}"
            try:
                # Files that were joined have a mark at the start of later lines, too.
                text = line.removeprefix(codecs.BOM_UTF8).decode()
            except UnicodeDecodeError:
                yield invalid_utf8(source, _CONVERT)
                continue
            if text.strip():
                yield Record(source=source, fields=_parse(text, source))


def _parse(line: str, source: str) -> dict[str, Any]:
    joined = "; a byte order mark (BOM) stands in the line: start a new line there"
    hint = joined if BOM in line else ""
    try:
        fields = _JSON.decode(line.rstrip())
    except RecursionError:
        raise UserError(f"{source}: broken JSON: nested too deeply") from None
    except json.JSONDecodeError as error:  # its own words count lines within this one
        place = f"character {error.pos + 1}"
        raise UserError(f"{source}: broken JSON: {error.msg} at {place}{hint}") from None
    except ValueError as error:
        raise UserError(f"{source}: broken JSON: {error}{hint}") from None
    if not isinstance(fields, dict):
        raise UserError(f"{source}: a {type(fields).__name__}, not a JSON object")
    return fields


def _read_txt(path: Path, name: str, config: CorpusConfig) -> Iterator[Record | Unusable]:
    # Before anything of it is used: half a file would be a corpus that nobody meant.
    if not is_utf8(path):
        yield invalid_utf8(name, _CONVERT)
        return
    is_blank = True
    with open_text(path) as file:
        if config.separator:
            pieces = cut_at_separator(file, config.separator)
        else:
            pieces = cut_blocks(file, config.block_characters)
        for number, text in enumerate(pieces, start=1):
            source = f"{name}:{number}"
            if text.strip():
                is_blank = False
                key = None if config.separator else source
                yield Record(source=source, fields={"text": text}, key=key)
    if is_blank:
        yield Unusable(source=name, reason="empty", message="the file holds only whitespace")


@contextmanager
def _foreign(what: str) -> Iterator[None]:
    """Turns whatever a library of data files raises into one line that begins with `what`.

    Arrow and `datasets` raise any kind of exception for files that they can't take, also TypeError,
    KeyError and AttributeError; so it's all of them.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {one_line(error)}") from None


def _read_parquet(path: Path, name: str, columns: list[str] | None) -> Iterator[Record | Unusable]:
    from pyarrow.parquet import ParquetFile

    # With a buffer, a column is read in pieces instead of a row group at once.
    with (
        _foreign(f"{path}: not a readable parquet file"),
        ParquetFile(path, buffer_size=1 << 20) as file,
    ):
        names = file.schema_arrow.names
        columns = names if columns is None else columns
        check_fields(name, columns, names)
        count = Counter(names)
        for column in columns:
            if count[column] > 1:
                raise UserError(f"{path}: {count[column]} columns are called '{column}'; rename")
        row = 0
        for batch in file.iter_batches(batch_size=256, columns=columns):
            for offset in range(batch.num_rows):
                row += 1
                source = f"{name}:{row}"
                try:
                    fields = {column: arrow_value(batch[column][offset]) for column in columns}
                except UnicodeDecodeError:
                    yield invalid_utf8(source)
                    continue
                yield Record(source=source, fields=fields)


def _read_datasets(path: str, columns: list[str] | None) -> Iterator[Record]:
    try:
        import datasets
    except ImportError:
        raise missing("the datasets library", extra="datasets", what=path) from None

    _, name, config_name, split = [*path.split(":", 3), "", ""][:4]
    if not name:
        raise UserError(f"{path}: the dataset's name is missing: 'datasets:NAME'")
    data_files = None
    if name in _FILE_BUILDERS:
        # Without a file they would read the whole working folder.
        if not config_name:
            raise UserError(f"{path}: '{name}' needs a file: 'datasets:{name}:FILE'")
        config_name, data_files = "", config_name
    with _foreign(f"{path}: cannot be loaded"):
        rows = datasets.load_dataset(
            name,
            config_name or None,
            data_files=data_files,
            split=split or "train",
            streaming=True,
        )
        if columns is not None and set(columns) <= set(rows.column_names or []):
            rows = rows.select_columns(columns)  # images and the like are never decoded
        for number, row in enumerate(rows, start=1):
            yield Record(source=f"{path}:{number}", fields=row)


def read_fields(
    path: str, names: Sequence[str] | None = None
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields (source, fields) of every record of a file, folder or dataset, as they stand.

    `path` as `corpus.path`; without `names` all fields. Files of other kinds in a folder are passed
    over. Raises UserError for what cannot be read, an unusable record and a missing field.
    """
    columns = None if names is None else list(names)
    for record in read_records(CorpusConfig(path=path), columns):
        if isinstance(record, Unusable):
            if record.reason == "left_out":
                continue
            raise UserError(str(record))
        check_fields(record.source, names or (), record.fields)
        yield record.source, record.fields
