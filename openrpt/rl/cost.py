"""The cost of a step of reinforcement, in tokens and FLOPs."""

from collections.abc import Sequence
from dataclasses import replace

from openrpt.config.sections import Config
from openrpt.costs.flops import (
    Ledger,
    count_alone,
    count_tree,
    generation_ledger,
    model_shape,
    plain_passes,
    prefix_passes,
)
from openrpt.data.prompts import Layout
from openrpt.engine.branches import Branch
from openrpt.engine.model import Model
from openrpt.rl.answers import Answered, answered_thoughts
from openrpt.rl.batch import (
    Graded,
    GroupBranch,
    Weighted,
    answers_in,
    branches_of,
    reads_flat_groups,
    thoughts_alone,
)
from openrpt.types import Group


def count_generation(
    generated: Sequence[Graded], layout: Layout, passes: int = 1, *, elsewhere: bool = False
) -> Ledger:
    """Counts all that a step generated; `passes` and `elsewhere` as in `generation_ledger`."""
    ledger = Ledger()
    for graded in generated:
        completions = [[r.completion for r in group.rollouts] for group in graded.groups]
        positions = list(zip(graded.work.prefix_lengths(layout), completions, strict=True))
        prefix = len(graded.work.prefix_ids(layout, whole=False))
        tail = len(layout.tail_ids)
        ledger.add(generation_ledger(prefix, positions, tail, passes=passes, elsewhere=elsewhere))
    return ledger


def _count_answers(answered: Sequence[Answered]) -> Ledger:
    """Counts distinct thoughts with the right answers behind them, without the prefix; alone, each
    rollout's."""
    ledger = Ledger()
    for one in answered:
        logits = sum(len(ids) for ids in one.branch.completions)
        ledger.shared.add(count_tree(0, [one.branch], logits))
        ledger.alone.add(count_alone([one.branch] * len(one.members), logits * len(one.members)))
    return ledger


def count_expected(
    policy: Model, generated: Sequence[Graded], config: Config, layout: Layout
) -> Ledger:
    """Counts what the rewards `expected` and `log_expected` read, once each."""
    ledger = Ledger()
    for _ in config.reward.exact_terms:
        for graded in generated:
            answered = answered_thoughts(graded.groups, graded.work, policy, layout, config)
            if answered:
                ledger.shared.run(len(graded.work.prefix_ids(layout, whole=False)), 0)
                ledger.add(_count_answers(answered))
    return ledger


def count_update(
    policy: Model, batch: Sequence[Weighted], config: Config, layout: Layout, *, text: bool
) -> Ledger:
    """Counts one pass over a batch as the update makes it.

    Equal rollouts are run once, and flat groups only where a term reads them. `text`: the plain
    next-token loss reads the whole prefix.
    """
    ledger = Ledger()
    for whole in batch:
        answered = answers_in(whole, policy, layout, config)
        graded = thoughts_alone(whole, layout, config)
        found = branches_of(graded, layout, run_flat=reads_flat_groups(config.train))
        live = [pair for pair in zip(graded.groups, found, strict=True) if pair[1].members]
        if not (live or answered or text):
            continue
        ledger.add(_count_answers(answered))
        prefix = len(graded.work.prefix_ids(layout, whole=text))
        read = prefix - max(len(layout.head_ids), 1) if text else 0
        # Tails are run together, whether a group is flat or not.
        branches = [one.branch for one in found] if live else []
        distinct = sum(_distinct_logits(group, one) for group, one in live)
        ledger.shared.add(count_tree(prefix, branches, read + distinct))
        if config.train.has_separate_states and text and (live or answered):
            ledger.shared.run(prefix, 0)  # once for each of the two gradients
        drawn = sum(r.completion.num_trained_tokens for group, _ in live for r in group.rollouts)
        every = [_with_every_rollout(group, one) for group, one in live]
        ledger.alone.add(count_alone(every, read + drawn, prefix if text else 0))
    return ledger


def _distinct_logits(group: Group, found: GroupBranch) -> int:
    firsts = [group.rollouts[members[0]] for members in found.members]
    return sum(rollout.completion.num_trained_tokens for rollout in firsts)


def _with_every_rollout(group: Group, found: GroupBranch) -> Branch:
    ids = tuple(rollout.completion.token_ids[found.opening :] for rollout in group.rollouts)
    return replace(found.branch, completions=ids)


def _alone(group: Group, prefix_length: int, layout: Layout) -> list[int]:
    """Returns the tokens that each rollout of a group runs if its sequence is computed alone."""
    begin = prefix_length + len(layout.tail_ids) - 1  # a sequence's last token is read by nothing
    return [begin + len(rollout.completion.token_ids) for rollout in group.rollouts]


def _count_flat(graded_works: Sequence[Graded], layout: Layout) -> int:
    """Returns the number of tokens if every rollout's sequence were computed alone, flat groups
    included."""
    return sum(
        sum(_alone(group, length, layout))
        for graded in graded_works
        for group, length in zip(graded.groups, graded.work.prefix_lengths(layout), strict=True)
    )


def _count_left_out(batch: Sequence[Weighted], config: Config, layout: Layout) -> tuple[int, int]:
    """Returns what an update leaves out of a batch whose sequences are computed alone, in tokens:
    those of rollouts that equal another of their group, and those of groups that are not run."""
    merged = skipped = 0
    for whole in batch:
        graded = thoughts_alone(whole, layout, config)
        found = branches_of(graded, layout, run_flat=reads_flat_groups(config.train))
        lengths = whole.work.prefix_lengths(layout)
        for group, one, length in zip(whole.groups, found, lengths, strict=True):
            alone = _alone(group, length, layout)
            if one.members:
                merged += sum(alone) - sum(alone[rollouts[0]] for rollouts in one.members)
            else:
                skipped += sum(alone)
    return merged, skipped


def step_cost(
    policy: Model,
    generated: Sequence[Graded],
    batch: Sequence[Weighted],
    config: Config,
    layout: Layout,
) -> dict[str, float]:
    """Returns the cost metrics of one step: tokens and FLOPs by phase, and what sharing saved."""
    shape, train = model_shape(policy), config.train
    updates = train.updates_per_batch
    passes = prefix_passes(config.prompt) + plain_passes(config.prompt, layout)
    elsewhere = config.engine.sampler != "same"
    made = count_generation(generated, layout, passes, elsewhere=elsewhere)
    made.add(count_expected(policy, generated, config, layout))
    update = count_update(policy, batch, config, layout, text=train.ntp_weight > 0)
    known = batch if train.kl_weight else ()
    reference = count_update(policy, known, config, layout, text=False)
    run = made.shared.tokens + updates * update.shared.tokens
    flat = _count_flat(generated, layout) + updates * _count_flat(batch, layout)
    merged, skipped = (updates * tokens for tokens in _count_left_out(batch, config, layout))
    alone = made.alone.forward(shape) + reference.alone.forward(shape)
    update_flops = updates * update.shared.train(shape) + reference.shared.forward(shape)
    return {
        "tokens/generate": float(made.shared.tokens),
        "tokens/update": float(updates * update.shared.tokens),
        "tokens/saved_by_sharing": float(flat - run - merged - skipped),
        "tokens/saved_by_merging": float(merged),
        "tokens/saved_by_skipping": float(skipped),
        "flops/generate": made.shared.forward(shape),
        "flops/update": update_flops,
        "sharing/flops_alone": alone + updates * update.alone.train(shape),
    }
