"""Failure signatures: what a training run that goes wrong looks like in its metrics.

A pure function of the rows so far. Windows and thresholds are chosen so that the noise of a
healthy run of a few documents a step does not reach them; a finding is a reason to look, no
proof. `openrpt.runs.journal` says each once, at the step at which it first shows, and records it in
that step's row of `metrics.jsonl` under `warnings`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from openrpt.json_lines import Row
from openrpt.runs.windows import (
    WINDOW,
    difference_error,
    first_and_last,
    last_window,
    standard_error,
    values_of,
    window_means,
)
from openrpt.types import Finding

_FLAT = 0.95
"""Mean share of flat groups: of 64 groups three are left to learn from."""
_CLOSED_FALL = 0.1
"""Fall of the share of closed boxes from its best window; it moves by 1 to 3 points by chance, and
by more in a run that learns: so the reward is asked, too."""
_REWARD_SHARE = 2 / 3
"""What is left of the best window's reward where it has fallen. Runs that learn lose up to 30 % for
some steps, with the documents of those steps."""
_FALL_ERRORS = 4
"""Standard errors that a fall from the best of many windows must have: one of them is high by
chance."""
_LIVE = 0.75
"""Mean share of flat groups below which there is enough to learn from; above it `all_flat` is the
cause to look at."""
_TREND_STEPS = 50
"""Steps after which a reward should have risen."""
_TREND_WINDOW = 10
"""Steps of a window that is compared with the first; 5 tell a small rise less well from none."""
_RISE_ERRORS = 2
"""Standard errors above the first window that count as a rise. With a noise of 0.07 a step, the
rule speaks within 80 steps to 87 % of rewards that stay where they are, and to 14 % of those that
rise by 0.002 a step (simulated, 300 of each)."""
_THOUGHT_SHARE = 0.3
"""A thought that has lost 70 % of its first length no longer does what it did."""
_ENTROPY = 0.05
"""Nats a token. At this entropy the eight rollouts of a group are nearly always the same. A policy
that has learned is as sure, and right: so the reward is asked, too."""
_REWARD_RISE = 0.05
"""Rise of the reward that one expects to find again in held-out accuracy."""
_EVALUATIONS = 4
"""Held-out evaluations, the first included: three later ones must all fail to rise."""
_ACCURACY_RISE = 0.01
"""A later evaluation this much above the first counts as a rise, noise or not: a healthy run
passes as soon as one is."""
_PREDICTION_SHARE = 0.5
_CONTENT_FALL = 0.2
_COMMONEST_RISE = 0.2
"""Predictions half as long as at first; a fifth fewer with any content; a fifth more that are the
step's commonest one. Windows of different documents differ by a few points."""


def findings(rows: Sequence[Row]) -> list[Finding]:
    """Returns every signature that shows at the last row; none before there are enough rows."""
    if not rows:
        return []
    step = rows[-1]["step"]
    seen = {name: signature.seen(rows) for name, signature in SIGNATURES.items()}
    return [
        Finding(name=name, step=step, seen=text, helps=SIGNATURES[name].helps)
        for name, text in seen.items()
        if text
    ]


def new_findings(rows: Sequence[Row]) -> list[Finding]:
    """Returns those of `findings` that no row has recorded yet."""
    known = {warning["name"] for row in rows for warning in row.get("warnings", [])}
    return [finding for finding in findings(rows) if finding.name not in known]


def _no_reward(rows: Sequence[Row]) -> str:
    rewards, flat = last_window(rows, "reward/mean"), last_window(rows, "group/flat_fraction")
    if not rewards or any(rewards) or not flat or min(flat) < 1:
        return ""
    return f"no rollout of the last {WINDOW} steps was right: no group has a reward to learn from"


def _all_flat(rows: Sequence[Row]) -> str:
    flat = last_window(rows, "group/flat_fraction")
    if not flat or fmean(flat) < _FLAT or _no_reward(rows):
        return ""
    rewards = last_window(rows, "reward/mean")
    mean = f", {fmean(rewards):.3f} in the mean" if rewards else ""
    return f"{fmean(flat):.0%} of the groups of {WINDOW} steps have equal rewards only{mean}"


def _reward_falling(rows: Sequence[Row]) -> str:
    values = values_of(rows, "reward/mean")
    if len(values) < 2 * WINDOW or _no_reward(rows):
        return ""
    means = window_means(values, WINDOW)
    best, now = max(means), means[-1]
    if now > _REWARD_SHARE * best or best - now < _FALL_ERRORS * difference_error(values, WINDOW):
        return ""
    return f"the reward is {now:.3f} over {WINDOW} steps; it was {best:.3f}"


