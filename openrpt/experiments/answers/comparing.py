"""What may be said of an experiment's arms: differences over seeds, with Holm's correction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from openrpt.experiments.answers.outcome import Outcome
from openrpt.experiments.over_seeds import LEVEL, SeedDifference, holm, seed_difference

ONE_SEED = "One seed: no difference between arms is said."


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An arm − another one, paired by seed."""

    arm: str
    other: str
    found: SeedDifference
    p: float
    """The p-value, corrected by Holm for the comparisons made with it (NaN: one seed)."""

    @property
    def said(self) -> bool:
        """Whether the arms are told apart."""
        return self.p <= LEVEL and self.found.distinguishable

    @property
    def text(self) -> str:
        """The difference and its interval, in points."""
        return self.found.text


def compare(outcome: Outcome, measure: str, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
    """Compares the arms of each pair; a pair of which one has no such measure is left out."""
    pairs = [pair for pair in pairs if all(outcome.has(arm, measure) for arm in pair)]
    found = [seed_difference(*(outcome.values(arm, measure) for arm in pair)) for pair in pairs]
    known = [math.nan] * len(found) if len(outcome.seeds) < 2 else holm([one.p for one in found])
    return [
        Comparison(arm=arm, other=other, found=one, p=p)
        for (arm, other), one, p in zip(pairs, found, known, strict=True)
    ]


def with_baseline(outcome: Outcome, measure: str, baseline: str) -> list[Comparison]:
    """Compares every other arm with one."""
    arms = [arm.name for arm in outcome.arms if arm.name != baseline]
    return compare(outcome, measure, [(arm, baseline) for arm in arms])


def in_words(comparisons: Sequence[Comparison]) -> str:
    """Returns comparisons with one arm as sentences: what is ahead of it, behind it, and not told
    apart from it."""
    if not comparisons:
        return "Nothing was measured."
    if math.isnan(comparisons[0].p):
        return ONE_SEED
    other = comparisons[0].other
    ahead = [one for one in comparisons if one.said and one.found.value > 0]
    behind = [one for one in comparisons if one.said and one.found.value < 0]
    rest = [one for one in comparisons if not one.said]
    parts = []
    for title, group in ((f"ahead of {other}", ahead), (f"behind {other}", behind)):
        if group:
            parts.append(f"{title}: " + ", ".join(f"{one.arm} {one.text}" for one in group))
    if rest:
        parts.append(f"not told apart from {other}: " + ", ".join(one.arm for one in rest))
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]} (points, 95 % over seeds, Holm's correction)."


def mean_percent(outcome: Outcome, arm: str, measure: str) -> str:
    """Returns a measure's mean over seeds in %, `83.1 %`."""
    values = outcome.values(arm, measure)
    return f"{100 * sum(values) / len(values):.1f} %"
