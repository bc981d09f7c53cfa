"""Failures made on purpose: what do the warnings say, and what repairs them?"""

from collections.abc import Sequence

from openrpt.experiments.answers.comparing import ONE_SEED, compare
from openrpt.experiments.answers.experiment import Arm, Experiment, Size
from openrpt.experiments.answers.outcome import Outcome

_RATE = 1e-2
"""A learning rate twenty times the laboratory's."""
_COST = {"reward.thought_cost": 0.02, "reward.thought_cost_limit": 0.5}
"""A whole thought costs about half of what a right answer earns."""
_PAIRS = ("collapse", "shortening", "no-support")


def _arms(size: Size) -> Sequence[Arm]:
    rate = {"train.learning_rate": _RATE}
    found = [
        Arm(name="rpt", what="reinforcement as it is: nothing is broken"),
        Arm(name="collapse", what=f"learning rate {_RATE:g}", changes=rate),
        Arm(
            name="collapse-repaired",
            what="the same with an entropy bonus of 0.05",
            changes={**rate, "train.entropy_weight": 0.05},
        ),
        Arm(name="shortening", what="every token of thought costs 0.02", changes=_COST),
        Arm(
            name="shortening-repaired",
            what="the same with a KL term of 0.1",
            changes={**_COST, "train.kl_weight": 0.1},
        ),
    ]
    if size.recipe:
        return found
    chat = Arm(
        name="chat",
        what="a start whose text has useless thoughts alone",
        stage="pretrain",
        origin="",
        world="worked=0&filler=0.5",
        measured=False,
    )
    traces = Arm(
        name="traces",
        what="it learns from worked lines",
        stage="pretrain",
        origin="chat",
        share=0.04,
        world="worked=1&filler=0",
        measured=False,
    )
    broken = Arm(name="no-support", what="reinforcement of a start without worked thoughts")
    repaired = Arm(name="no-support-repaired", what="the same after given thoughts")
    return [
        *found,
        chat,
        Arm(name=broken.name, what=broken.what, origin="chat"),
        traces,
        Arm(name=repaired.name, what=repaired.what, origin="traces"),
    ]


def _answer(outcome: Outcome) -> str:
    names = [arm.name for arm in outcome.arms]
    there = [name for name in _PAIRS if f"{name}-repaired" in names]
    if len(outcome.seeds) < 2:
        return ONE_SEED
    pairs = [(name, "rpt") for name in there] + [(f"{name}-repaired", name) for name in there]
    found = {one.arm: one for one in compare(outcome, outcome.compared, pairs)}
    sentences = []
    for name in there:
        broken, repaired = found[name], found[f"{name}-repaired"]
        lost = "cost accuracy" if broken.said and broken.found.value < 0 else "cost nothing shown"
        won = repaired.said and repaired.found.value > 0
        gave = "gave some back" if won else "gave nothing back that is shown"
        warned = sum(bool(one.warnings) for one in outcome.of(name))
        sentences.append(
            f"{name} {lost} ({broken.text}), a warning was said in {warned} of"
            f" {len(outcome.seeds)} seeds, and its repair {gave} ({repaired.text})"
        )
    text = "; ".join(sentences)
    return f"{text[:1].upper()}{text[1:]} (points, 95 % over seeds, Holm's correction)."


FAILURE = Experiment(
    name="failure",
    question="What do three failures made on purpose look like, do the warnings say them, and does"
    " what they advise repair them?",
    setting="A policy that collapses (a learning rate twenty times too high), thoughts that shorten"
    " (each token costs), and a start with nothing to reinforce (no worked thought in its text)."
    " Each beside the same with what helps according to the warning: an entropy bonus, a KL term,"
    " given thoughts. Nothing else is changed: the cause stays.",
    arms=_arms,
    baseline="rpt",
    measures=("accuracy", "beyond", "emptied", "reward", "flat", "entropy", "thought"),
    answer=_answer,
    limits=[
        "One strength of each cause and one of each repair: a weaker rate may not collapse, and a"
        " stronger repair may do more.",
        "A failure can have other causes than the one that was made here.",
        "The warnings are those of the version that ran. docs/watching.md says what the rules of"
        " now make of the same runs.",
    ],
)
