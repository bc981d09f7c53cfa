"""General text against maths: what happens where most positions can't be thought about?"""

from collections.abc import Mapping, Sequence
from typing import Any

from openrpt.experiments.answers.comparing import in_words, with_baseline
from openrpt.experiments.answers.experiment import Arm, Experiment, Size
from openrpt.experiments.answers.outcome import Outcome

_BASE = "answers"
_TEXT = {
    "corpus.path": "datasets:Salesforce/wikitext:wikitext-103-raw-v1",
    "corpus.template": "{text}",
}


def _arm(name: str, what: str, size: Size, changes: Mapping[str, Any]) -> Arm:
    """Returns an arm at all positions: in a laboratory a line's cells, which are drawn at random,
    too; on real text those of general text."""
    everywhere = {} if size.recipe else {"prompt.min_context": 1, "selection.curriculum": 0}
    return Arm(name=name, what=what, changes={**everywhere, **changes}, text=_TEXT)


def _arms(size: Size) -> Sequence[Arm]:
    answers = {} if size.recipe else {"selection.curriculum": 0}
    entropy = {"selection.strategy": "entropy", "selection.min_entropy": 0.5}
    band = {"selection.strategy": "pass_rate"}
    dynamic = {**entropy, "train.dynamic_sampling_from": 0}
    return [
        Arm(name=_BASE, what="at answers alone (maths on real text)", changes=answers),
        _arm("random", "at any position", size, {"selection.strategy": "random"}),
        _arm("entropy", "where entropy is above 0.5 nats: the paper's rule", size, entropy),
        _arm("band", "where the pass rate is from 0.05 to 0.95", size, band),
        _arm("dynamic", "as entropy, and flat groups are replaced by others", size, dynamic),
    ]


def _answer(outcome: Outcome) -> str:
    return in_words(with_baseline(outcome, outcome.compared, _BASE))


GENERAL = Experiment(
    name="general",
    question="What becomes of reinforcement on general text, most of whose uncertain positions no"
    " thought can decide; does entropy selection collapse, and does a pass-rate band save it?",
    setting="In a laboratory a line's cells are drawn at random: uncertain, and nothing to think"
    " about, as most of general text. At its answers a thought decides. Reinforcement at answers"
    " alone stands for maths; the other arms choose among all positions of the line, by the same"
    " number of rollouts. All are measured at answers.",
    arms=_arms,
    baseline=_BASE,
    measures=("accuracy", "within", "beyond", "reward", "flat", "entropy"),
    answer=_answer,
    limits=[
        "The start has never boxed a cell, so at first a reward is 0 there, not chance.",
        "Cells are pure noise; general text is not: knowledge decides there what thought does not.",
        "A pass rate is a position's own. Here each is seen once, so the band goes by the scorer's"
        " probability of the truth.",
        "No curriculum in any arm, since a depth is never mastered where its cells are noise.",
    ],
)
