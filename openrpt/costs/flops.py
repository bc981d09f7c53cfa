"""What work costs: tokens, keys, logits and FLOPs, counted from shapes and from what was run.

A product of [m, k] and [k, n] is 2·m·k·n FLOPs. A token forward is 2 FLOPs a weight of the
backbone's matrices, plus 4·(heads · head size) a layer for each key that it attends to, plus
2·V·d where its logits are read; backward is as much for the gradients of what goes in, and again
for those of the weights that are trained. Only what is needed counts: no padding, no masked key,
nothing that is computed a second time. docs/costs.md has the formula and what it leaves out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from openrpt.config.prompt import PromptConfig
from openrpt.data.positions import windows
from openrpt.data.prompts import Layout
from openrpt.engine.branches import Branch
from openrpt.engine.model import Model
from openrpt.types import Completion


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The sizes of a model that the formula needs."""

    matrix_weights: int
    """Weights of the backbone's matrices, embeddings left out."""
    attention_width: int
    """Width of the attention: heads · head size."""
    layers: int
    head_weights: int
    """Weights of the head: V · d."""
    frozen_weights: int = 0
    """Matrix weights without a gradient: with LoRA, all but LoRA's own."""
    frozen_head_weights: int = 0
    """V · d where the head has no gradient, else 0."""

    def forward(self, tokens: float, pairs: float, logits: float) -> float:
        """Returns the FLOPs of `tokens` tokens that attend to `pairs` keys in all, `logits` of them
        read."""
        attention = 4.0 * self.attention_width * self.layers * pairs
        return 2.0 * self.matrix_weights * tokens + attention + 2.0 * self.head_weights * logits

    def backward(self, tokens: float, pairs: float, logits: float) -> float:
        """Returns the FLOPs of the gradients, without the forward pass."""
        frozen = 2.0 * (self.frozen_weights * tokens + self.frozen_head_weights * logits)
        return 2.0 * self.forward(tokens, pairs, logits) - frozen


def matrices_of(policy: Model) -> list[Tensor]:
    """Returns the backbone's matrices that a token meets: every two-dimensional weight that is no
    embedding and no head; of experts, stacked as [experts, out, in], as many as the model chooses
    for a token (all, where its configuration has no `num_experts_per_tok`)."""
    embeddings = {id(policy.head.weight)}
    for module in policy.backbone.modules():
        if isinstance(module, nn.Embedding):
            embeddings.add(id(module.weight))
    chosen = policy.causal_lm.config.to_dict().get("num_experts_per_tok")
    found: list[Tensor] = []
    for parameter in policy.backbone.parameters():
        if parameter.ndim == 2 and id(parameter) not in embeddings:
            found.append(parameter)
        elif parameter.ndim == 3:
            found += parameter.unbind()[:chosen]
    return found


def model_shape(policy: Model) -> Shape:
    """Returns the sizes of a model."""
    config = policy.causal_lm.config
    matrices = matrices_of(policy)
    heads = config.num_attention_heads
    head_size = config.to_dict().get("head_dim") or config.hidden_size // heads
    head = policy.head.weight
    return Shape(
        matrix_weights=sum(p.numel() for p in matrices),
        attention_width=heads * head_size,
        layers=config.num_hidden_layers,
        head_weights=head.numel(),
        frozen_weights=sum(p.numel() for p in matrices if not p.requires_grad),
        frozen_head_weights=0 if head.requires_grad else head.numel(),
    )


@dataclass(kw_only=True, slots=True)
class Count:
    """The tokens run, keys attended to, and logits read."""

    tokens: int = 0
    pairs: float = 0.0
    logits: int = 0

    def run(self, new: int, before: float, logits: int = 0) -> None:
        """Counts `new` tokens in a row that see `before` keys and themselves causally."""
        self.tokens += new
        self.pairs += new * before + new * (new + 1) / 2
        self.logits += logits

    def add(self, other: "Count") -> None:
        """Adds another count to this one."""
        self.tokens += other.tokens
        self.pairs += other.pairs
        self.logits += other.logits

    def forward(self, shape: Shape) -> float:
        """Returns the FLOPs without gradients."""
        return shape.forward(self.tokens, self.pairs, self.logits)

    def train(self, shape: Shape) -> float:
        """Returns the FLOPs forward and backward."""
        return self.forward(shape) + shape.backward(self.tokens, self.pairs, self.logits)


@dataclass(kw_only=True, slots=True)
class Ledger:
    """The counts of work as the document tree shares it, and of the same work where every
    rollout is computed by itself, once, from its first token. The first is what is needed,
    whatever ran it."""

    shared: Count = field(default_factory=Count)
    alone: Count = field(default_factory=Count)

    def add(self, other: "Ledger") -> None:
        """Adds another ledger to this one."""
        self.shared.add(other.shared)
        self.alone.add(other.alone)


