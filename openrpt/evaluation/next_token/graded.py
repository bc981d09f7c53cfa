"""What was predicted at one position, graded three ways: prefix match, first token, whole span.

Standard prediction says one token, and a box may say a number of five; the prefix match then
punishes the longer answer. The other two ask both for the same: the first token, and all that a
reader sees as one (`openrpt.data.spans`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from openrpt.data.positions import ScoredDocument
from openrpt.data.prompts import Layout
from openrpt.data.spans import same_span
from openrpt.data.token_classes import CONTEXT, computed_tokens, token_class
from openrpt.data.tokens import TokenTable, literal_bytes
from openrpt.evaluation.next_token.results import PositionResult
from openrpt.rl.grading import continuation_at
from openrpt.rl.rewards.matching import (
    first_token_match,
    matched_tokens,
    prediction_tokens,
    prefix_match,
)
from openrpt.types import Group, Rollout

_NAN = float("nan")


@dataclass(frozen=True, kw_only=True, eq=False)
class Text:
    """A document as the truth of predictions."""

    document: ScoredDocument
    tokens: Sequence[bytes]
    """The bytes of its tokens [T]."""
    computed: frozenset[int]
    """Indices of the tokens in which computed numbers begin."""

    @classmethod
    def of(cls, document: ScoredDocument, tokens: Sequence[bytes]) -> "Text":
        """Returns the truth that a document's tokens are."""
        computed = computed_tokens(document.text, document.byte_offsets)
        return cls(document=document, tokens=tokens, computed=frozenset(computed))


def position_result(
    group: Group,
    text: Text,
    standard: Sequence[bytes],
    start: bytes | None,
    table: TokenTable,
    layout: Layout,
) -> PositionResult:
    """Returns the columns of the first pass at a position. `standard`: the tokens of the policy's
    standard prediction, on to its span's end; `start`: the start model's (None where it is not
    known)."""
    position, rollouts = group.prompt.position, group.rollouts
    index, tokens = position.index, text.tokens
    continuation = continuation_at(tokens, index)
    behind = b"".join(continuation)
    lengths = [matched_tokens(r.prediction, continuation) for r in rollouts]
    majority, confidence = _majority(rollouts)
    ntp = prefix_match(standard[0], continuation)
    before = b"".join(tokens[max(0, index - CONTEXT) : index])
    return PositionResult(
        document_id=position.document_id,
        position=index,
        byte_offset=int(text.document.byte_offsets[index]),
        entropy=position.entropy,
        document_kind=text.document.kind,
        token_class=token_class(tokens[index], before),
        token_bytes=len(tokens[index]),
        computed=index in text.computed,
        ntp=ntp,
        first_token_ntp=max(ntp, first_token_match(standard[:1], continuation)),
        span_ntp=_span_match(b"".join(standard), behind),
        reasoning=_mean([float(r.exact) for r in rollouts]),
        first_token=_mean([_first_token(r, continuation, table, layout) for r in rollouts]),
        span=_mean([_span_match(r.prediction or b"", behind) for r in rollouts]),
        single_token=_mean([float(length == 1) for length in lengths]),
        any_right=max((float(r.exact) for r in rollouts), default=_NAN),
        majority=majority,
        confidence=confidence,
        predicted_tokens=_mean([float(length) for length in lengths if length]),
        closed=_mean([float(r.prediction is not None) for r in rollouts]),
        agrees=_mean([float(r.prediction == standard[0]) for r in rollouts]),
        agrees_start=_mean([float(r.prediction == start) for r in rollouts]) if start else _NAN,
    )


def _first_token(
    rollout: Rollout, continuation: Sequence[bytes], table: TokenTable, layout: Layout
) -> float:
    """Returns 1 if the box's tokens come to an end exactly where the true next token does, and say
    it up to there (arXiv 2506.08007, Appendix A), or if all of the box is right; else 0.

    So ` there` is no match for ` the`, which its bytes begin with.
    """
    ids = rollout.completion.token_ids
    pieces = [literal_bytes(table, [i], layout.literal) for i in ids]
    said = [token for _, token in prediction_tokens(pieces, rollout.prediction)]
    return max(float(rollout.exact), first_token_match(said, continuation))


def _span_match(prediction: bytes, continuation: bytes) -> float:
    """Returns 1 if the prediction, cut at its span's end, is the continuation's whole span, else 0;
    NaN where the continuation is white space alone."""
    return float(same_span(prediction, continuation)) if continuation.strip() else _NAN


def _majority(rollouts: tuple[Rollout, ...]) -> tuple[float, float]:
    """Returns (1 if the commonest prediction, the earliest of equals, is exact; its share of
    rollouts)."""
    if not rollouts:
        return _NAN, _NAN
    counts = Counter(r.prediction for r in rollouts)
    winner = max(rollouts, key=lambda r: counts[r.prediction])
    known = winner.prediction is not None and len(rollouts) > 1
    share = counts[winner.prediction] / len(rollouts)
    return float(winner.exact), share if known else _NAN


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else _NAN
