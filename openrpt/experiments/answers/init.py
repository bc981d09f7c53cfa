"""What does the start decide?"""

from collections.abc import Mapping, Sequence
from typing import Any

from openrpt.experiments.answers.comparing import ONE_SEED, compare, mean_percent
from openrpt.experiments.answers.experiment import START, Arm, Experiment, Size
from openrpt.experiments.answers.outcome import Outcome

_WORKED = (0.1, 1, 5, 15)
"""Worked documents in the start's text, in percent."""
_TRACES = (100, 500, 2000)
_TRACE_SHARE = 0.04
"""The share of the start's steps that given thoughts are learned for."""


def _begun(name: str, what: str, world: str) -> list[Arm]:
    return [
        Arm(name=name, what=what, stage="pretrain", origin="", world=world),
        Arm(name=f"rpt-{name}", what="reinforcement", origin=name),
    ]


def _arms(size: Size) -> Sequence[Arm]:
    reasoning = Arm(name="rpt", what="reinforcement")
    if size.recipe:
        return [reasoning, *_on_text(size)]
    found = [
        reasoning,
        *_begun("base", "plain text, no thought of any kind", "worked=0&filler=0"),
        *_begun("chat", "useless thoughts in half of the text", "worked=0&filler=0.5"),
    ]
    for percent in _WORKED:
        what = f"the same, and worked ones in {percent:g} % of it"
        found += _begun(f"worked-{percent:g}", what, f"worked={percent / 100:g}&filler=0.5")
    for count in _TRACES:
        traces = Arm(
            name=f"traces-{count}",
            what=f"given thoughts: {count:,} worked lines, again and again",
            stage="pretrain",
            origin="chat",
            share=_TRACE_SHARE,
            world="worked=1&filler=0",
            changes={"corpus.limit": count},
        )
        found += [traces, Arm(name=f"rpt-{traces.name}", what="reinforcement", origin=traces.name)]
    return found


def _on_text(size: Size) -> list[Arm]:
    found = []
    for kind, model in size.starts.items():
        found += _warmed_up(kind, f"{model} after the same warmup", {"model.path": model})
    if size.warmups:
        what = "the recipe's model after a warmup on its own predictions: no given thought"
        found += _warmed_up("form", what, {"warmup.traces": ""})
    for steps in size.warmups:
        what = f"the recipe's model after {steps} steps of warmup on given thoughts"
        found += _warmed_up(f"given-{steps}", what, {"warmup.steps": steps})
    return found


def _warmed_up(name: str, what: str, changes: Mapping[str, Any]) -> list[Arm]:
    return [
        Arm(name=name, what=what, stage="warmup", origin="", text=changes),
        Arm(name=f"rpt-{name}", what="reinforcement", origin=name),
    ]


def _answer(outcome: Outcome) -> str:
    if len(outcome.seeds) < 2:
        return ONE_SEED
    names = [arm.name for arm in outcome.arms]
    pairs = [(name, name.removeprefix("rpt-")) for name in names if name.startswith("rpt-")]
    pairs = [("rpt", START), *(pair for pair in pairs if pair[1] in names)]
    found = compare(outcome, outcome.compared, pairs)
    won = [one for one in found if one.said and one.found.value > 0]
    gains = [f"{o.other} {o.text} to {mean_percent(outcome, o.arm, outcome.compared)}" for o in won]
    rest = [one.other for one in found if one not in won]
    return (
        "What reinforcement gained over its start (points, 95 % over seeds, Holm's correction):"
        f" {', '.join(gains) or 'nothing that is shown'}. No gain is shown from:"
        f" {', '.join(rest) or 'none'}."
    )


INIT = Experiment(
    name="init",
    question="What does the start decide: which texts and how many given thoughts make a model that"
    " reinforcement can teach?",
    setting="A base start has seen no thought, a chat start the form of one and no use for it, a"
    " reasoning start (`start`) worked thoughts beside useless ones. Then worked documents in 0.1"
    " to 15 % of the text, and a chat start that learns from given thoughts before reinforcement."
    " Every start is trained for as many tokens, every reinforcement for as many steps. Worked at"
    " first: of the rollouts of reinforcement's first step, before any update and at depths that"
    " worked lines show, those whose thought is the worked one to the character.",
    text_setting="Starts are warmed up: on given thoughts for as long as the recipe says"
    " (`start`) or shorter, or on the model's own predictions, which teach the form of a thought"
    " and no use for it; or another model is. Every reinforcement takes as many steps.",
    arms=_arms,
    baseline="rpt",
    measures=("accuracy", "within", "beyond", "standard", "reward", "worked", "read"),
    answer=_answer,
    limits=["Given thoughts are right ones. Wrong ones were not tried."],
    lab_limits=[
        "A share counts documents, not steps: 1 % of this text is some 600 worked lines, and more"
        " text at the same share shows more of them.",
    ],
)
