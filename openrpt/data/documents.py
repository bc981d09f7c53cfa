"""From a corpus to documents: read as a stream, split by a hash, near-duplicates on one side.

Memory does not grow with the corpus: files are read piece by piece, and what has been seen is
kept in an index on disk (`openrpt.data.duplicates`).
"""

import re
import string
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from openrpt.config.corpus import CorpusConfig
from openrpt.data.duplicates import DuplicateIndex, open_index
from openrpt.data.field_values import text_of, type_of
from openrpt.data.readers import Record, Unusable, check_fields, invalid_utf8, read_records
from openrpt.data.splits import split_named, split_of_key, split_shares
from openrpt.data.worked_problems import TEMPLATE as WORKED_TEMPLATE
from openrpt.data.worked_problems import is_worked_problems
from openrpt.data.worlds import reading as worlds
from openrpt.errors import UserError
from openrpt.types import Document, Split

_SKIPS_NAMED = 20
"""Most skipped documents that `CorpusCounts.skipped` names."""
FIRST = 3
"""Most documents that `CorpusCounts.first` names of each kind."""

_KIND_CHARACTERS = 80

_LEVEL = re.compile(r" ?(?:->|/|>|::) ?")


@dataclass(kw_only=True)
class CorpusCounts:
    """The counts of what `read_corpus` has met so far, in documents (for a .txt in invalid UTF-8:
    files)."""

    documents: int = 0
    train: int = 0
    development: int = 0
    heldout: int = 0
    skipped_invalid_utf8: int = 0
    skipped_empty: int = 0
    skipped_not_text: int = 0
    exact_duplicates: int = 0
    near_duplicates_moved: int = 0
    """Documents on another side than their key's hash said, because of an earlier document."""
    near_duplicates_dropped: int = 0
    """Documents that overlapped with documents of two sides."""
    shared_words: str = ""
    """Words that the first document that was moved or dropped shares with an earlier one."""
    files_left_out: int = 0
    """Files of a folder that were left out, because a corpus has no files of their kind."""
    endings_left_out: list[str] = field(default_factory=list)
    """Endings of those files, each once."""
    skipped: list[str] = field(default_factory=list)
    """Name and reason of the first 20 that were skipped."""
    first: dict[str, list[str]] = field(default_factory=dict)
    """Names of the first 3 documents of each kind, by the names of these counts."""
    _hash: Any = field(default_factory=sha256, repr=False, compare=False)

    def corpus_hash(self) -> str:
        """Returns the hex SHA-256 over the documents so far, in order: their ids and splits."""
        return self._hash.hexdigest()

    def add(self, document: Document) -> None:
        """Counts a document that is used."""
        self.documents += 1
        self.train += document.split == "train"
        self.development += document.split == "development"
        self.heldout += document.split == "heldout"
        self._hash.update(f"{document.document_id} {document.split}\n".encode())

    def skip(self, unusable: Unusable) -> None:
        """Counts what is skipped, and keeps its name and reason, if it is among the first."""
        if unusable.reason == "left_out":
            self.files_left_out += 1
            if unusable.message not in self.endings_left_out:
                self.endings_left_out.append(unusable.message)
            return
        self.skipped_invalid_utf8 += unusable.reason == "invalid_utf8"
        self.skipped_empty += unusable.reason == "empty"
        self.skipped_not_text += unusable.reason == "not_text"
        keep_first(self.first, f"skipped_{unusable.reason}", unusable.source)
        if len(self.skipped) < _SKIPS_NAMED:
            self.skipped.append(str(unusable))


def keep_first(first: dict[str, list[str]], count: str, name: str) -> None:
    """Adds the name of a document, unless there are 3 already."""
    names = first.setdefault(count, [])
    if len(names) < FIRST:
        names.append(name)


def read_corpus(
    config: CorpusConfig, counts: CorpusCounts, *, index_path: Path | None = None
) -> Generator[Document, None, None]:
    """Yields the documents of `config.path`, in order, and counts them and what is skipped.

    `counts` is a fresh one. The index of near-duplicates is scratch: at `index_path`, or in a
    temporary folder, until the iterator is exhausted or closed. Raises UserError, at the first
    document at the earliest, for what cannot be read, has no usable document, or (with
    `config.strict`) has an unusable one.
    """
    with open_index(index_path) as index:
        yield from _documents(config, counts, index, None)
        if config.heldout_path:
            heldout = config.model_copy(update={"path": config.heldout_path})
            yield from _documents(heldout, counts, index, "heldout")
    if counts.documents == 0:
        why = f" ({counts.skipped[0]})" if counts.skipped else ""
        raise UserError(f"{config.path}: no usable document{why}")


def _documents(
    config: CorpusConfig, counts: CorpusCounts, index: DuplicateIndex, side: Split | None
) -> Iterator[Document]:
    """The documents of `config.path`, at most `config.limit`, on the side that is given, if any."""
    config = _with_defaults(config)
    template, key_field = Template(config.template), config.key
    wanted = [*template.fields, key_field or template.fields[0]]
    wanted += [config.kind, config.split, config.offsets]
    columns = [name for name in dict.fromkeys(wanted) if name]
    before = counts.documents
    for record in read_records(config, columns):
        document = _to_document(record, template, key_field, config, side)
        if isinstance(document, Unusable):
            if config.strict and document.reason != "left_out":
                raise UserError(f"{document}; mend it, or leave out corpus.strict to skip it")
            counts.skip(document)
            continue
        placed = _place(document, index, counts, config)
        if placed is None:
            continue
        counts.add(placed)
        yield placed
        if counts.documents - before == config.limit:
            return


