"""What a step costs: tokens, logits and FLOPs, counted from shapes and from what was run.

A product of [m, k] and [k, n] is 2·m·k·n FLOPs. A token forward is 2 FLOPs a weight of the
backbone's matrices, plus 4·(heads · head size) a layer for each key that it attends to, plus
2·V·d where its logits are read; backward is twice forward. Norms, rotations and softmaxes are
left out (below 1 % at these shapes).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from openrpt.config import Config
from openrpt.models import Policy
from openrpt.prompts import Layout
from openrpt.types import Group
from openrpt.update import GradedWork, GroupBranch, branches_of, group_branch, reads_flat_groups


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What the formula needs of a model."""

    matrix_weights: int
    """Weights of the backbone's matrices, embeddings left out."""
    attention_width: int
    """heads · head size."""
    layers: int
    head_weights: int
    """V · d."""

    def forward(self, tokens: float, pairs: float, logits: float) -> float:
        """FLOPs of `tokens` tokens that attend to `pairs` keys in all, `logits` of them read."""
        attention = 4.0 * self.attention_width * self.layers * pairs
        return 2.0 * self.matrix_weights * tokens + attention + 2.0 * self.head_weights * logits


def model_shape(policy: Policy) -> Shape:
    model = policy.causal_lm
    config = model.config
    embeddings = {id(model.get_input_embeddings().weight), id(policy.head.weight)}
    matrices = [p for p in policy.backbone.parameters() if p.ndim == 2 and id(p) not in embeddings]
    heads = config.num_attention_heads
    head_size = config.to_dict().get("head_dim") or config.hidden_size // heads
    return Shape(
        matrix_weights=sum(p.numel() for p in matrices),
        attention_width=heads * head_size,
        layers=config.num_hidden_layers,
        head_weights=policy.head.weight.numel(),
    )


@dataclass(kw_only=True, slots=True)
class Count:
    """Tokens run, keys attended to, and logits read."""

    tokens: int = 0
    pairs: float = 0.0
    logits: int = 0

    def run(self, new: int, before: float, logits: int = 0) -> None:
        """`new` tokens in a row that see `before` keys and themselves causally."""
        self.tokens += new
        self.pairs += new * before + new * (new + 1) / 2
        self.logits += logits


def count_generation(generated: Sequence[GradedWork], layout: Layout) -> Count:
    """Prefix once, tail once a position, each completion once; logits where a token is drawn."""
    count = Count()
    for graded in generated:
        count.run(len(graded.work.prefix_ids(layout, whole=False)), 0, len(graded.groups))
        lengths = graded.work.prefix_lengths(layout)
        for group, length in zip(graded.groups, lengths, strict=True):
            found = group_branch(group, length, layout)
            tail = len(found.branch.tail_ids)
            count.run(tail, length)
            # Rollouts share what they have drawn alike: each distinct beginning is run once.
            completions = found.branch.completions
            starts = {ids[:n] for ids in completions for n in range(1, len(ids))}
            count.tokens += len(starts)
            count.pairs += sum(length + tail + len(ids) for ids in starts)
            count.logits += len(_drawn_after(group, found))
    return count


def _drawn_after(group: Group, found: GroupBranch) -> set[tuple[int, ...]]:
    """The distinct beginnings after which a token was drawn: one row of logits each."""
    after = set()
    for rollout in group.rollouts:
        completion = rollout.completion
        ids = completion.token_ids[found.opening :]
        drawn = completion.loss_mask[found.opening :]
        after |= {ids[:n] for n, free in enumerate(drawn) if free}
    return after


def count_update(batch: Sequence[GradedWork], config: Config, layout: Layout) -> Count:
    """As the update runs them: flat groups are left out unless a term reads them."""
    count = Count()
    whole = config.train.ntp_weight > 0
    for graded in batch:
        branches = branches_of(graded, layout, run_flat=reads_flat_groups(config.train))
        runs = any(found.members for found in branches)
        if not runs and not whole:
            continue
        prefix = len(graded.work.prefix_ids(layout, whole=whole))
        count.run(prefix, 0, prefix - 1 if whole else 0)
        if not runs:
            continue
        for found, group in zip(branches, graded.groups, strict=True):
            length, tail = found.branch.prefix_length, len(found.branch.tail_ids)
            count.run(tail, length)  # tails are run together, whether a group is flat or not
            for ids, members in zip(found.branch.completions, found.members, strict=True):
                drawn = group.rollouts[members[0]].completion.num_trained_tokens
                count.run(len(ids) - 1, length + tail, drawn)
    return count


def count_flat(graded_works: Sequence[GradedWork], layout: Layout) -> int:
    """Tokens if every rollout's sequence were computed alone."""
    total = 0
    for graded in graded_works:
        lengths = graded.work.prefix_lengths(layout)
        for group, length in zip(graded.groups, lengths, strict=True):
            for rollout in group.rollouts:
                total += length + len(layout.tail_ids) + len(rollout.completion.token_ids) - 1
    return total


def step_cost(
    policy: Policy,
    generated: Sequence[GradedWork],
    batch: Sequence[GradedWork],
    config: Config,
    layout: Layout,
) -> dict[str, float]:
    """Metrics of one step: tokens and FLOPs by phase, and tokens that sharing saved."""
    shape = model_shape(policy)
    generation = count_generation(generated, layout)
    update = count_update(batch, config, layout)
    updates = config.train.updates_per_batch
    flat = count_flat(generated, layout) + updates * count_flat(batch, layout)
    run = generation.tokens + updates * update.tokens
    return {
        "tokens/generate": float(generation.tokens),
        "tokens/update": float(update.tokens * updates),
        "tokens/not_computed": float(flat - run),
        "flops/generate": shape.forward(generation.tokens, generation.pairs, generation.logits),
        "flops/update": 3.0 * updates * shape.forward(update.tokens, update.pairs, update.logits),
    }
