"""What a demo found, as tables: at computed numbers, and everywhere."""

from openrpt.evaluation.next_token.results import EvaluationResult, paired_differences
from openrpt.evaluation.records import read_evaluation, result_path
from openrpt.evaluation.statistics import Difference
from openrpt.runs.run import Run
from openrpt.sheets import COST_HEADINGS, Sheet, cost_cells, points, share

EVERYWHERE = "everywhere"
"""The label of the trained model's evaluation at positions of all kinds."""
_GRADINGS = {
    "first token": ("first_token_ntp", "first_token"),
    "whole number": ("span_ntp", "span"),
}
"""Each with its columns of standard prediction and of reasoning."""
_ROWS = {
    "standard prediction, start model": ("start", 0),
    "standard prediction, trained model": ("trained", 0),
    "reasoning, given thoughts": ("warmup", 1),
    "reasoning, reinforced": ("trained", 1),
}
"""Each with its model, and which of a grading's columns it has."""
_AFTER = "reasoning, reinforced"
_AGAINST = ("standard prediction, trained model", "reasoning, given thoughts")
"""The rows from which reasoning after reinforcement is told apart."""


def demo_sheets(run: Run) -> list[Sheet]:
    """Returns the tables of a finished demo: what is right at computed numbers, by how much
    reasoning after reinforcement is ahead there, and what is right at positions of all kinds."""
    evaluations = read_evaluation(run.evaluation)["evaluations"]
    size = evaluations["trained"]["summary"]["span"]["all"]
    rows = []
    for title, (label, mode) in _ROWS.items():
        summary = evaluations[label]["summary"]
        shares = [share(summary[columns[mode]]["all"]) for columns in _GRADINGS.values()]
        rows.append([title, *shares, *cost_cells(evaluations[label]["cost"])])
    computed = Sheet(
        title=f"Right at {size['n']} computed numbers of {size['documents']} held-out documents, %",
        headings=["", *_GRADINGS, *COST_HEADINGS],
        rows=rows,
        notes=["± is the standard error by document"],
    )
    ahead = Sheet(
        title=f"{_AFTER}, minus: points [95 %], paired",
        headings=["", *_GRADINGS],
        rows=[
            [title, *(_points(_difference(run, title, grading)) for grading in _GRADINGS)]
            for title in _AGAINST
        ],
    )
    summary = evaluations[EVERYWHERE]["summary"]
    value = evaluations[EVERYWHERE]["thought_value"]
    everywhere = Sheet(
        title=f"Right at {summary['span']['all']['n']} positions of all kinds, trained model, %",
        headings=["", "standard prediction", "reasoning", "difference, points [95 %]"],
        rows=[
            [
                name,
                share(summary[standard]["all"]),
                share(summary[reasoning]["all"]),
                points(value[reasoning]["all"]),
            ]
            for name, (standard, reasoning) in {
                "first token": _GRADINGS["first token"],
                "whole word or number": _GRADINGS["whole number"],
            }.items()
        ],
    )
    return [computed, ahead, everywhere]


def verdict(run: Run) -> str:
    """Returns in a sentence whether the demo shows that thinking pays at computed numbers."""
    found = _difference(run, _AGAINST[0], "whole number")
    if not found.distinguishable:
        return (
            "At computed numbers reasoning can't be told apart from the same weights' standard"
            " prediction: a larger --budget trains longer."
        )
    more = "more" if found.value > 0 else "fewer"
    return (
        f"At computed numbers reasoning has {abs(100 * found.value):.0f} points {more} whole"
        " numbers right than the same weights' standard prediction."
    )


def _difference(run: Run, other: str, grading: str) -> Difference:
    """Returns reasoning after reinforcement − another row, paired by position."""
    columns = _GRADINGS[grading]
    a, b = (
        (EvaluationResult.load(result_path(run, label)), columns[mode])
        for label, mode in (_ROWS[_AFTER], _ROWS[other])
    )
    return paired_differences(*a, *b)["all"]


def _points(difference: Difference) -> str:
    text = points(difference.as_dict())
    return text if difference.distinguishable else f"{text}, not told apart"
