"""Reinforcement and next-token training over compute and model size: which laws, and do they
differ?"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from openrpt.evaluation.scaling.scaling import Analysis, Point, analyse
from openrpt.evaluation.scaling.table import scaling_sheets
from openrpt.experiments.answers.comparing import ONE_SEED, compare
from openrpt.experiments.answers.experiment import START, Arm, Experiment, Size
from openrpt.experiments.answers.outcome import Outcome
from openrpt.sheets import Sheet

_FEWEST = 4
"""Different budgets that a law of three parameters needs, and one more."""
_DEFAULT_WIDTH = 64


def _ways(width: int, origin: str, size: Size) -> list[Arm]:
    found, at = [], f"-{width}" if width else ""
    asked: dict[str, Any] = {"evaluate.controls": []}
    depths = "" if size.recipe else ", all depths at once"
    for share in size.shares:
        name = f"rpt{at}-{share:g}"
        found += [
            Arm(
                name=name,
                what=f"reinforcement, {share:g} of the usual steps{depths}",
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


def _laws(outcome: Outcome, *, resamples: int) -> Analysis:
    """Fits each way to learn and model size, and all sizes together; a point is a mean over
    seeds."""
    points = [
        Point(
            compute=outcome.mean(arm, "flops"),
            accuracy=sum(outcome.values(arm, outcome.compared)) / len(outcome.seeds),
            difficulty=series.partition("-")[0],
            model_size=outcome.mean(arm, "parameters"),
        )
        for series, arms in _series(outcome).items()
        if len({outcome.mean(arm, "flops") for arm in arms}) >= _FEWEST
        for arm in arms
    ]
    return analyse(points, resamples=resamples)


def _sheets(outcome: Outcome) -> list[Sheet]:
    return scaling_sheets(_laws(outcome, resamples=500))


def _answer(outcome: Outcome) -> str:
    if len(outcome.seeds) < 2:
        return ONE_SEED
    lines = _series(outcome)
    budgets = {
        ours: list(zip(arms, lines[ours.replace("RPT", "NTP")], strict=True))
        for ours, arms in lines.items()
        if ours.startswith("RPT")
    }
    pairs = [pair for found in budgets.values() for pair in found]
    compared = {one.arm: one for one in compare(outcome, outcome.compared, pairs)}
    sentences = []
    for series, found in budgets.items():
        own = [compared[ours] for ours, _ in found]
        ahead = [one.arm for one in own if one.said and one.found.value > 0]
        behind = [one.arm for one in own if one.said and one.found.value < 0]
        least = f", from {outcome.mean(ahead[0], 'flops'):.1e} FLOPs on" if ahead else ""
        sentences.append(
            f"{outcome.mean(own[0].arm, 'parameters'):,.0f} weights ({series}): ahead at"
            f" {len(ahead)} of {len(own)} budgets{least}, behind at {len(behind)}"
        )
    return (
        "Reinforcement beside next-token training for as many FLOPs (95 % over seeds, Holm's"
        f" correction): {'; '.join(sentences)}. {_forms(outcome)}"
    )


def _forms(outcome: Outcome) -> str:
    """Returns which form fits best, for how many model sizes, as far as the points tell."""
    told: dict[str, list[str]] = {}
    for one in _laws(outcome, resamples=0).series:
        unclear = any("two forms" in remark for remark in one.remarks)
        told.setdefault(one.difficulty, []).append("not told apart" if unclear else one.best)
    parts = [
        f"{way}: " + ", ".join(f"{form} at {n}" for form, n in Counter(forms).items())
        for way, forms in told.items()
    ]
    return f"The form with the least AICc, by model sizes: {'; '.join(parts) or 'too few points'}."


SCALING = Experiment(
    name="scaling",
    question="How does accuracy grow with compute and size under reinforcement and under next-token"
    " training, where do they cross, and do the laws differ in form?",
    setting="From each start, runs of several budgets, each twice the one before: reinforcement,"
    " and next-token training for the same FLOPs with a learning rate annealed over its own budget."
    " Each budget is a run of its own. FLOPs count what both add to the start.",
    arms=_arms,
    baseline=START,
    measures=("accuracy", "within", "beyond", "standard"),
    answer=_answer,
    sheets=_sheets,
    over_flops=True,
    limits=[
        "The compute of the start is not on the axis; it is larger than all that is added to it.",
        "Laws are fitted to means over seeds; their intervals are of the residuals, not of seeds.",
    ],
    lab_limits=[
        "All depths are trained at once, so accuracy grows smoothly; with a curriculum it grows in"
        " steps, and no law of this form fits.",
        "All sizes learn at one rate, the one found for width 64. Wider models are unstable at it"
        " (the warnings), so where they stand below narrower ones is no law of size.",
    ],
)
