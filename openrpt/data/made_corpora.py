"""Corpora that are made at run time, by a name in the place of a path: worlds, worked problems,
bills."""

from collections.abc import Iterator
from typing import Any

from openrpt.config.corpus import CorpusConfig
from openrpt.data.bills import bills_documents, is_bills, read_bills
from openrpt.data.worked_problems import is_worked_problems, worked_problems
from openrpt.data.worlds.reading import IS_WORLD, open_world, read_world


def is_made(path: str) -> bool:
    """Returns whether a corpus path names a corpus that is made at run time."""
    return path.startswith(IS_WORLD) or is_worked_problems(path) or is_bills(path)


def made_records(config: CorpusConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (source, fields) of such a corpus. Raises UserError for a name or parameter that there
    isn't, and where files that it needs can't be had."""
    if is_worked_problems(config.path):
        return worked_problems(config)
    return read_bills(config.path) if is_bills(config.path) else read_world(config.path)


def made_documents(config: CorpusConfig) -> int:
    """Returns the number of documents of a corpus that is made of nothing, at most `config.limit`;
    0 for another. Raises UserError as `made_records`."""
    if is_bills(config.path):
        documents = bills_documents(config.path)
    elif config.path.startswith(IS_WORLD):
        documents = open_world(config.path).documents
    else:
        return 0
    return min(documents, config.limit or documents)
