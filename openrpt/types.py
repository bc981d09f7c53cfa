"""The nouns of OpenRPT, in the order in which data flows. Frozen, keyword-only, no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Split = Literal["train", "development", "heldout"]
_FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A text of the corpus.

    >>> Document(document_id="9f86d081884c7d65", text="Let x = 2.", key="p1", split="train",
    ...          source="champ.jsonl:1")  # doctest: +ELLIPSIS
    Document(...)
    """

    document_id: str
    """First 16 hex digits of the SHA-256 of the text."""
    text: str
    key: str
    """The text whose hash decides the split: a field such as the problem, before templating."""
    split: Split
    source: str
    """The document's origin, as `file:line`."""
    kind: str = ""
    """The document's kind by `corpus.kind`: a domain, a level."""
    offsets: tuple[int, ...] = ()
    """Places in its text by `corpus.offsets`, in bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """An index into a document's tokens where a prediction starts.

    The prefix is tokens `[window_start, index)`, the continuation tokens `[index, …)`.

    >>> Position(document_id="9f86d081884c7d65", index=17, window_start=0, entropy=1.2)
    Position(document_id='9f86d081884c7d65', index=17, window_start=0, entropy=1.2)
    """

    document_id: str
    index: int
    window_start: int = 0
    entropy: float = float("nan")
    """Full entropy of the scorer's next-token distribution, in nats: the difficulty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Template and prefix, as token ids: `head ⊕ prefix ⊕ tail`.

    >>> Prompt(position=Position(document_id="d", index=2), head_ids=(1,), prefix_ids=(5, 6),
    ...        tail_ids=(9,)).token_ids
    (1, 5, 6, 9)
    """

    position: Position
    head_ids: tuple[int, ...]
    prefix_ids: tuple[int, ...]
    tail_ids: tuple[int, ...]

    @property
    def token_ids(self) -> tuple[int, ...]:
        """All of the prompt's ids, in order."""
        return self.head_ids + self.prefix_ids + self.tail_ids


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """The tokens that the policy generated, forced ones included.

    >>> Completion(token_ids=(8, 3, 4), sampler_logprobs=(0.0, -0.5, -0.1),
    ...            loss_mask=(False, True, True), finish_reason="stop").num_trained_tokens
    2
    """

    token_ids: tuple[int, ...]
    sampler_logprobs: tuple[float, ...]
    """Log-probability of each token at the sampling temperature; 0 where forced."""
    loss_mask: tuple[bool, ...]
    """True for tokens that are trained; forced ones (the seed, the forced close) are False."""
    finish_reason: _FinishReason

    @property
    def num_trained_tokens(self) -> int:
        """The number of tokens that are trained on."""
        return sum(self.loss_mask)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """A completion of a prompt and what became of it.

    `thought` and `prediction` are bytes; `prediction` is None where there was no box.
    """

    completion: Completion
    thought: bytes
    prediction: bytes | None
    exact: bool
    """Whether the prediction is exactly right, whatever is trained on: by the prefix match, or, for
    a question's answer, by the question's check."""
    reward: float
    """The number that training compares within the group."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """The terms of `reward.terms` before their weights; one that failed is missing, and counts as
    0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The `group_size` rollouts of one prompt, with the standard prediction at its position."""

    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    ntp_token_id: int
    """The argmax of one forward pass over the plain text before the position, special tokens
    masked; for a question, which is no text that goes on, over its prompt's head and text."""
    ntp_top: tuple[tuple[int, float], ...] = field(default=())
    """The most probable tokens of that pass with their log-probabilities in nats, for people to
    read."""
    candidate_ids: tuple[int, ...] = field(default=())
    """The candidates that seeded the thought; empty where it was not seeded."""
    candidate_logprobs: tuple[float, ...] = field(default=())
    """Log-probabilities of the candidates, nats, under the model that gave them, special tokens not
    masked."""

    @property
    def rewards(self) -> tuple[float, ...]:
        """The rewards of the rollouts, in their order."""
        return tuple(rollout.reward for rollout in self.rollouts)

    @property
    def pass_rate(self) -> float:
        """The share of rollouts that are exact."""
        return sum(rollout.exact for rollout in self.rollouts) / len(self.rollouts)

    @property
    def is_flat(self) -> bool:
        """Whether all rewards are equal: then no gradient comes from the reward."""
        return len(set(self.rewards)) <= 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A failure signature that shows at the last row of the metrics."""

    name: str
    step: int
    seen: str
    """The evidence, with the numbers."""
    helps: str
    """The usual remedies."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the finding as JSON has it."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.name} (step {self.step}): {self.seen}. What usually helps: {self.helps}."
