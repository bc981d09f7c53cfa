"""The page of an experiment: its question, what was run, what was found, and what that means."""

import math
from collections import Counter

from openrpt import amounts
from openrpt.experiments.answers.comparing import with_baseline
from openrpt.experiments.answers.experiment import Experiment
from openrpt.experiments.answers.outcome import MEASURES, OF_TOKENS, Outcome
from openrpt.experiments.over_seeds import mean_over_seeds
from openrpt.sheets import NOTHING, Sheet, markdown

_GRADES = (
    "right: the prediction is the text's beginning up to the end of a token (prefix match), which"
    " the first digit of a number is, too; whole: all of the number or word; tokens right: how many"
    " tokens of the text a right prediction covers; standard: without a thought"
)
_FLOPS = "FLOPs: of the arm's own training, without what it goes on from"


def page_text(experiment: Experiment, outcome: Outcome, *, figure: str = "figure.svg") -> str:
    """Returns the page as markdown. `figure`: where its figure lies."""
    on_text = bool(outcome.size.recipe)
    parts = [
        f"# {experiment.name}{f', {outcome.budget}' if on_text else ''}",
        f"**{experiment.question}**",
        experiment.answer(outcome),
        "## What was run",
        (on_text and experiment.text_setting) or experiment.setting,
        "\n".join(f"- {name}: {value}" for name, value in outcome.setting.items()),
        markdown(_arms_sheet(outcome)),
        "## What was found",
        *map(markdown, result_sheets(experiment, outcome)),
        f"![{experiment.name}: {MEASURES[outcome.compared]} by arm]({figure})",
        "## What it does not mean",
        "\n".join(f"- {line}" for line in _limits(experiment, outcome)),
        "## How to run it, and what it took",
        _cost(outcome),
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def result_sheets(experiment: Experiment, outcome: Outcome) -> list[Sheet]:
    """Returns the tables: every arm's measures, the differences, and the experiment's own."""
    found = [_measures_sheet(experiment, outcome), _differences_sheet(experiment, outcome)]
    return [*found, *experiment.sheets(outcome), *_warnings_sheets(outcome)]


def _arms_sheet(outcome: Outcome) -> Sheet:
    rows = [[arm.name, arm.origin or NOTHING, arm.what] for arm in outcome.arms]
    return Sheet(title="", headings=["arm", "goes on from", "what it does"], rows=rows, labels=3)


def _measures_sheet(experiment: Experiment, outcome: Outcome) -> Sheet:
    shown, rows = _shown(experiment, outcome), []
    for arm in (arm.name for arm in outcome.arms if outcome.of(arm.name)):
        values = [[v for v in outcome.values(arm, name) if not math.isnan(v)] for name in shown]
        flops = amounts.flops(outcome.mean(arm, "flops"))
        rows.append([arm, *map(mean_over_seeds, values), flops])
    return Sheet(
        title=f"{seeds_in_words(outcome)}: mean ± standard error over seeds",
        headings=["arm", *(MEASURES[name] for name in shown), "FLOPs"],
        rows=rows,
        notes=[*([_GRADES] if "span" in shown else []), _FLOPS],
    )


def _shown(experiment: Experiment, outcome: Outcome) -> list[str]:
    """Returns the measures that an arm has: what arms are compared by and the other ways to grade
    an answer first."""
    first, *more = experiment.measures
    names = dict.fromkeys([outcome.compared, first, *OF_TOKENS, *more])
    return [name for name in names if any(outcome.has(arm.name, name) for arm in outcome.arms)]


def _differences_sheet(experiment: Experiment, outcome: Outcome) -> Sheet:
    measures = [name for name in _shown(experiment, outcome)[:3] if name != "standard"]
    found = {name: with_baseline(outcome, name, experiment.baseline) for name in measures}
    found = {name: comparisons for name, comparisons in found.items() if comparisons}
    arms = [one.arm for one in next(iter(found.values()), [])]
    rows = []
    for arm in arms:
        own = [next((o for o in of if o.arm == arm), None) for of in found.values()]
        cells = [NOTHING if one is None else f"{one.text}{_p(one.p)}" for one in own]
        rows.append([arm, *cells])
    return Sheet(
        title=f"the arm − {experiment.baseline}, points, paired by seed",
        headings=["arm", *(MEASURES[name] for name in found)],
        rows=rows,
        notes=["95 % by Student's t over seeds; p after Holm's correction within a column"],
    )


def _p(p: float) -> str:
    if math.isnan(p):
        return ""
    return " (p < 0.001)" if p < 0.001 else f" (p = {p:.3f})"


def _warnings_sheets(outcome: Outcome) -> list[Sheet]:
    """Returns the failure signatures that training said, if any."""
    rows = []
    for arm in outcome.arms:
        said = [
            warning.partition(" ")[0] for one in outcome.of(arm.name) for warning in one.warnings
        ]
        if said:
            told = ", ".join(f"{name} in {n}" for name, n in Counter(said).items())
            rows.append([arm.name, told])
    if not rows:
        return []
    return [
        Sheet(
            title=f"warnings while training, in so many of {seeds_in_words(outcome)}",
            headings=["arm", "warnings"],
            rows=rows,
            labels=2,
        )
    ]


def seeds_in_words(outcome: Outcome) -> str:
    """Returns `3 seeds`, or `3 of 5 seeds` before the budget's are all there."""
    count = len(outcome.seeds)
    if count < outcome.planned:
        return f"{count} of {outcome.planned} seeds"
    return f"{count} seed{'s' if count > 1 else ''}"


def _limits(experiment: Experiment, outcome: Outcome) -> list[str]:
    found = list(experiment.limits)
    if not outcome.size.recipe:
        found += experiment.lab_limits
    if len(outcome.seeds) < outcome.planned:
        found.append(f"The budget has {outcome.planned} seeds; {len(outcome.seeds)} are done.")
    return [*found, *outcome.size.limits]


def _cost(outcome: Outcome) -> str:
    measured = outcome.measured
    seconds, flops, joules = (
        sum(getattr(one, name) for one in measured) for name in ("seconds", "flops", "joules")
    )
    made = outcome.environment
    lines = [
        "```",
        f"openrpt experiment {outcome.experiment} --budget {outcome.budget}",
        "```",
        f"{seeds_in_words(outcome)} took {amounts.duration(seconds)} of training steps,"
        f" {amounts.flops(flops)} FLOPs and about {amounts.energy(joules)};"
        " scoring and evaluation are not in it, and the machine may have had other work.",
        f"Written {made['date']} by OpenRPT {made['openrpt']}"
        + (f", commit {made['commit']}" if made["commit"] else "")
        + f"; torch {made['torch']}, {made['cpus']} CPUs.",
    ]
    return "\n".join(lines[:3]) + "\n\n" + " ".join(lines[3:])
