"""Which of reinforcement's choices matter: algorithm, schedule, groups, thought, prompt?"""

from collections.abc import Sequence
from typing import Any

from openrpt.config.algorithms import ALGORITHMS
from openrpt.experiments.answers.comparing import in_words, with_baseline
from openrpt.experiments.answers.experiment import Arm, Experiment, Size
from openrpt.experiments.answers.outcome import Outcome

_BASE = "rpt"


def _arms(size: Size) -> Sequence[Arm]:
    found = [Arm(name=_BASE, what="the size's own choices (GRPO)")]
    found += [_groups(count, size) for count in (4, 8, 32)]
    found += [
        Arm(name=name, what="another algorithm", changes={"train.algorithm": name})
        for name in ALGORITHMS
        if name != "grpo"
    ]
    if not size.recipe:
        found.append(_arm("no-curriculum", "all depths from the first step", curriculum=0))
    found += [_thinking(tokens) for tokens in size.thoughts]
    found += [
        Arm(
            name=f"candidates-{count}",
            what=f"the thought begins with the model's {count} first choices",
            changes={},
            asked={"prompt.candidates": count},
        )
        for count in (1, 3)
    ]
    if size.recipe:
        found += [
            Arm(
                name=f"positions-{count}",
                what=f"{count} positions a document",
                changes={"train.positions_per_document": count},
            )
            for count in (1, 4)
        ]
        found += [
            Arm(name=f"prompt-{name}", what="another prompt", asked={"prompt.template": name})
            for name in ("minimal", "v6", "chat")
        ]
    return found


def _arm(name: str, what: str, **selection: Any) -> Arm:
    changes = {f"selection.{key}": value for key, value in selection.items()}
    return Arm(name=name, what=what, changes=changes)


def _groups(count: int, size: Size) -> Arm:
    if size.recipe:  # 8 rollouts there
        return Arm(
            name=f"group-{count}",
            what=f"{count} rollouts a position, at as many positions",
            changes={"train.group_size": count},
        )
    return Arm(
        name=f"group-{count}",
        what=f"{count} rollouts a position, at 256 / {count} positions: as many rollouts",
        changes={"train.group_size": count, "train.documents_per_step": 256 // count},
    )


def _thinking(tokens: int) -> Arm:
    return Arm(
        name=f"think-{tokens}",
        what=f"at most {tokens} free tokens of thought" if tokens else "no thought",
        asked={"prompt.think_budget": tokens} | ({} if tokens else {"evaluate.controls": []}),
    )


def _answer(outcome: Outcome) -> str:
    return in_words(with_baseline(outcome, outcome.compared, _BASE))


ABLATIONS = Experiment(
    name="ablations",
    question="Which of reinforcement's choices matter: algorithm, schedule, group size, positions,"
    " think budget, prompt?",
    setting="One start a seed, and from it reinforcement with one choice changed at a time, at the"
    " learning rate of the unchanged one. Group sizes share out the same number of rollouts. Think"
    " budget and prompt hold when the model is measured, too.",
    arms=_arms,
    baseline=_BASE,
    answer=_answer,
    limits=[
        "One choice at a time: what two changes do together is not seen.",
        "The learning rate suits GRPO; an algorithm that needs another one is judged by GRPO's.",
        "A laboratory's line has one position and no instruction, so positions a document and"
        " templates are asked on real text alone.",
    ],
)