def _reward_not_rising(rows: Sequence[Row]) -> str:
    values, flat = values_of(rows, "reward/mean"), values_of(rows, "group/flat_fraction")
    if len(values) < _TREND_STEPS or not flat or fmean(flat) >= _LIVE:
        return ""
    first, *later = window_means(values, _TREND_WINDOW)
    error = difference_error(values, _TREND_WINDOW)
    if max(later) > first + _RISE_ERRORS * error:
        return ""
    return (
        f"the reward has not risen in {len(values)} steps, though {1 - fmean(flat):.0%} of the"
        f" groups can be learned from: {first:.3f} over the first {_TREND_WINDOW}, at best"
        f" {max(later):.3f} since (a standard error is {error:.3f})"
    )


def _lost_reward(rows: Sequence[Row]) -> str:
    """Returns in words that the policy has not become better; empty where it has, or may have."""
    return _no_reward(rows) or _reward_falling(rows) or _reward_not_rising(rows)


def _closed_box_falling(rows: Sequence[Row]) -> str:
    values = values_of(rows, "completion/closed_fraction")
    lost = _lost_reward(rows)
    if len(values) < 2 * WINDOW or not lost:
        return ""
    means = window_means(values, WINDOW)
    best, now = max(means), means[-1]
    if now > best - _CLOSED_FALL:
        return ""
    return f"{now:.0%} of the rollouts have a closed box; it was {best:.0%}; {lost}"


def _thoughts_shorten(rows: Sequence[Row]) -> str:
    ends = first_and_last(rows, "completion/thought_bytes_mean")
    if ends is None or ends[1] >= _THOUGHT_SHARE * ends[0]:
        return ""
    return f"thoughts have {ends[1]:.0f} bytes in the mean; at first they had {ends[0]:.0f}"


def _entropy_collapse(rows: Sequence[Row]) -> str:
    values = values_of(rows, "policy/entropy")[-WINDOW:]
    lost = _lost_reward(rows)
    if len(values) < WINDOW or fmean(values) >= _ENTROPY or not lost:
        return ""
    return f"the policy's entropy is {fmean(values):.3f} nats a token over {WINDOW} steps; {lost}"


def _reward_without_accuracy(rows: Sequence[Row]) -> str:
    key = "development/reasoning_accuracy"
    evaluated = [index for index, row in enumerate(rows) if key in row]
    if len(evaluated) < _EVALUATIONS or evaluated[-1] != len(rows) - 1:
        return ""
    first, *later = [rows[index][key] for index in evaluated]
    before = values_of(rows[: evaluated[0] + 1][-WINDOW:], "reward/mean")
    now = last_window(rows, "reward/mean")
    if not before or not now or max(later) > first + _ACCURACY_RISE:
        return ""
    rise, noise = (
        fmean(now) - fmean(before),
        standard_error(now) + standard_error(before),
    )
    if rise < _REWARD_RISE or rise < 2 * noise:
        return ""
    return (
        f"the reward rose from {fmean(before):.3f} to {fmean(now):.3f}, held-out accuracy did not:"
        f" {first:.1%} at first, at best {max(later):.1%} in {len(later)} evaluations since"
    )


def _reward_without_information(rows: Sequence[Row]) -> str:
    """Returns what was seen, where the gain is measured: as a term of the reward, with whatever
    weight."""
    gain, reward = (
        first_and_last(rows, "reward/information_gain"),
        first_and_last(rows, "reward/exact"),
    )
    if gain is None or reward is None or reward[1] - reward[0] < _REWARD_RISE:
        return ""
    if gain[1] > max(gain[0], 0.0):
        return ""
    return (
        f"predictions became right more often, {reward[0]:.3f} to {reward[1]:.3f}, but a thought"
        f" tells no more of the truth: {gain[0]:+.3f} nats at first, {gain[1]:+.3f} now"
    )


def _games_the_verifier(rows: Sequence[Row]) -> str:
    parts = []
    length = first_and_last(rows, "completion/prediction_bytes_mean")
    if length and length[1] < _PREDICTION_SHARE * length[0]:
        parts.append(f"they have {length[1]:.1f} bytes in the mean, at first {length[0]:.1f}")
    content = first_and_last(rows, "completion/content_fraction")
    if content and content[1] < content[0] - _CONTENT_FALL:
        parts.append(f"{content[1]:.0%} hold a letter, digit or sign, at first {content[0]:.0%}")
    common = first_and_last(rows, "completion/commonest_fraction")
    if common and common[1] > common[0] + _COMMONEST_RISE:
        parts.append(f"{common[1]:.0%} are the step's commonest, at first {common[0]:.0%}")
    return f"predictions fit the verifier, not the text: {'; '.join(parts)}" if parts else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Signature:
    """A signature: how it is seen in the rows, and what usually helps."""

    seen: Callable[[Sequence[Row]], str]
    """A function that says what is seen at the last row, with the numbers; empty if nothing is."""
    when: str
    """The condition in words, for the docs."""
    helps: str