def count_tree(prefix_tokens: int, branches: Sequence[Branch], logits: int) -> Count:
    """Counts the prefix once, each tail once, each completion once but for its last token."""
    count = Count(logits=logits)
    count.run(prefix_tokens, 0)
    for branch in branches:
        count.run(len(branch.tail_ids), branch.prefix_length)
        for ids in branch.completions:
            count.run(len(ids) - 1, branch.prefix_length + len(branch.tail_ids))
    return count


def count_alone(branches: Sequence[Branch], logits: int, text: int = 0) -> Count:
    """Counts the same without sharing. `text`: tokens of a plain prefix with a loss, a sequence of
    its own. A branch without completions is a prompt that was asked for its next token."""
    count = Count(logits=logits)
    count.run(text, 0)
    for branch in branches:
        prompt = branch.prefix_length + len(branch.tail_ids)
        for ids in branch.completions:
            count.run(prompt + len(ids) - 1, 0)
        if not branch.completions:
            count.run(prompt, 0)
    return count


def count_scoring(tokens: int, *, head: int, window: int, min_context: int) -> Count:
    """Counts the scoring of one document of `tokens` tokens behind `head` ones, window by
    window."""
    count = Count()
    for number, span in enumerate(windows(tokens, window=window, min_context=min_context)):
        first = span.first if number else 1 - min(head, 1)
        count.run(head + span.end - 1 - span.start, 0, span.end - first)
    return count


def count_completions(
    completions: Sequence[Completion], before: int, *, merged: bool = True
) -> Count:
    """Counts completions of one position that see `before` tokens, as they are decoded: what
    several have in common from their start is run once, and so are the logits after it; a last
    token is not run. Not `merged`: only what is forced before the first draw is run once.

    >>> def drawn(*ids):
    ...     return Completion(
    ...         token_ids=ids,
    ...         sampler_logprobs=(0.0,) * len(ids),
    ...         loss_mask=(True,) * len(ids),
    ...         finish_reason="length",
    ...     )
    >>> count_completions([drawn(5, 6, 7), drawn(5, 6, 8), drawn(9, 6, 7)], before=10)
    Count(tokens=4, pairs=46.0, logits=5)
    """
    count = Count()
    # (beginning, next token, whose it is: 0 = all's) → beginning; 0 is the empty
    nodes: dict[tuple[int, int, int], int] = {}
    read: set[tuple[int, int]] = set()
    for number, completion in enumerate(completions, start=1):
        node, last, whose = 0, len(completion.token_ids) - 1, 0
        for place, token in enumerate(completion.token_ids):
            if completion.loss_mask[place]:
                whose = 0 if merged else number
                read.add((node, whose))
            if place < last:
                known = len(nodes)
                node = nodes.setdefault((node, token, whose), known + 1)
                if node > known:
                    count.run(1, before + place)
    count.logits = len(read)
    return count


def generation_ledger(
    prefix_tokens: int,
    positions: Sequence[tuple[int, Sequence[Completion]]],
    tail_tokens: int,
    *,
    passes: int = 1,
    elsewhere: bool = False,
) -> Ledger:
    """Counts a document's generation; `positions`: the prefix's length at each, and its
    completions.

    Logits are read where a token is drawn, and once a position for its candidates. `passes`:
    `prefix_passes`. Where nothing was drawn, the tail was not run. `elsewhere`: another sampler
    drew, which runs the prefix for itself, each tail once (its prefix cache), and each rollout
    apart from the others.
    """
    ledger = Ledger()
    ledger.shared.run(prefix_tokens, 0, len(positions))
    if elsewhere:
        ledger.shared.run(prefix_tokens, 0)
    for length, completions in positions:
        ledger.alone.logits += 1
        if elsewhere or not completions:
            ledger.alone.run(length, 0)
        if not completions:
            continue
        ledger.shared.run(tail_tokens, length)
        ledger.shared.add(
            count_completions(completions, length + tail_tokens, merged=not elsewhere)
        )
        for completion in completions:
            new = tail_tokens + len(completion.token_ids) - 1
            ledger.alone.run(length + new, 0, completion.num_trained_tokens)
    for _ in range(passes - 1):
        ledger.shared.run(prefix_tokens, 0, len(positions))
        for length, _ in positions:
            ledger.alone.run(length, 0, 1)
    return ledger


def spans_ledger(lengths: Sequence[int], tokens: Sequence[int]) -> Ledger:
    """Counts standard prediction on the way to its span's end: by position the prefix's length, and
    the tokens behind its first; alone, each is a sequence of its own."""
    ledger = Ledger()
    for length, new in zip(lengths, tokens, strict=True):
        if new:
            ledger.shared.run(new, length, new)
            ledger.alone.run(length + new, 0, new)
    return ledger


def prefix_passes(prompt: PromptConfig) -> int:
    """Returns 2 where the frozen start model runs over the prefix as well, for its candidates; else
    1."""
    return 2 if prompt.is_seeded_by_start else 1


def plain_passes(prompt: PromptConfig, layout: Layout) -> int:
    """Returns 1 where standard prediction, on the text alone, takes a pass of its own: instructions
    stand before the prefix. A question is no text that goes on."""
    return int(layout.has_instructions and prompt.template != "question")
