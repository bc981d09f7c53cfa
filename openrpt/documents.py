"""From a corpus to documents: read as a stream, split by a hash, near-duplicates on one side.

Memory does not grow with the corpus: files are read piece by piece, and what has been seen is
kept in an index on disk (`openrpt.duplicates`).
"""

import codecs
import json
import re
import string
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TextIO

from openrpt.config import CorpusConfig
from openrpt.duplicates import DuplicateIndex, open_index
from openrpt.errors import UserError
from openrpt.types import Document, Split

SUFFIXES = (".txt", ".jsonl", ".parquet")
SKIPS_NAMED = 20
"""How many skipped documents `CorpusCounts.skipped` names."""

KIND_CHARACTERS = 80

_READ_CHARACTERS = 1 << 16
_LEVEL = re.compile(r" ?(?:->|/|>|::) ?")
_BOUNDARIES = (
    re.compile(r"\r?\n(?:[ \t]*\r?\n)+"),  # a paragraph's end
    re.compile(r"\n"),
    re.compile(r"[^\S\r\n]"),  # never between \r and \n
)
# Builders of the `datasets` library that have no data of their own.
_FILE_BUILDERS = ("arrow", "csv", "json", "parquet", "text")

_Reason = Literal["invalid_utf8", "empty", "not_text"]


@dataclass(kw_only=True)
class CorpusCounts:
    """What `read_corpus` has met so far, in documents (for a .txt in invalid UTF-8: files)."""

    documents: int = 0
    train: int = 0
    development: int = 0
    heldout: int = 0
    skipped_invalid_utf8: int = 0
    skipped_empty: int = 0
    skipped_not_text: int = 0
    exact_duplicates: int = 0
    near_duplicates_moved: int = 0
    """Stand on another side than their key's hash said, because of an earlier document."""
    near_duplicates_dropped: int = 0
    """Overlapped with documents of two sides."""
    skipped: list[str] = field(default_factory=list)
    """Name and reason of the first 20 that were skipped."""
    _hash: Any = field(default_factory=sha256, repr=False, compare=False)

    def corpus_hash(self) -> str:
        """Hex SHA-256 over the documents so far, in order: their ids and splits."""
        return self._hash.hexdigest()

    def add(self, document: Document) -> None:
        self.documents += 1
        self.train += document.split == "train"
        self.development += document.split == "development"
        self.heldout += document.split == "heldout"
        self._hash.update(f"{document.document_id} {document.split}\n".encode())

    def skip(self, unusable: "_Unusable") -> None:
        self.skipped_invalid_utf8 += unusable.reason == "invalid_utf8"
        self.skipped_empty += unusable.reason == "empty"
        self.skipped_not_text += unusable.reason == "not_text"
        if len(self.skipped) < SKIPS_NAMED:
            self.skipped.append(str(unusable))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """A line, row or block before templating."""

    source: str
    fields: Mapping[str, Any]
    key: str | None = None
    """What the split is a hash of, where no field is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unusable:
    """In place of a record or document that cannot be had."""

    source: str
    reason: _Reason
    message: str

    def __str__(self) -> str:
        return f"{self.source}: {self.message}"


def read_corpus(
    config: CorpusConfig, counts: CorpusCounts, *, index_path: Path | None = None
) -> Generator[Document, None, None]:
    """Yields the documents of `config.path`, in order, and counts them and what is skipped.

    `counts` is a fresh one. The index of near-duplicates is scratch: at `index_path`, or in a
    temporary folder, until the iterator is exhausted or closed. Raises UserError, at the first
    document at the earliest, for what cannot be read, has no usable document, or (with
    `config.strict`) has an unusable one.
    """
    template, key_field = Template(config.template), config.key
    if config.path == "champ" and config.template == "{text}":
        template, key_field = Template("{problem}\n\n{solution}"), key_field or "problem"
    wanted = [*template.fields, key_field or template.fields[0], config.kind]
    columns = [name for name in dict.fromkeys(wanted) if name]
    with open_index(index_path) as index:
        for record in _read_records(config, columns):
            document = _to_document(record, template, key_field, config)
            if isinstance(document, _Unusable):
                if config.strict:
                    raise UserError(f"{document}; mend it, or leave out corpus.strict to skip it")
                counts.skip(document)
                continue
            placed = _place(document, index, counts)
            if placed is None:
                continue
            counts.add(placed)
            yield placed
            if counts.documents == config.limit:
                return
    if counts.documents == 0:
        why = f" ({counts.skipped[0]})" if counts.skipped else ""
        raise UserError(f"{config.path}: no usable document{why}")


def read_fields(
    path: str, names: Sequence[str] | None = None
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields (source, fields) of every record of a file, folder or dataset, as they stand.

    `path` as `corpus.path`; without `names` all fields. Raises UserError for what cannot be read,
    an unusable record and a missing field.
    """
    columns = None if names is None else list(names)
    for record in _read_records(CorpusConfig(path=path), columns):
        if isinstance(record, _Unusable):
            raise UserError(str(record))
        _check_fields(record.source, names or (), record.fields)
        yield record.source, record.fields


