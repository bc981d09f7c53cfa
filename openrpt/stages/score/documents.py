"""The documents pass of scoring: which documents are scored, in whose tokens, and which together.

It runs in the corpus's order and needs tokenizers alone. What is scored together, and where a shard
ends, follows from the documents: so whoever scores the packs, and in which order, the scores are
the same.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from openrpt.config.sections import Config
from openrpt.data.corpus_counts import CorpusCounts, keep_first
from openrpt.data.documents import possible_splits
from openrpt.data.score_summary import ScoreSummary
from openrpt.data.tokens import encode_document, tokenizer_fingerprint
from openrpt.engine.scorer import PACK_TOKENS, align
from openrpt.errors import UserError
from openrpt.types import Document

_WAITING_TOKENS = 4 * PACK_TOKENS
"""The number of tokens of documents that wait to be packed: of few, the last pass is half empty."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Encoded:
    """A document in the policy's tokens, with their exact bytes, and in the scorer's."""

    document: Document
    token_ids: list[int]
    token_bytes: list[bytes]
    scorer_ids: list[int]
    source: list[tuple[int, int]] | None
    """For each token the scorer's [a, b) of the same bytes, as `align` gives it; None where both
    have the same tokens."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pack:
    """Documents that are scored in one go."""

    documents: Sequence[Encoded]
    tokens: int
    """Tokens up to the last of these, of the whole corpus."""
    number: int
    """Documents up to the last of these, of the whole corpus."""
    ends_shard: bool


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shard:
    """The packs of a shard, and the state of scoring behind it."""

    packs: Sequence[Pack]
    summary: ScoreSummary


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """The tokenizers of a scoring: the policy's, whose tokens are scored, and the scorer's."""

    config: Config
    tokenizer: Any
    scorer_tokenizer: Any

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the policy's tokenizer."""
        return tokenizer_fingerprint(self.tokenizer)

    @cached_property
    def _same(self) -> bool:
        if self.tokenizer is self.scorer_tokenizer:
            return True
        return self.fingerprint == tokenizer_fingerprint(self.scorer_tokenizer)

    @property
    def min_tokens(self) -> int:
        """The least tokens of a document that can be used."""
        return max(self.config.corpus.min_tokens, self.config.prompt.min_context + 1)

    def encode(self, document: Document, summary: ScoreSummary) -> Encoded | None:
        """Returns a document's tokens, counted; None (and counted) where it can't be used."""
        try:
            ids, pieces = encode_document(self.tokenizer, document.text)
            scorer_ids, scorer_pieces = ids, pieces
            if not self._same:
                scorer_ids, scorer_pieces = encode_document(self.scorer_tokenizer, document.text)
        except UserError as error:
            if self.config.corpus.strict:
                raise UserError(f"{document.source}: {error}") from None
            summary.skipped_unencodable += 1
            keep_first(summary.first, "skipped_unencodable", document.source)
            return None
        if len(ids) < self.min_tokens:
            summary.skipped_short += 1
            keep_first(summary.first, "skipped_short", document.source)
            return None
        source = None
        if not self._same and document.split not in self.config.score.tokens_only:
            source = align(pieces, scorer_pieces)
            summary.positions_dropped += sum(a == b for a, b in source)
        summary.documents += 1
        summary.tokens[document.split] = summary.tokens.get(document.split, 0) + len(ids)
        return Encoded(
            document=document,
            token_ids=ids,
            token_bytes=pieces,
            scorer_ids=scorer_ids,
            source=source,
        )


def packs(encoder: Encoder, documents: Iterator[Document], summary: ScoreSummary) -> Iterator[Pack]:
    """Yields what is scored of a corpus, and leaves it once no split takes more.

    `summary` counts along: at each pack it stands behind that one's last document, and at the end
    behind all that was read.
    """
    config = encoder.config
    shard_tokens = config.score.shard_tokens
    waiting: list[Encoded] = []
    waiting_tokens = 0
    open_splits = _open_splits(config, summary)
    while open_splits and (document := next(documents, None)) is not None:
        summary.documents_read += 1
        if document.split not in open_splits:
            continue
        before = summary.num_tokens
        encoded = encoder.encode(document, summary)
        if encoded is None:
            continue
        waiting.append(encoded)
        waiting_tokens += len(encoded.token_ids)
        open_splits = _open_splits(config, summary)
        # By tokens in all: what is packed together must not hang on when shards are written.
        full = summary.num_tokens // shard_tokens > before // shard_tokens
        if waiting_tokens < _WAITING_TOKENS and not full and open_splits:
            continue
        yield _pack(waiting, summary, ends_shard=full)
        waiting, waiting_tokens = [], 0
    if waiting:
        yield _pack(waiting, summary, ends_shard=False)
    if not summary.documents:
        raise UserError(
            f"{config.corpus.path}: no document can be scored: of {summary.documents_read} read,"
            f" {summary.skipped_short} are shorter than {encoder.min_tokens} tokens and"
            f" {summary.skipped_unencodable} cannot be encoded; the rest is in splits that are"
            " not scored (corpus.min_tokens, prompt.min_context, score.splits)"
        )


def shards(
    encoder: Encoder, documents: Iterator[Document], counts: CorpusCounts, summary: ScoreSummary
) -> Iterator[Shard]:
    """Yields the packs of a corpus by shard; `summary` counts along, and `counts` is that of the
    documents."""
    gathered: list[Pack] = []
    for pack in packs(encoder, documents, summary):
        gathered.append(pack)
        if pack.ends_shard:
            end_shard(summary, counts)
            yield Shard(packs=gathered, summary=deepcopy(summary))
            gathered = []
    if gathered:
        end_shard(summary, counts)
        yield Shard(packs=gathered, summary=deepcopy(summary))
    summary.corpus_hash = counts.corpus_hash()


def end_shard(summary: ScoreSummary, counts: CorpusCounts) -> None:
    """Counts a shard that ends behind what was read so far."""
    summary.shards += 1
    summary.corpus_hash = counts.corpus_hash()


def _pack(documents: list[Encoded], summary: ScoreSummary, *, ends_shard: bool) -> Pack:
    return Pack(
        documents=documents,
        tokens=summary.num_tokens,
        number=summary.documents,
        ends_shard=ends_shard,
    )


def skip_read(
    documents: Iterator[Document], summary: ScoreSummary, counts: CorpusCounts, folder: Path
) -> None:
    """Reads again what is scored already; it must be what it was. Raises UserError."""
    for _ in islice(documents, summary.documents_read):
        pass
    if counts.corpus_hash() != summary.corpus_hash:
        raise UserError(
            f"{folder}: the corpus has changed since scoring began; use another --run or delete"
            " this folder"
        )


def _open_splits(config: Config, summary: ScoreSummary) -> set[str]:
    """Returns the splits that may still get documents; once there are none, the corpus is left."""
    possible, limit = possible_splits(config.corpus), config.score.max_tokens
    return {
        split
        for split in config.score.splits
        if split in possible and (not limit or summary.tokens.get(split, 0) < limit)
    }
