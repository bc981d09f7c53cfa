"""Exact bytes of tokens.

The reward compares bytes, so each token's bytes must be known exactly, and joined over a document
they must give its UTF-8 bytes back. Two families of tokenizers can do that: byte-level BPE (each
character of a token stands for one byte) and SentencePiece with byte fallback ("▁" stands for a
space, `<0x0A>` for a byte). All others are refused by name.

A dummy prefix is the space that some tokenizers put before a text: it is in the ids, not in the
text, so it is dropped from the bytes of a text's first token.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer
from tokenizers.models import BPE

from openrpt.data.tokenizer_rules import (
    SPACE,
    has_dummy_prefix,
    is_byte_level,
    plain_tokenizer,
    why_refused,
)
from openrpt.errors import UserError, foreign

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
_MOST_IDS = 1 << 24
"""Largest vocabulary for which a table is made; those in use have up to 2^19 tokens."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenTable:
    """The bytes of a tokenizer's tokens; made once a tokenizer by `token_table`."""

    bytes: list[bytes]
    """Exact bytes of each id; b"" for special tokens and for ids without a token."""
    special_ids: frozenset[int]
    drops_dummy_prefix: bool
    """True if the tokenizer puts a space before a text."""
    plain_tokenizer: Tokenizer
    """Encodes text as it stands: no special tokens parsed, no dummy prefix, no normalization."""


def token_table(tokenizer: "PreTrainedTokenizerBase") -> TokenTable:
    """Returns the tokenizer's table, cached (and made anew if tokens were added).

    Every stage asks for it before it encodes, so merge dropout (`dropout` of BPE in a
    tokenizer.json: each merge left out at random) is switched off in the tokenizer here.

    Raises UserError, which names the tokenizer and the reason, if exact bytes cannot be had.
    """
    return _build_table(tokenizer, len(tokenizer))


def token_bytes(
    tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int], *, at_start: bool = True
) -> list[bytes]:
    """Returns the exact bytes of each token; joined, the UTF-8 bytes of the text that gave these
    ids.

    `at_start=False`: the ids come from inside a text, so there is no dummy prefix to drop. Special
    tokens give b"". Raises UserError if the tokenizer cannot give exact bytes.
    """
    table = token_table(tokenizer)
    pieces = [bytes_of(table, token_id) for token_id in ids]
    if at_start and table.drops_dummy_prefix:
        first = next((n for n, i in enumerate(ids) if i not in table.special_ids), None)
        if first is not None:
            pieces[first] = pieces[first].removeprefix(b" ")
    return pieces


def literal_bytes(table: TokenTable, ids: Sequence[int], literal: Mapping[int, bytes]) -> bytes:
    """Returns the bytes of a completion, that is, of ids from inside a text.

    Special tokens give nothing but for those in `literal`, which give their own text: the thought's
    delimiters render even where they are one special token.
    """
    return b"".join(literal[i] if i in literal else bytes_of(table, i) for i in ids)


def encode_document(
    tokenizer: "PreTrainedTokenizerBase", text: str
) -> tuple[list[int], list[bytes]]:
    """Returns the ids of a document and their bytes, which join to its UTF-8 bytes.

    The text is data: a control token spelled out in it (`<|im_end|>`, or an added token that the
    chat template uses, such as Qwen3's `<think>`) is encoded as ordinary text. No BOS or EOS is
    added. The ids are those of the tokenizer itself, save where its own would lose text: NFC is
    left out, and a text's own leading space is kept beside the dummy prefix.

    Raises UserError if the tokenizer is refused or the text does not come back from its tokens.
    """
    table = token_table(tokenizer)
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text has half a surrogate pair at character {error.start}, which is not Unicode; "
            "mend the document or leave it out"
        ) from None
    dummy_prefix = " " if table.drops_dummy_prefix and text else ""
    with foreign(f"{_name(tokenizer)} fails on a text"):  # an expression that takes too long
        ids = table.plain_tokenizer.encode(dummy_prefix + text, add_special_tokens=False).ids
    pieces = token_bytes(tokenizer, ids)
    joined = b"".join(pieces)
    if joined != data:
        at = next((n for n, (a, b) in enumerate(zip(data, joined, strict=False)) if a != b), None)
        at = min(len(data), len(joined)) if at is None else at
        raise UserError(
            f"{_name(tokenizer)} does not give the text back: at byte {at} the text has "
            f"{data[at : at + 16]!r}, its tokens {joined[at : at + 16]!r}; "
            "leave the document out or use a model with another tokenizer"
        )
    return ids, pieces