def split_of_key(key: str, config: CorpusConfig) -> Split:
    """The side of the split for a key: its SHA-256 as a uniform number in [0, 1), cut by shares.

    It depends on nothing else, so a document's side survives any change of the others.
    """
    # 53 bits: as many as a float holds, so that rounding never gives 1.
    uniform = (int.from_bytes(sha256(key.encode()).digest()[:8], "big") >> 11) / 2**53
    if uniform < config.heldout_fraction:
        return "heldout"
    if uniform < config.heldout_fraction + config.development_fraction:
        return "development"
    return "train"


def split_shares(config: CorpusConfig) -> dict[Split, float]:
    """What part of the documents each side of the split gets."""
    heldout, development = config.heldout_fraction, config.development_fraction
    return {"train": 1 - heldout - development, "development": development, "heldout": heldout}


class Template:
    """`{field}` and literal text (`{{` is a brace); nothing else of Python's format strings.

    >>> Template("Q: {problem} {{}}").render({"problem": "1 + 1?"})
    'Q: 1 + 1? {}'
    """

    def __init__(self, template: str) -> None:
        where = f"corpus.template = {template!r}"
        try:
            pieces = list(string.Formatter().parse(template))
        except ValueError as error:
            raise UserError(f"{where}: {error}; a literal brace is {{{{ or }}}}") from None
        self.pieces: list[tuple[str, str | None]] = []
        for literal, name, format_spec, conversion in pieces:
            if name is not None and (
                not name or name.isdigit() or set(name) & set(".[") or format_spec or conversion
            ):
                raise UserError(f"{where}: only plain fields such as {{problem}} can be used")
            self.pieces.append((literal, name))
        self.fields = tuple(dict.fromkeys(name for _, name in self.pieces if name is not None))
        if not self.fields:
            raise UserError(f"{where}: it names no field, such as {{text}}")

    def render(self, values: Mapping[str, str]) -> str:
        return "".join(
            literal + (values[name] if name is not None else "") for literal, name in self.pieces
        )


def _to_document(
    record: _Record | _Unusable, template: Template, key_field: str, config: CorpusConfig
) -> Document | _Unusable:
    if isinstance(record, _Unusable):
        return record
    names = dict.fromkeys([*template.fields, key_field or template.fields[0]])
    kind = [config.kind] if config.kind else []
    _check_fields(record.source, [*names, *kind], record.fields)
    values: dict[str, str] = {}
    for name in names:
        value = record.fields[name]
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            message = f"field '{name}' is not text but {type(value).__name__}"
            return _Unusable(source=record.source, reason="not_text", message=message)
        values[name] = str(value)
    if not any(values[name].strip() for name in template.fields):
        return _Unusable(source=record.source, reason="empty", message="the document is empty")
    text = template.render(values)
    # A blank key would throw unrelated documents together.
    key = values[key_field] if key_field else record.key or values[template.fields[0]]
    key = key if key.strip() else text
    try:
        document_id = sha256(text.encode()).hexdigest()[:16]
        split = split_of_key(key, config)
    except UnicodeEncodeError:  # JSON can hold half a surrogate pair
        return _invalid_utf8(record.source)
    return Document(
        document_id=document_id,
        text=text,
        key=key,
        split=split,
        source=record.source,
        kind=kind_of(record.fields[config.kind], config.kind_levels) if config.kind else "",
    )


