"""What theory says of learning from right answers, beside what a laboratory measured.

The setting: a text shows thoughts of two kinds, a share p of them worked; behind a worked thought
the answer is right, behind any other it is a guess among m. Next-token prediction learns the
shares. Rewarding right answers multiplies the odds of worked thoughts by m, since the others are
right once in m times. For m = 2 this is the theory of Tsilivis et al. (arXiv 2510.11495).
"""

from dataclasses import dataclass

import numpy as np

from openrpt.experiments.lab.outcome import Outcome
from openrpt.experiments.over_seeds import mean_over_seeds
from openrpt.sheets import Sheet

_NEAR = 0.05
"""Most that prediction and measurement may lie apart, as shares, where the prediction holds."""


def after_round(p: float, m: float) -> float:
    """Returns the share of worked thoughts among right answers: odds times m.

    >>> after_round(0.25, 5), after_round(0.4, 2)
    (0.625, 0.5714285714285715)
    """
    return m * p / (1 + (m - 1) * p)


def threshold(m: float) -> float:
    """Returns the share above which one round makes worked thoughts the majority, and greedy
    decoding write them: 1 / (m + 1).

    >>> after_round(threshold(5), 5)
    0.5
    """
    return 1 / (m + 1)


def sampled_accuracy(p: float, m: float) -> float:
    """Returns the accuracy of sampled answers: p + (1 − p) / m.

    >>> round(sampled_accuracy(0.4, 5), 2)
    0.52
    """
    return p + (1 - p) / m


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A prediction beside what was measured, both shares, a value a seed."""

    what: str
    predicted: list[float]
    measured: list[float]

    @property
    def holds(self) -> bool:
        """Whether the means over seeds are at most 5 points apart."""
        return abs(float(np.mean(self.predicted)) - float(np.mean(self.measured))) <= _NEAR


def predictions(outcome: Outcome) -> list[Prediction]:
    """Returns each prediction, at the depths that thoughts were shown for."""
    m, in_text, counted = 1 / outcome.chance, outcome.worked_share, outcome.sampled
    worked = [one.worked / one.rollouts for one in counted]  # p, a seed
    right = [one.right / one.rollouts for one in counted]
    worked_right = [one.worked_right / max(one.right, 1) for one in counted]
    of_text = [in_text] * len(counted)
    found = [
        Prediction(what="worked thoughts, as in the text: p", predicted=of_text, measured=worked),
        Prediction(
            what="right answers, sampled: p + (1 − p)/m",
            predicted=[sampled_accuracy(p, m) for p in worked],
            measured=right,
        ),
        Prediction(
            what="worked thoughts among right answers: odds of p times m",
            predicted=[after_round(p, m) for p in worked],
            measured=worked_right,
        ),
    ]
    if in_text < 0.5 and "ntp" in outcome.arms:
        greedy = [
            outcome.share("ntp", seed, lambda depth: depth <= outcome.shown)
            for seed in outcome.seeds
        ]
        chance = [outcome.chance] * len(greedy)
        what = "continual NTP, greedy: p below a half, so a guess, 1/m"
        found.append(Prediction(what=what, predicted=chance, measured=greedy))
    return found


def theory_sheet(outcome: Outcome) -> Sheet:
    """Returns predictions and measurements in %, and whether they hold."""
    m, seeds = 1 / outcome.chance, len(outcome.seeds)
    rows = [
        [
            one.what,
            mean_over_seeds(one.predicted),
            mean_over_seeds(one.measured),
            "holds" if one.holds else "does not hold",
        ]
        for one in predictions(outcome)
    ]
    above = [one for one in outcome.sampled if one.worked / one.rollouts > threshold(m)]
    commoner = sum(2 * one.worked_right > one.right for one in above)
    return Sheet(
        title=f"theory (arXiv 2510.11495, for m = {m:.0f} answers), depths ≤ {outcome.shown}",
        headings=["prediction", "predicted, %", "measured, %", ""],
        rows=rows,
        notes=[
            "p: the share of worked thoughts that the start samples; holds: means at most"
            f" {100 * _NEAR:.0f} points apart",
            f"p above 1/(m + 1) = {100 * threshold(m):.1f} %: worked thoughts are the commoner ones"
            f" after one round; above in {len(above)} of {seeds} seed{'s' if seeds > 1 else ''},"
            f" and then so in {commoner}",
        ],
    )
