"""From a corpus to documents: read as a stream, split by a hash, near-duplicates on one side.

Memory does not grow with the corpus: files are read piece by piece, and what has been seen is
kept in an index on disk (`openrpt.data.duplicates`).
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from openrpt.config.corpus import CorpusConfig
from openrpt.data.corpus_counts import CorpusCounts, keep_first
from openrpt.data.duplicates import DuplicateIndex, open_index
from openrpt.data.field_values import text_of, type_of
from openrpt.data.kinds import kind_of
from openrpt.data.made_corpora import is_made
from openrpt.data.readers import (
    MissingField,
    Record,
    Unusable,
    check_fields,
    invalid_utf8,
    read_records,
)
from openrpt.data.splits import split_named, split_of_key, split_shares
from openrpt.data.template import Template
from openrpt.data.worked_problems import TEMPLATE as WORKED_TEMPLATE
from openrpt.data.worked_problems import is_worked_problems
from openrpt.data.worlds import reading as worlds
from openrpt.errors import UserError
from openrpt.types import Document, Split


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
    with _naming_keys(config):
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


@contextmanager
def _naming_keys(config: CorpusConfig) -> Iterator[None]:
    """Says of a missing field which key asks for it, and how it is given another."""
    try:
        yield
    except MissingField as missing:
        name, there = missing.name, missing.present
        if name in Template(config.template).fields:
            example = "\\n\\n".join(f"{{{field}}}" for field in there[:2]) or "{FIELD}"
            advice = (
                "corpus.template names it: say what makes a text, as in --corpus.template"
                f" '{example}'"
            )
        else:
            asking = ("key", "kind", "split", "offsets")
            key = next(key for key in asking if getattr(config, key) == name)
            advice = f"corpus.{key} names it: --corpus.{key} FIELD"
        raise UserError(f"{missing}; {advice}") from None


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


def _place(
    document: Document, index: DuplicateIndex, counts: CorpusCounts, config: CorpusConfig
) -> Document | None:
    """Returns the document on its side of the split; None (and counted) where it is dropped.

    A side that is given stays: a document that shares words with an earlier one of another side
    is dropped. Texts that are made share words by design; what must not be on two sides has one
    key, or a kind that says so.
    """
    if not index.add_id(document.document_id):
        counts.exact_duplicates += 1
        keep_first(counts.first, "exact_duplicates", document.source)
        return None
    if is_made(config.path):
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