SIGNATURES = {
    "no_reward": _Signature(
        seen=_no_reward,
        when=f"no group of the last {WINDOW} steps has any reward",
        helps="a longer warmup (warmup.steps), easier positions (a lower selection.min_entropy), a"
        " larger train.group_size; read the rollouts: `openrpt rollouts RUN`",
    ),
    "all_flat": _Signature(
        seen=_all_flat,
        when=f"at least {_FLAT:.0%} of the groups of {WINDOW} steps are flat",
        helps="positions by pass rate (selection.strategy = 'pass_rate'), dynamic sampling"
        " (train.dynamic_sampling_from), a larger train.group_size, more candidates"
        " (prompt.candidates) or a lower train.learning_rate",
    ),
    "reward_falling": _Signature(
        seen=_reward_falling,
        when=f"the reward of {WINDOW} steps is at most two thirds of the best {WINDOW} steps',"
        f" and {_FALL_ERRORS} standard errors below it",
        helps="a lower train.learning_rate; a KL term (train.kl_weight) keeps the policy near its"
        " start; read the rollouts: `openrpt rollouts RUN`",
    ),
    "reward_not_rising": _Signature(
        seen=_reward_not_rising,
        when=f"after {_TREND_STEPS} steps or more, less than {_LIVE:.0%} of whose groups were flat,"
        f" no {_TREND_WINDOW} steps' reward is {_RISE_ERRORS} standard errors above that of the"
        f" first {_TREND_WINDOW}",
        helps="the start's thoughts may be of no use, and reinforcement only chooses among what the"
        " start does: give it worked thoughts (`openrpt traces`, then warmup.traces), choose"
        " positions that it gets right at times (selection.strategy = 'pass_rate', a lower"
        " selection.min_entropy), or train on more of them a step (train.documents_per_step)",
    ),
    "closed_box_falling": _Signature(
        seen=_closed_box_falling,
        when=f"the share of closed boxes is {100 * _CLOSED_FALL:.0f} points below its best window,"
        " and one of no_reward, reward_falling and reward_not_rising holds",
        helps="a longer warmup (warmup.steps), a larger prompt.prediction_budget, a lower"
        " train.learning_rate",
    ),
    "thoughts_shorten": _Signature(
        seen=_thoughts_shorten,
        when=f"thoughts have less than {_THOUGHT_SHARE:.0%} of their first length",
        helps="compare with an emptied thought before going on: the thought may be of no use; a"
        " KL term (train.kl_weight) keeps it",
    ),
    "entropy_collapse": _Signature(
        seen=_entropy_collapse,
        when=f"the policy's entropy is below {_ENTROPY} nats a token over {WINDOW} steps, and one"
        " of no_reward, reward_falling and reward_not_rising holds",
        helps="an entropy bonus (train.entropy_weight), a lower train.learning_rate, a greater"
        " train.clip_high, more candidates (prompt.candidates)",
    ),
    "reward_without_accuracy": _Signature(
        seen=_reward_without_accuracy,
        when=f"the reward rose by {_REWARD_RISE} or more, and none of {_EVALUATIONS - 1} or more"
        f" later evaluations is {100 * _ACCURACY_RISE:.0f} point above the first",
        helps="the policy may only have become more deterministic: compare greedy accuracy before"
        " and after, train on more documents (score.max_tokens), lower train.learning_rate",
    ),
    "reward_without_information": _Signature(
        seen=_reward_without_information,
        when=f"the share of right predictions rose by {_REWARD_RISE} or more, and the information"
        " gain of the thoughts did not, where it is measured (reward.terms"
        " information_gain=0)",
        helps="the thought is not what wins: evaluate it emptied and swapped (openrpt control RUN"
        " thought), or reward the information gain itself (reward.terms)",
    ),
    "games_the_verifier": _Signature(
        seen=_games_the_verifier,
        when="predictions have become half as long, or a fifth more of them are empty of content"
        " or all the same",
        helps="read the rollouts, look at `openrpt patterns RUN`; reward longer right predictions"
        " (reward.length_bonus), or choose positions of higher entropy (selection.min_entropy)",
    ),
}