def bytes_of(table: TokenTable, token_id: int) -> bytes:
    """Returns a token's bytes; b"" beyond the table's end: models pad their vocabulary, and may
    sample from it."""
    return table.bytes[token_id] if token_id < len(table.bytes) else b""


@lru_cache(maxsize=8)
def _build_table(tokenizer: "PreTrainedTokenizerBase", num_tokens: int) -> TokenTable:
    """Builds the table; `num_tokens` is part of the cache's key only."""
    from transformers import PreTrainedTokenizerFast

    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(
            f"{_name(tokenizer)} runs in Python, so its rules cannot be read; "
            "use a model folder with a tokenizer.json (a fast tokenizer)"
        )
    tokenizer.split_special_tokens = False  # else a template's control tokens would be plain text
    backend = tokenizer.backend_tokenizer
    if isinstance(backend.model, BPE):
        backend.model.dropout = None  # one text has one encoding, also in what is saved later
    vocab = backend.get_vocab(with_added_tokens=True)
    last = max(vocab.values(), default=-1)
    if last >= _MOST_IDS:
        raise UserError(
            f"{_name(tokenizer)} has a token with id {last}, of {len(vocab)} tokens: its"
            " tokenizer.json is damaged; take it anew from where it came from"
        )
    spec = json.loads(backend.to_str())
    reason = why_refused(spec)
    if reason:
        raise UserError(
            f"{_name(tokenizer)} cannot give the exact bytes of its tokens: {reason}; "
            "use a model with byte-level BPE, or with SentencePiece and byte fallback"
        )
    added = {token["id"]: token for token in spec["added_tokens"]}
    special_ids = frozenset(tokenizer.all_special_ids).union(
        i for i, token in added.items() if token["special"]
    )
    table = [b""] * (last + 1)
    byte_level = is_byte_level(spec)
    for piece, i in vocab.items():
        if i in special_ids:
            continue
        if not byte_level:
            table[i] = _sentencepiece_bytes(piece)
        else:
            table[i] = piece.encode() if i in added else _byte_level_bytes(piece)
    return TokenTable(
        bytes=table,
        special_ids=special_ids,
        drops_dummy_prefix=has_dummy_prefix(spec),
        plain_tokenizer=plain_tokenizer(
            backend, spec, special_ids, str(tokenizer.chat_template or "")
        ),
    )


def _byte_alphabet() -> dict[str, int]:
    """Returns GPT-2's byte ↔ character table: printable Latin-1 stands for itself, the other bytes,
    in order, for the characters from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + n): byte for n, byte in enumerate(others)
    }


BYTE_OF = _byte_alphabet()


def _byte_level_bytes(piece: str) -> bytes:
    try:
        return bytes(map(BYTE_OF.__getitem__, piece))
    except KeyError:  # not in the alphabet: a token that no text gives, as its decoder has it
        return piece.encode()


def _sentencepiece_bytes(piece: str) -> bytes:
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace(SPACE, " ").encode()


def _name(tokenizer: "PreTrainedTokenizerBase") -> str:
    path = tokenizer.name_or_path
    return f"the tokenizer {type(tokenizer).__name__}" + (f" of {path}" if path else "")


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Returns 16 hex digits that change whenever a text could get other ids."""
    table = token_table(tokenizer)
    spec = f"{table.drops_dummy_prefix} {table.plain_tokenizer.to_str()}"
    return sha256(spec.encode()).hexdigest()[:16]