def possible_splits(config: CorpusConfig) -> set[Split]:
    """The sides of the split on which a document of the corpus may stand."""
    if _with_defaults(config).split:
        return {"train", "development", "heldout"}
    found: set[Split] = {split for split, share in split_shares(config).items() if share > 0}
    return {*found, "heldout"} if config.heldout_path else found


def _with_defaults(config: CorpusConfig) -> CorpusConfig:
    """The fields of a corpus that comes with the package or is made here, where none are said."""
    if config.template != "{text}":
        return config
    if config.path.startswith(worlds.IS_WORLD):
        fields = {"key": config.key or worlds.KEY, "kind": config.kind or worlds.KIND}
        fields["offsets"] = config.offsets or worlds.OFFSETS
    elif config.path == "champ":
        fields = {"template": "{problem}\n\n{solution}", "key": config.key or "problem"}
    elif is_worked_problems(config.path):
        fields = {"template": WORKED_TEMPLATE, "key": config.key or "question"}
        fields |= {"split": config.split or "split", "kind": config.kind or "kind"}
        if config.heldout_path:
            fields["split"] = config.split
    else:
        return config
    return config.model_copy(update=fields)


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
        """Returns the text for these values of the fields."""
        return "".join(
            literal + (values[name] if name is not None else "") for literal, name in self.pieces
        )


def _to_document(
    record: Record | Unusable,
    template: Template,
    key_field: str,
    config: CorpusConfig,
    side: Split | None,
) -> Document | Unusable:
    if isinstance(record, Unusable):
        return record
    names = dict.fromkeys([*template.fields, key_field or template.fields[0]])
    others = [name for name in (config.kind, config.split, config.offsets) if name]
    check_fields(record.source, [*names, *others], record.fields)
    values: dict[str, str] = {}
    for name in names:
        value = text_of(record.fields[name])
        if value is None:
            message = f"field '{name}' is not text but {type_of(record.fields[name])}"
            return Unusable(source=record.source, reason="not_text", message=message)
        values[name] = value
    if not any(values[name].strip() for name in template.fields):
        return Unusable(source=record.source, reason="empty", message="the document is empty")
    text = template.render(values)
    # A blank key would throw unrelated documents together.
    key = values[key_field] if key_field else record.key or values[template.fields[0]]
    key = key if key.strip() else text
    kind = kind_of(record.fields[config.kind], config.kind_levels) if config.kind else ""
    try:
        kind.encode()
        document_id = sha256(text.encode()).hexdigest()[:16]
        split = side or split_of_key(key, config)
    except UnicodeEncodeError:  # JSON can hold half a surrogate pair
        return invalid_utf8(record.source)
    if config.split:
        split = split_named(record.fields[config.split], config.split, record.source)
    offsets: tuple[int, ...] = ()
    if config.offsets:
        value = record.fields[config.offsets]
        offsets = _offsets(value, config.offsets, len(text.encode()), record.source)
    return Document(
        document_id=document_id,
        text=text,
        key=key,
        split=split,
        source=record.source,
        kind=kind,
        offsets=offsets,
    )


def _offsets(value: Any, name: str, size: int, source: str) -> tuple[int, ...]:
    """A field with places in a text of so many bytes; null is none."""
    found = [] if value is None else value
    if not isinstance(found, list) or any(type(item) is not int for item in found):
        raise UserError(
            f"{source}: field '{name}' (corpus.offsets) is no list of whole numbers, the places in"
            " the document's text, in bytes"
        )
    for offset in found:
        if not 0 <= offset < size:
            raise UserError(
                f"{source}: field '{name}' (corpus.offsets) has {offset}, outside of the"
                f" document's {size} bytes"
            )
    return tuple(found)


def kind_of(value: Any, levels: int) -> str:
    """Returns a field as the name of a kind, at most _KIND_CHARACTERS long; empty for null and NaN.

    >>> kind_of(["Mathematics -> Algebra -> Polynomials", "Mathematics -> Geometry"], levels=2)
    'Mathematics -> Algebra'
    """
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    text = text_of(value) if isinstance(value, float) else value
    kind = "" if text is None else " ".join(str(text).split())
    if levels:
        ends = [match.start() for match in _LEVEL.finditer(kind)]
        kind = kind[: ends[levels - 1]] if len(ends) >= levels else kind
    return kind[:_KIND_CHARACTERS]


def _place(
    document: Document, index: DuplicateIndex, counts: CorpusCounts, config: CorpusConfig
) -> Document | None:
    """Returns the document on its side of the split; None (and counted) where it is dropped.

    A side that is given stays: a document that shares words with an earlier one of another side
    is dropped. Problems made from templates share words by design, and their kind says so; texts of
    a world are alike by nature, and who shares a problem has the same key.
    """
    if not index.add_id(document.document_id):
        counts.exact_duplicates += 1
        keep_first(counts.first, "exact_duplicates", document.source)
        return None
    if is_worked_problems(config.path) or config.path.startswith(worlds.IS_WORLD):
        return document
    placement = index.place(document.text, document.key, document.split)
    if placement.side == document.split:
        return document
    counts.shared_words = counts.shared_words or placement.shared
    if placement.side is None or config.split or config.heldout_path:
        counts.near_duplicates_dropped += 1
        keep_first(counts.first, "near_duplicates_dropped", document.source)
        return None
    counts.near_duplicates_moved += 1
    keep_first(counts.first, "near_duplicates_moved", document.source)
    return replace(document, split=placement.side)
