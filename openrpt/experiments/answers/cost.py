"""What does an accuracy cost: in FLOPs, time and energy, beside the alternatives?"""

from collections.abc import Sequence

from openrpt import amounts
from openrpt.experiments.answers.comparing import ONE_SEED, compare
from openrpt.experiments.answers.experiment import START, Arm, Experiment, Size
from openrpt.experiments.answers.outcome import Outcome
from openrpt.experiments.over_seeds import mean_over_seeds
from openrpt.sheets import Sheet

_TEXTS = {
    "ntp": ("next-token training on the start's text", ""),
    "mix": ("next-token training on text with worked lines in half of it", "worked=0.5&filler=0"),
}


def _arms(size: Size) -> Sequence[Arm]:
    found = []
    for share in sorted(size.shares, reverse=True):
        ours = f"rpt-{share:g}"
        what = f"reinforcement, {share:g} of the usual steps"
        found.append(Arm(name=ours, what=what, share=share, series="RPT"))
        for name, (text, world) in _TEXTS.items():
            if size.recipe and world:
                continue  # no given thoughts there
            found.append(
                Arm(
                    name=f"{name}-{share:g}",
                    what=f"{text}, for the same FLOPs",
                    stage="pretrain",
                    match=(ours,),
                    world=world,
                    series={"ntp": "NTP", "mix": "NTP with worked lines"}[name],
                )
            )
    return found


def _pairs(outcome: Outcome) -> list[tuple[str, str]]:
    names = [arm.name for arm in outcome.arms]
    return [
        (ours, theirs)
        for ours in names
        if ours.startswith("rpt-")
        for name in _TEXTS
        if (theirs := ours.replace("rpt", name, 1)) in names
    ]


def _answer(outcome: Outcome) -> str:
    if len(outcome.seeds) < 2:
        return ONE_SEED
    found = compare(outcome, outcome.compared, _pairs(outcome))
    sentences = []
    for name, title in (("ntp", "continual next-token training"), ("mix", "the mix with traces")):
        own = [one for one in found if one.other.startswith(name)]
        ahead = [one for one in own if one.said and one.found.value > 0]
        behind = [one for one in own if one.said and one.found.value < 0]
        if own:
            sentences.append(
                f"against {title} at equal FLOPs, reinforcement is ahead at {len(ahead)} of"
                f" {len(own)} budgets, behind at {len(behind)}"
            )
    text = "; ".join(sentences)
    return f"{text[:1].upper()}{text[1:]} (95 % over seeds, Holm's correction)."


def _sheets(outcome: Outcome) -> list[Sheet]:
    """Returns accuracy beside FLOPs, time and energy, arm by arm."""
    rows = [
        [
            arm.name,
            mean_over_seeds(outcome.values(arm.name, outcome.compared)),
            amounts.flops(outcome.mean(arm.name, "flops")),
            f"{outcome.mean(arm.name, 'seconds'):.1f} s",
            amounts.energy(outcome.mean(arm.name, "joules")),
        ]
        for arm in outcome.arms
        if outcome.of(arm.name)
    ]
    return [
        Sheet(
            title="what it took, a seed",
            headings=["arm", "right, %", "FLOPs", "time", "energy"],
            rows=rows,
            notes=["time and energy are of this machine, which may have had other work"],
        )
    ]


COST = Experiment(
    name="cost",
    question="What does an accuracy cost in FLOPs, time and energy, beside continual training and"
    " beside a mix with worked thoughts?",
    setting="From one start a seed, six budgets over a factor of 32: reinforcement, next-token"
    " training on the same kind of text, and on text half of which is worked lines, all of equal"
    " FLOPs. FLOPs are counted as the document tree computes them: a prompt once for its group.",
    arms=_arms,
    baseline=START,
    answer=_answer,
    sheets=_sheets,
    over_flops=True,
    limits=[
        "Worked lines are given here. Where somebody must write them, that is a cost, too.",
        "Small models leave a machine idle between small operations, so time and energy fall"
        " together with FLOPs only on larger ones.",
    ],
)
