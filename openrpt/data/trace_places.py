"""Traces on scored documents: which token each starts at, and its ids, checked to be exact."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from openrpt.config.prompt import PromptConfig
from openrpt.data.places import token_at
from openrpt.data.positions import ScoredDocument
from openrpt.data.prompts import thought_end_ids
from openrpt.data.scored import ScoredCorpus
from openrpt.data.tokens import literal_bytes, token_table
from openrpt.data.traces import GivenTrace
from openrpt.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedTrace:
    """A trace in a model's tokens."""

    index: int
    """The token of the document at which the prediction starts."""
    thought_ids: tuple[int, ...]
    prediction_ids: tuple[int, ...]
    kind: str
    source: str


@dataclass(kw_only=True, slots=True)
class TraceCounts:
    """The numbers of a file's traces that have a place, and of those that have none."""

    placed: int = 0
    no_document: int = 0
    """Traces whose document was not scored."""
    not_on_a_token: int = 0
    """Traces whose prediction begins inside a token."""
    too_early: int = 0
    """Traces with less than prompt.min_context before them."""
    too_long: int = 0
    """Traces longer than prompt.think_budget or prompt.prediction_budget."""
    longest: int = 0
    """Tokens of the longest thought that prompt.think_budget can't hold, its end included."""
    repeated: int = 0
    """The same trace again."""
    kinds: dict[str, int] = field(default_factory=dict)
    """The number of traces of each kind among those placed."""

    def left_out(self) -> str:
        """Returns the reasons why traces have no place, each with its number."""
        too_long = "longer than prompt.think_budget or prompt.prediction_budget"
        if self.longest:
            too_long += f" (the longest thought takes {self.longest:,} tokens with its end)"
        reasons = {
            "of documents that were not scored": self.no_document,
            "within a token": self.not_on_a_token,
            "before prompt.min_context": self.too_early,
            too_long: self.too_long,
            "the same again": self.repeated,
        }
        return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Frame:
    """The frame that a thought and its prediction must fit: a tokenizer, and the prompt's
    budgets."""

    tokenizer: "PreTrainedTokenizerBase"
    prompt: PromptConfig

    @cached_property
    def thought_end(self) -> int:
        """Tokens that end a thought."""
        return len(thought_end_ids(self.tokenizer, self.prompt))

    @cached_property
    def box_end(self) -> int:
        """Tokens that end the box."""
        return len(self.ids(self.prompt.answer_end, "prompt.answer_end"))

    def ids(self, text: str, source: str) -> tuple[int, ...]:
        """Returns the ids of a text from inside a completion, whose bytes are exactly the text's.

        Raises UserError for a text that would end the thought, and for one that the tokens can't
        give.
        """
        end = self.prompt.thought_end
        if end in text:
            raise UserError(f"{source}: {end!r} in the text would end the thought there")
        table = token_table(self.tokenizer)
        ids = table.plain_tokenizer.encode(text, add_special_tokens=False).ids
        if literal_bytes(table, ids, {}) != text.encode():
            raise UserError(
                f"{source}: the model's tokenizer does not give {text[:40]!r} back byte for byte"
            )
        return tuple(ids)

    def holds_thought(self, tokens: int) -> bool:
        """Returns whether a rollout could think the thought: either its end fits, too, or it ends
        by force."""
        budget = self.prompt.think_budget
        return tokens + self.thought_end <= budget or tokens == budget


