"""Reinforcement and next-token training over compute and model size: which laws, and do they
differ?"""

from collections.abc import Sequence
from typing import Any

from openrpt.evaluation.scaling.scaling import Analysis, Point, analyse
from openrpt.evaluation.scaling.table import scaling_sheets
from openrpt.experiments.answers.comparing import ONE_SEED, compare
from openrpt.experiments.answers.experiment import START, Arm, Experiment, Size
from openrpt.experiments.answers.outcome import Outcome
from openrpt.sheets import Sheet

_FEWEST = 4
"""Budgets that a law of three parameters needs, and one more."""
_DEFAULT_WIDTH = 64


def _ways(width: int, origin: str, size: Size) -> list[Arm]:
    found, at = [], f"-{width}" if width else ""
    asked: dict[str, Any] = {"evaluate.controls": []}
    for share in size.shares:
        name = f"rpt{at}-{share:g}"
        found += [
            Arm(
                name=name,
                what=f"reinforcement, {share:g} of the usual steps, all depths at once",
                origin=origin,
                share=share,
                changes={"selection.curriculum": 0},
                asked=asked,
                series=f"RPT{at}",
            ),
            Arm(
                name=f"ntp{at}-{share:g}",
                what="next-token training for as many FLOPs",
                stage="pretrain",
                origin=origin,
                match=(name,),
                asked=asked,
                series=f"NTP{at}",
            ),
        ]
    return found


def _arms(size: Size) -> Sequence[Arm]:
    if size.recipe:
        return _ways(0, START, size)
    found = []
    for width in size.widths:
        origin = START
        if width != _DEFAULT_WIDTH:
            origin = f"start-{width}"
            what = f"from scratch, width {width}"
            found.append(Arm(name=origin, what=what, stage="pretrain", origin="", width=width))
        found += _ways(width, origin, size)
    return found


def _series(outcome: Outcome) -> dict[str, list[str]]:
    """Returns the arms of each line."""
    found: dict[str, list[str]] = {}
    for arm in outcome.arms:
        if arm.series and outcome.of(arm.name):
            found.setdefault(arm.series, []).append(arm.name)
    return found


def _laws(outcome: Outcome) -> Analysis:
    """Fits each way to learn and model size, and all sizes together; a point is a mean over
    seeds."""
    points = [
        Point(
            compute=outcome.mean(arm, "flops"),
            accuracy=sum(outcome.values(arm, "accuracy")) / len(outcome.seeds),
            difficulty=series.partition("-")[0],
            model_size=outcome.mean(arm, "parameters"),
        )
        for series, arms in _series(outcome).items()
        if len(arms) >= _FEWEST
        for arm in arms
    ]
    return analyse(points)


def _sheets(outcome: Outcome) -> list[Sheet]:
    return scaling_sheets(_laws(outcome))


def _answer(outcome: Outcome) -> str:
    if len(outcome.seeds) < 2:
        return ONE_SEED
    lines = _series(outcome)
    pairs = [
        (ours, theirs)
        for series, arms in lines.items()
        if series.startswith("RPT")
        for ours, theirs in zip(arms, lines[series.replace("RPT", "NTP")], strict=True)
    ]
    found = compare(outcome, "accuracy", pairs)
    ahead = [one.arm for one in found if one.said and one.found.value > 0]
    behind = [one.arm for one in found if one.said and one.found.value < 0]
    said = (
        f"Of {len(found)} pairs of equal FLOPs, reinforcement is ahead of next-token training in"
        f" {len(ahead)} ({', '.join(ahead) or '–'}), behind in {len(behind)}"
        f" ({', '.join(behind) or '–'}), not told apart in {len(found) - len(ahead) - len(behind)}."
    )
    forms = [
        f"{one.difficulty} at {one.model_size or 0:,.0f} weights: {one.best}"
        + (" (not told apart from another)" if any("two forms" in r for r in one.remarks) else "")
        for one in _laws(outcome).series
    ]
    return f"{said} Form with the least AICc: {'; '.join(forms)}."


SCALING = Experiment(
    name="scaling",
    question="How does accuracy grow with compute and size under reinforcement and under next-token"
    " training, where do they cross, and do the laws differ in form?",
    setting="From each start, runs of six budgets over a factor of 32: reinforcement, and"
    " next-token training for the same FLOPs with a learning rate annealed over its own budget."
    " Each budget is a run of its own. FLOPs count what both add to the start.",
    arms=_arms,
    baseline=START,
    measures=("accuracy", "within", "beyond", "standard"),
    answer=_answer,
    sheets=_sheets,
    over_flops=True,
    limits=[
        "The compute of the start is not on the axis; it is larger than all that is added to it.",
        "All depths are trained at once, so accuracy grows smoothly; with a curriculum it grows in"
        " steps, and no law of this form fits.",
        "Laws are fitted to means over seeds; their intervals are of the residuals, not of seeds.",
    ],
)
