"""Scores of documents, in the policy's tokens.

A scorer with another tokenizer rates its own tokens; what they say is laid over the policy's, byte
by byte.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from openrpt.config.sections import Config
from openrpt.costs.meters import WorkMeter
from openrpt.data.documents import keep_first
from openrpt.data.places import token_starts
from openrpt.data.positions import ScoredDocument
from openrpt.data.prompts import delimiter_ids
from openrpt.data.scored import ScoreSummary
from openrpt.data.tokens import encode_document, tokenizer_fingerprint
from openrpt.engine.model import Model
from openrpt.engine.scorer import Scores, align, aligned_scores, score_documents
from openrpt.errors import UserError
from openrpt.rl.rewards.matching import prefix_match
from openrpt.types import Document

Report = Callable[[int, str], None]
"""A report of progress: tokens scored so far (those of earlier starts included), and a few words
on it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Encoded:
    """A document in the policy's tokens and in the scorer's: ids and exact bytes."""

    document: Document
    token_ids: list[int]
    token_bytes: list[bytes]
    scorer_ids: list[int]
    scorer_bytes: list[bytes]


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A scoring job: the scorer, the policy whose tokens are scored, and the settings."""

    config: Config
    policy: Model
    scorer: Model
    meter: WorkMeter

    @cached_property
    def tokenizer(self) -> str:
        """The fingerprint of the policy's tokenizer."""
        return tokenizer_fingerprint(self.policy.tokenizer)

    @cached_property
    def same_tokenizer(self) -> bool:
        """Whether scorer and policy have the same tokenizer."""
        if self.policy is self.scorer:
            return True
        return self.tokenizer == tokenizer_fingerprint(self.scorer.tokenizer)

    @cached_property
    def id_of(self) -> dict[bytes, int]:
        """The policy's token with these bytes."""
        return {piece: i for i, piece in reversed([*enumerate(self.policy.table.bytes)]) if piece}

    @property
    def min_tokens(self) -> int:
        """The least tokens of a document that can be used."""
        return max(self.config.corpus.min_tokens, self.config.prompt.min_context + 1)

    def encode(self, document: Document, summary: ScoreSummary) -> Encoded | None:
        """Returns a document's tokens, counted; None (and counted) where it can't be used."""
        try:
            ids, pieces = encode_document(self.policy.tokenizer, document.text)
            scorer_ids, scorer_pieces = ids, pieces
            if not self.same_tokenizer:
                scorer_ids, scorer_pieces = encode_document(self.scorer.tokenizer, document.text)
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
        summary.documents += 1
        summary.tokens[document.split] = summary.tokens.get(document.split, 0) + len(ids)
        return Encoded(
            document=document,
            token_ids=ids,
            token_bytes=pieces,
            scorer_ids=scorer_ids,
            scorer_bytes=scorer_pieces,
        )

    def score(
        self, documents: Sequence[Encoded], summary: ScoreSummary, progress: Report
    ) -> list[ScoredDocument]:
        """Scores documents that `summary` has counted already, in one go."""
        bare = self.config.score.tokens_only
        asked = [one for one in documents if one.document.split not in bare]
        found = iter(self._with_scorer(asked, summary, progress) if asked else [])
        progress(summary.num_tokens, f"{summary.documents} documents")
        return [
            _without_scores(one) if one.document.split in bare else next(found) for one in documents
        ]

    def _with_scorer(
        self, documents: Sequence[Encoded], summary: ScoreSummary, progress: Report
    ) -> list[ScoredDocument]:
        left = sum(len(one.token_ids) for one in documents)
        before, text = summary.num_tokens - left, f"{summary.documents} documents"
        prompt = self.config.prompt
        found = score_documents(
            self.meter.engine,
            [one.scorer_ids for one in documents],
            window=prompt.window,
            min_context=prompt.min_context,
            delimiter_ids=delimiter_ids(self.scorer.tokenizer, prompt),
            scored=lambda share: progress(before + round(share * left), text),
        )
        return [
            self._scored(one, scores, summary) for one, scores in zip(documents, found, strict=True)
        ]

    def _scored(self, encoded: Encoded, scores: Scores, summary: ScoreSummary) -> ScoredDocument:
        prompt = self.config.prompt
        self.meter.add_scoring(
            len(encoded.scorer_ids), window=prompt.window, min_context=prompt.min_context
        )
        argmax_bytes = [self.scorer.table.bytes[i] if i >= 0 else b"" for i in scores.argmax]
        if not self.same_tokenizer:
            source = align(encoded.token_bytes, encoded.scorer_bytes)
            argmax_bytes = [argmax_bytes[a] if a < b else b"" for a, b in source]
            scores = aligned_scores(scores, source)
            scores.argmax = np.array([self.id_of.get(piece, -1) for piece in argmax_bytes])
            summary.positions_dropped += sum(a == b for a, b in source)
        return _with_scores(encoded, scores, grade(argmax_bytes, encoded.token_bytes))


def _without_scores(encoded: Encoded) -> ScoredDocument:
    count = len(encoded.token_ids)
    return _with_scores(encoded, Scores.empty(count), np.full(count, False))


def _with_scores(encoded: Encoded, scores: Scores, ntp_correct: np.ndarray) -> ScoredDocument:
    document = encoded.document
    return ScoredDocument(
        document_id=document.document_id,
        key=document.key,
        split=document.split,
        source=document.source,
        text=document.text,
        kind=document.kind,
        offsets=document.offsets,
        token_ids=np.array(encoded.token_ids, dtype=np.int64),
        byte_offsets=token_starts(encoded.token_bytes),
        negative_log_likelihood=scores.negative_log_likelihood,
        entropy=scores.entropy,
        entropy_top16=scores.entropy_top16,
        ntp_token_id=scores.argmax,
        ntp_correct=ntp_correct,
    )


def grade(predictions: Sequence[bytes], pieces: Sequence[bytes]) -> np.ndarray:
    """Returns [T] whether each prediction earns the reward, against the document's tokens from
    there."""
    # No token but a document's first is empty, so a prediction of n bytes reads n tokens at most.
    return np.array(
        [
            bool(prefix_match(prediction, pieces[t : t + len(prediction) + 1]))
            for t, prediction in enumerate(predictions)
        ],
        dtype=bool,
    )
