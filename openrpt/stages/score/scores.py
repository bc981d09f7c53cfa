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
from openrpt.data.places import token_starts
from openrpt.data.positions import ScoredDocument
from openrpt.data.prompts import delimiter_ids
from openrpt.data.tokens import TokenTable
from openrpt.engine.model import Model
from openrpt.engine.scorer import Scores, aligned_scores, score_documents
from openrpt.rl.rewards.matching import prefix_match
from openrpt.stages.score.documents import Encoded, Pack

Report = Callable[[int, str], None]
"""A report of progress: tokens scored so far (those of earlier starts included), and a few words
on it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scoring:
    """The scorer at work on packs of documents, in the policy's tokens."""

    config: Config
    table: TokenTable
    """The bytes of the policy's tokens."""
    meter: WorkMeter
    """The meter of the scorer's work, which has its engine."""

    @property
    def _scorer(self) -> Model:
        return self.meter.engine.model

    @cached_property
    def _id_of(self) -> dict[bytes, int]:
        """The policy's token with these bytes."""
        return {piece: i for i, piece in reversed([*enumerate(self.table.bytes)]) if piece}

    def score(self, pack: Pack, progress: Report) -> list[ScoredDocument]:
        """Scores a pack's documents in one go."""
        bare, documents = self.config.score.tokens_only, pack.documents
        asked = [one for one in documents if one.document.split not in bare]
        text = f"{pack.number} documents"
        before = pack.tokens - sum(len(one.token_ids) for one in asked)
        found = iter(self._with_scorer(asked, before, lambda tokens: progress(tokens, text)))
        scored = [
            _without_scores(one) if one.document.split in bare else next(found) for one in documents
        ]
        progress(pack.tokens, text)
        return scored

    def _with_scorer(
        self, documents: Sequence[Encoded], before: int, progress: Callable[[int], None]
    ) -> list[ScoredDocument]:
        if not documents:
            return []
        left, prompt = sum(len(one.token_ids) for one in documents), self.config.prompt
        found = score_documents(
            self.meter.engine,
            [one.scorer_ids for one in documents],
            window=prompt.window,
            min_context=prompt.min_context,
            delimiter_ids=delimiter_ids(self._scorer.tokenizer, prompt),
            scored=lambda share: progress(before + round(share * left)),
        )
        return [self._scored(one, scores) for one, scores in zip(documents, found, strict=True)]

    def _scored(self, encoded: Encoded, scores: Scores) -> ScoredDocument:
        prompt = self.config.prompt
        self.meter.add_scoring(
            len(encoded.scorer_ids), window=prompt.window, min_context=prompt.min_context
        )
        table = self._scorer.table.bytes
        argmax_bytes = [table[i] if i >= 0 else b"" for i in scores.argmax]
        if encoded.source is not None:
            argmax_bytes = [argmax_bytes[a] if a < b else b"" for a, b in encoded.source]
            scores = aligned_scores(scores, encoded.source)
            scores.argmax = np.array([self._id_of.get(piece, -1) for piece in argmax_bytes])
        return _with_scores(encoded, scores, grade_predictions(argmax_bytes, encoded.token_bytes))


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


def grade_predictions(predictions: Sequence[bytes], pieces: Sequence[bytes]) -> np.ndarray:
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