def kind_of(value: Any, levels: int) -> str:
    """A field as the name of a kind, at most KIND_CHARACTERS long; empty for nothing.

    >>> kind_of(["Mathematics -> Algebra -> Polynomials", "Mathematics -> Geometry"], levels=2)
    'Mathematics -> Algebra'
    """
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    kind = "" if value is None else " ".join(str(value).split())
    if levels:
        ends = [match.start() for match in _LEVEL.finditer(kind)]
        kind = kind[: ends[levels - 1]] if len(ends) >= levels else kind
    return kind[:KIND_CHARACTERS]


def _check_fields(source: str, wanted: Iterable[str], there: Collection[str]) -> None:
    for name in wanted:
        if name not in there:
            known = ", ".join(there) or "none"
            raise UserError(f"{source}: field '{name}' is missing; there are: {known}")


def _place(document: Document, index: DuplicateIndex, counts: CorpusCounts) -> Document | None:
    """The document on its side of the split; None (and counted) where it is dropped."""
    if not index.add_id(document.document_id):
        counts.exact_duplicates += 1
        return None
    split = index.place(document.text, document.key, document.split)
    if split is None:
        counts.near_duplicates_dropped += 1
        return None
    counts.near_duplicates_moved += split != document.split
    return replace(document, split=split)


def _read_records(config: CorpusConfig, columns: list[str] | None) -> Iterator[_Record | _Unusable]:
    if config.path.startswith("datasets:"):
        yield from _read_datasets(config.path, columns)
        return
    if config.path == "champ":
        from openrpt.assets import demo_corpus_jsonl

        path = demo_corpus_jsonl()
    else:
        path = Path(config.path)
    name = ""
    try:
        for file, name in _list_files(path):
            yield from _read_file(file, name, config, columns)
    except OSError as error:
        reason = error.strerror or _one_line(error)
        raise UserError(f"{name or path}: cannot be read: {reason}") from None


def _list_files(path: Path) -> list[tuple[Path, str]]:
    """The files of a corpus and their names, relative to `path`; in a folder, sorted by name."""
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{path}: unknown kind of file; a corpus is {', '.join(SUFFIXES)}")
        return [(path, path.name)]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder (a dataset's name is 'datasets:NAME')")
    names = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
    found = sorted(
        name.as_posix()
        for name in names
        if name.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in name.parts)
    )
    if not found:
        raise UserError(f"{path}: the folder holds no {', '.join(SUFFIXES)} file")
    return [(path / name, name) for name in found]


def _read_file(
    path: Path, name: str, config: CorpusConfig, columns: list[str] | None
) -> Iterator[_Record | _Unusable]:
    if path.stat().st_size == 0:
        yield _Unusable(source=name, reason="empty", message="the file is empty")
    elif path.suffix.lower() == ".parquet":
        yield from _read_parquet(path, name, columns)
    else:
        with path.open("rb") as file:
            if b"\0" in file.read(1024):
                raise UserError(f"{path}: a binary file, or not in UTF-8; a corpus is plain text")
        if path.suffix.lower() == ".jsonl":
            yield from _read_jsonl(path, name)
        else:
            yield from _read_txt(path, name, config)


def _read_jsonl(path: Path, name: str) -> Iterator[_Record | _Unusable]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            source = f"{name}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                yield _invalid_utf8(source)
                continue
            if not text.strip():
                continue
            try:
                fields = json.loads(text)
            except RecursionError:
                raise UserError(f"{source}: broken JSON: nested too deeply") from None
            except ValueError as error:
                raise UserError(f"{source}: broken JSON: {error}") from None
            if not isinstance(fields, dict):
                raise UserError(f"{source}: a {type(fields).__name__}, not a JSON object")
            yield _Record(source=source, fields=fields)