def place_traces(
    traces: Iterable[tuple[str, GivenTrace]],
    corpus: ScoredCorpus,
    tokenizer: "PreTrainedTokenizerBase",
    prompt: PromptConfig,
    counts: TraceCounts,
) -> dict[str, list[PlacedTrace]]:
    """Returns each document's traces, by position; `counts` is a fresh one.

    `traces` as `read_traces` yields them, of the corpus's own tokenizer. Raises UserError, with
    file and line, where a prediction is not what the document says there, where a key is that of
    several documents, and for a text that the tokens can't give; and where none can be placed.
    """
    keys = corpus.keys()
    frame = _Frame(tokenizer=tokenizer, prompt=prompt)
    found: dict[str, list[PlacedTrace]] = {}
    seen: set[tuple[str, PlacedTrace]] = set()
    document: ScoredDocument | None = None
    for source, trace in traces:
        document_id = _document_of(trace, keys, source)
        if document_id is None:
            counts.no_document += 1
            continue
        if document is None or document.document_id != document_id:
            document = corpus.document(document_id)
        placed = _place(trace, document, frame, counts, source)
        if placed is None:
            continue
        if (document_id, placed) in seen:
            counts.repeated += 1
            continue
        seen.add((document_id, placed))
        counts.placed += 1
        counts.kinds[trace.kind] = counts.kinds.get(trace.kind, 0) + 1
        found.setdefault(document_id, []).append(placed)
    if not found:
        raise UserError(
            f"no trace has a place in the scored documents of {corpus.folder}: {counts.left_out()}"
        )
    return {name: sorted(placed, key=lambda one: one.index) for name, placed in found.items()}


def _document_of(trace: GivenTrace, keys: dict[str, list[str]], source: str) -> str | None:
    of_key = keys.get(trace.key, [])
    if trace.document_id:
        return trace.document_id if trace.document_id in of_key else None
    if len(of_key) > 1:
        raise UserError(
            f"{source}: {len(of_key)} documents have the key '{trace.key[:80]}': say which with"
            f" document_id ({', '.join(of_key[:3])})"
        )
    return of_key[0] if of_key else None


def _place(
    trace: GivenTrace,
    document: ScoredDocument,
    frame: _Frame,
    counts: TraceCounts,
    source: str,
) -> PlacedTrace | None:
    """Returns a trace in tokens; None, and counted, where it has no place."""
    text, prediction = document.text.encode(), trace.prediction.encode()
    index, offset = _start(trace, document, text, prediction, source)
    if text[offset : offset + len(prediction)] != prediction:
        said = text[offset : offset + len(prediction)].decode(errors="replace")
        raise UserError(
            f"{source}: the prediction {trace.prediction!r} is not what document"
            f" {document.document_id} says at byte {offset}: {said!r}; make the traces anew from"
            " this corpus"
        )
    if index is None:
        counts.not_on_a_token += 1
        return None
    if index < frame.prompt.min_context:
        counts.too_early += 1
        return None
    # What the token holds before the number, a space, is part of the prediction.
    start = int(document.byte_offsets[index])
    thought_ids = frame.ids(trace.thought, source)
    prediction_ids = _document_ids(document, index, offset + len(prediction))
    if prediction_ids is None:
        whole = text[start : offset + len(prediction)].decode(errors="replace")
        prediction_ids = frame.ids(whole, source)
    fits = frame.holds_thought(len(thought_ids))
    if not fits:
        counts.longest = max(counts.longest, len(thought_ids) + frame.thought_end)
    if not fits or len(prediction_ids) + frame.box_end > frame.prompt.prediction_budget:
        counts.too_long += 1
        return None
    return PlacedTrace(
        index=index,
        thought_ids=thought_ids,
        prediction_ids=prediction_ids,
        kind=trace.kind,
        source=trace.source,
    )


def _start(
    trace: GivenTrace, document: ScoredDocument, text: bytes, prediction: bytes, source: str
) -> tuple[int | None, int]:
    """Returns (the token, the byte) at which the prediction starts."""
    if trace.byte_offset is not None:
        return token_at(trace.byte_offset, document.byte_offsets, text), trace.byte_offset
    index = trace.position
    assert index is not None  # read_traces: one of the two is there
    if index >= document.num_tokens:
        raise UserError(
            f"{source}: position {index} is beyond the {document.num_tokens} tokens of document"
            f" {document.document_id}"
        )
    offset = int(document.byte_offsets[index])
    if not text.startswith(prediction, offset):  # ` 24`, where the trace says `24`
        offset += len(text[offset:]) - len(text[offset:].lstrip())
    return index, offset


def _document_ids(document: ScoredDocument, index: int, end: int) -> tuple[int, ...] | None:
    """Returns the document's own tokens up to this byte; None where no token ends there."""
    starts = [*document.byte_offsets[index:].tolist(), len(document.text.encode())]
    if end not in starts:
        return None
    return tuple(document.token_ids[index : index + starts.index(end)].tolist())
