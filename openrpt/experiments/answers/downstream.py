"""Is reinforcement pre-training a better start for reinforcement fine-tuning?"""

from collections.abc import Sequence

from openrpt.experiments.answers.comparing import in_words, with_baseline
from openrpt.experiments.answers.experiment import START, Arm, Experiment, Size
from openrpt.experiments.answers.outcome import Outcome

_BASE = "tuned-start"
_SHARE = 0.5
"""The share of reinforcement's steps that fine-tuning takes."""


def _tuned(origin: str, what: str, match: tuple[str, ...] = ()) -> Arm:
    return Arm(
        name=f"tuned-{origin}",
        what=what,
        stage="finetune",
        origin=origin,
        match=match,
        share=_SHARE,
    )


def _arms(size: Size) -> Sequence[Arm]:
    before = {
        "ntp": Arm(
            name="ntp",
            what="next-token training for reinforcement's FLOPs",
            stage="pretrain",
            match=("rpt",),
        ),
        "traces": Arm(
            name="traces",
            what="given thoughts alone for reinforcement's FLOPs",
            stage="pretrain",
            match=("rpt",),
            world="worked=1&filler=0",
        ),
    }
    if size.recipe:  # its start is warmed up already: there are no given thoughts
        del before["traces"]
    rpt = Arm(name="rpt", what="reinforcement pre-training")
    longer = _tuned(START, "fine-tuning of the start, for both FLOPs", ("tuned-rpt", "rpt"))
    found = [rpt, _tuned("rpt", "fine-tuning behind it"), longer]
    for name, arm in before.items():
        found += [arm, _tuned(name, "fine-tuning behind it, as many steps")]
    return found


def _answer(outcome: Outcome) -> str:
    return in_words(
        [one for one in with_baseline(outcome, "accuracy", _BASE) if one.arm.startswith("tuned-")]
    )


DOWNSTREAM = Experiment(
    name="downstream",
    question="Is reinforcement pre-training a better start for fine-tuning on questions than the"
    " start model, continual next-token training and given thoughts, at equal total compute?",
    setting="Fine-tuning asks for the answers to questions: in a laboratory the world's problems"
    " that are deeper than any worked line. Behind reinforcement, next-token training and given"
    " thoughts of equal FLOPs it takes as many steps; the start model is fine-tuned for as many"
    " FLOPs as reinforcement and fine-tuning took together. `tuned-` arms are measured on held-out"
    " questions, the others on held-out lines of all depths.",
    arms=_arms,
    baseline=_BASE,
    measures=("accuracy", "before", "within", "beyond"),
    answer=_answer,
    limits=[
        "A laboratory's questions ask for what its lines end with: the nearest possible task.",
        "FLOPs are planned from those of the first fine-tuning; the table has what was spent.",
    ],
)