def _read_txt(path: Path, name: str, config: CorpusConfig) -> Iterator[_Record | _Unusable]:
    # Before anything of it is used: half a file would be a corpus that nobody meant.
    if not _is_utf8(path):
        yield _invalid_utf8(name)
        return
    is_blank = True
    with path.open(encoding="utf-8-sig", newline="") as file:
        if config.separator:
            pieces = cut_at_separator(file, config.separator)
        else:
            pieces = cut_blocks(file, config.block_characters)
        for number, text in enumerate(pieces, start=1):
            source = f"{name}:{number}"
            if text.strip():
                is_blank = False
                key = None if config.separator else source
                yield _Record(source=source, fields={"text": text}, key=key)
    if is_blank:
        yield _Unusable(source=name, reason="empty", message="the file holds only whitespace")


def cut_at_separator(file: TextIO, separator: str) -> Iterator[str]:
    """What `file.read().split(separator)` gives, holding one piece at a time."""
    buffer = ""
    while chunk := file.read(_READ_CHARACTERS):
        searched = max(0, len(buffer) - len(separator) + 1)  # before it, there is none
        buffer += chunk
        if buffer.find(separator, searched) >= 0:
            *pieces, buffer = buffer.split(separator)
            yield from pieces
    yield buffer


def cut_blocks(file: TextIO, block_characters: int) -> Iterator[str]:
    """Contiguous blocks of `block_characters` ± a quarter (the last may be shorter).

    They end at a paragraph's end, else a line's, else a space, whichever is nearest to
    `block_characters`, else exactly there. Joined they are the file.
    """
    low, high = block_characters - block_characters // 4, block_characters + block_characters // 4
    buffer = ""
    while chunk := file.read(_READ_CHARACTERS):
        buffer += chunk
        start = 0
        while len(buffer) - start > high:
            end = start + _block_end(buffer[start : start + high], low, block_characters)
            yield buffer[start:end]
            start = end
        buffer = buffer[start:]
    if buffer:
        yield buffer


def _block_end(window: str, low: int, target: int) -> int:
    for boundary in _BOUNDARIES:
        ends = [match.end() for match in boundary.finditer(window, low - 1)]
        if ends:
            return min(ends, key=lambda end: abs(end - target))
    return target


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        try:
            while chunk := file.read(1 << 20):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _read_parquet(
    path: Path, name: str, columns: list[str] | None
) -> Iterator[_Record | _Unusable]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        # With a buffer, a column is read in pieces instead of a row group at once.
        with ParquetFile(path, buffer_size=1 << 20) as file:
            columns = file.schema_arrow.names if columns is None else columns
            _check_fields(name, columns, file.schema_arrow.names)
            row = 0
            for batch in file.iter_batches(batch_size=256, columns=columns):
                for offset in range(batch.num_rows):
                    row += 1
                    source = f"{name}:{row}"
                    try:
                        fields = {column: batch[column][offset].as_py() for column in columns}
                    except UnicodeDecodeError:
                        yield _invalid_utf8(source)
                        continue
                    yield _Record(source=source, fields=fields)
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: not a readable parquet file: {_one_line(error)}") from None


def _read_datasets(path: str, columns: list[str] | None) -> Iterator[_Record]:
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError:
        raise UserError(
            f'{path}: the datasets library is missing; pip install "openrpt[datasets]"'
        ) from None

    _, name, config_name, split = [*path.split(":", 3), "", ""][:4]
    if not name:
        raise UserError(f"{path}: the dataset's name is missing: 'datasets:NAME'")
    data_files = None
    if name in _FILE_BUILDERS:
        # Without a file they would read the whole working folder.
        if not config_name:
            raise UserError(f"{path}: '{name}' needs a file: 'datasets:{name}:FILE'")
        config_name, data_files = "", config_name
    try:
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
            yield _Record(source=f"{path}:{number}", fields=row)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise UserError(f"{path}: cannot be loaded: {_one_line(error)}") from None


def _invalid_utf8(source: str) -> _Unusable:
    return _Unusable(source=source, reason="invalid_utf8", message="invalid UTF-8")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
