"""Held-out texts cut in two: what is given, and how it really goes on."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from openrpt.config.sections import Config
from openrpt.data.tokens import encode_document
from openrpt.errors import UserError
from openrpt.seeding import key_of

_LEAST_PASSAGES = 10
"""The least number of passages: fewer give no distance between sets of texts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A passage of a document: a prefix to go on from, and its real continuation."""

    document_id: str
    prefix: str
    """The text to go on from; it ends where a word does."""
    real: str
    """The text that follows it in the document."""


def passages(
    texts: Iterable[tuple[str, Callable[[], str]]],
    config: Config,
    tokenizer: Any,
    others: Sequence[Any] = (),
) -> list[Passage]:
    """Returns `writing.documents` passages of texts (an id, and a function that gives the text) in
    a keyed order, sized in tokens of `tokenizer`. Texts that are too short, or that one of the
    `others` does not give back, are passed over.

    Raises UserError where fewer than _LEAST_PASSAGES are left.
    """
    settings = config.writing
    order = sorted(texts, key=lambda text: key_of(config.seed, "writing", text[0]))
    found: list[Passage] = []
    for document_id, read in order:
        if len(found) == settings.documents:
            break
        text = read()
        cut = _cut(text, settings.prefix_tokens, settings.completion_tokens, tokenizer)
        if cut is not None and all(_is_kept(text, other) for other in others):
            start, end = cut
            found.append(
                Passage(document_id=document_id, prefix=text[:start], real=text[start:end])
            )
    if len(found) < _LEAST_PASSAGES:
        raise UserError(
            f"{len(found)} of {len(order)} documents have writing.prefix_tokens ="
            f" {settings.prefix_tokens} and writing.completion_tokens ="
            f" {settings.completion_tokens} tokens, at least {_LEAST_PASSAGES} are needed: lower"
            " these, or give more text"
        )
    return found


def _cut(text: str, prefix: int, continuation: int, tokenizer: Any) -> tuple[int, int] | None:
    """Returns where the prefix and the continuation end, in characters; None for too short a text.

    The prefix has `prefix` tokens and goes on until the next one begins with white space.
    """
    try:
        _, pieces = encode_document(tokenizer, text)
    except UserError:
        return None
    start = prefix
    while start < len(pieces) and not pieces[start][:1].isspace():
        start += 1
    if start + continuation > len(pieces):
        return None
    before = b"".join(pieces[:start]).decode("utf-8", errors="ignore")
    whole = b"".join(pieces[: start + continuation]).decode("utf-8", errors="ignore")
    return len(before), len(whole)


def _is_kept(text: str, tokenizer: Any) -> bool:
    try:
        encode_document(tokenizer, text)
    except UserError:
        return False
    return True


def passages_key(found: Sequence[Passage]) -> str:
    """Returns the key of what a result depends on."""
    joined = "\x1f".join(f"{p.document_id}\x1e{p.prefix}\x1e{p.real}" for p in found)
    return hashlib.sha256(joined.encode()).hexdigest()
