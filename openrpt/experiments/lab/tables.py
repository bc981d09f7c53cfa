"""A laboratory as tables: accuracy of each arm, and how far RPT is ahead of it over seeds."""

import math
from collections.abc import Callable

import numpy as np

from openrpt.experiments.lab.outcome import Outcome
from openrpt.experiments.lab.theory import theory_sheet
from openrpt.experiments.over_seeds import mean_over_seeds, seed_difference
from openrpt.sheets import NOTHING, Sheet

_Inside = Callable[[int], bool]
_AFTER = "rpt"


def lab_sheets(outcome: Outcome) -> list[Sheet]:
    """Returns the tables that the command prints: accuracy, differences, and theory."""
    return [lab_sheet(outcome), differences_sheet(outcome), theory_sheet(outcome)]


def lab_sheet(outcome: Outcome) -> Sheet:
    """Returns % right of each arm, and with its thought changed: the mean over seeds ± standard
    error."""
    parts, measures = _parts(outcome), ("standard", "emptied", "swapped", "carried")
    rows = [
        [
            arm,
            *(_mean(outcome, arm, inside) for inside in parts.values()),
            *(_mean(outcome, arm, parts["all"], measure) for measure in measures),
        ]
        for arm in outcome.arms
    ]
    return Sheet(
        title=f"lab:{outcome.world}, {_seeds(outcome)}: % right",
        headings=["arm", *parts, *measures],
        rows=rows,
        notes=[
            f"{_problems(outcome)}; chance {100 * outcome.chance:.1f} %",
            "± is the standard error over seeds",
            "standard: the same weights' standard prediction, without a thought",
            "emptied, swapped: with no thought, with another problem's; carried: how often the"
            " prediction is then the other problem's",
        ],
    )


def differences_sheet(outcome: Outcome) -> Sheet:
    """Returns RPT − each other arm in points, paired by seed, and the least that a seed has; then −
    standard prediction, continual NTP's and its own."""
    parts = _parts(outcome)
    others = [(arm, arm, "accuracy") for arm in outcome.arms if arm != _AFTER]
    others += [
        (f"{arm}, standard", arm, "standard") for arm in ("ntp", _AFTER) if arm in outcome.arms
    ]
    rows = [
        [
            title,
            *(_ahead(outcome, arm, inside, measure) for inside in parts.values()),
            *(_least(outcome, arm, inside, measure) for inside in parts.values()),
        ]
        for title, arm, measure in others
    ]
    notes = [
        "95 % by Student's t over seeds; 0 within it: not distinguishable",
        "least: the seed with the smallest difference",
    ]
    if len(outcome.seeds) < 2:
        notes = ["one seed: no interval over seeds, so no difference is said; give --seeds"]
    return Sheet(
        title=f"{_AFTER} − the arm, points, paired over {_seeds(outcome)}",
        headings=["arm", *parts, *(f"least, {part}" for part in parts)],
        rows=rows,
        notes=notes,
    )


def _parts(outcome: Outcome) -> dict[str, _Inside]:
    shown = outcome.shown
    return {
        "all": lambda depth: True,
        f"depth ≤ {shown}": lambda depth: depth <= shown,
        f"depth > {shown}": lambda depth: depth > shown,
    }


def _seeds(outcome: Outcome) -> str:
    count = len(outcome.seeds)
    return f"{count} seed{'s' if count > 1 else ''}"


def _problems(outcome: Outcome) -> str:
    own = [cell for cell in outcome.cells if cell.arm == _AFTER]
    counts = [sum(cell.n for cell in own if cell.seed == seed) for seed in outcome.seeds]
    if len(set(counts)) == 1:
        each = " a seed" if len(counts) > 1 else ""
        return f"{counts[0]} held-out problems{each}"
    return f"{' + '.join(map(str, counts))} held-out problems"


def _over_seeds(
    outcome: Outcome, arm: str, inside: _Inside, measure: str = "accuracy"
) -> list[float]:
    return [outcome.share(arm, seed, inside, measure) for seed in outcome.seeds]


def _mean(outcome: Outcome, arm: str, inside: _Inside, measure: str = "accuracy") -> str:
    found = np.array(_over_seeds(outcome, arm, inside, measure))
    return mean_over_seeds(found[~np.isnan(found)])


def _ahead(outcome: Outcome, arm: str, inside: _Inside, measure: str) -> str:
    known = _pairs(outcome, arm, inside, measure)
    if not known:
        return NOTHING
    found = seed_difference([a for a, _ in known], [b for _, b in known])
    unclear = not math.isnan(found.low) and not found.distinguishable
    return f"{found.text} not distinguishable" if unclear else found.text


def _least(outcome: Outcome, arm: str, inside: _Inside, measure: str) -> str:
    differences = [a - b for a, b in _pairs(outcome, arm, inside, measure)]
    return f"{100 * min(differences):+.1f}".replace("-", "−") if differences else NOTHING


def _pairs(outcome: Outcome, arm: str, inside: _Inside, measure: str) -> list[tuple[float, float]]:
    """Returns RPT's share and the arm's at each seed that has both."""
    ours = _over_seeds(outcome, _AFTER, inside)
    pairs = zip(ours, _over_seeds(outcome, arm, inside, measure), strict=True)
    return [(a, b) for a, b in pairs if not math.isnan(a) and not math.isnan(b)]
