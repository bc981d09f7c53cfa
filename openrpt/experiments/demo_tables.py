"""What a demo found, as tables: at computed numbers, and everywhere."""

from collections.abc import Mapping
from typing import Any

from openrpt.evaluation.next_token.results import SIDES, EvaluationResult, paired_differences
from openrpt.evaluation.records import read_evaluation, result_path
from openrpt.runs.run import Run
from openrpt.sheets import COST_HEADINGS, Sheet, cost_cells, points, share

EVERYWHERE = "everywhere"
"""The label of the trained model's evaluation at positions of all kinds."""
_MEASURES = {"first token": "first_token", "whole number": "span"}
"""The table's words → the measure of reasoning; that of standard prediction is its side."""
_OWN = "standard prediction, trained model"
_GIVEN = "reasoning, given thoughts"
_AFTER = "reasoning, reinforced"
_CONTROL = "standard prediction, next-token training for as many FLOPs"
_ROWS = {
    "standard prediction, start model": ("start", False),
    _CONTROL: ("ntp-flops", False),
    _OWN: ("trained", False),
    _GIVEN: ("warmup", True),
    _AFTER: ("trained", True),
}
"""Each with its model, and whether that thinks; the control's is there once it was run."""


def demo_sheets(run: Run) -> list[Sheet]:
    """Returns the tables of a finished demo: what is right at computed numbers, by how much
    reasoning after reinforcement is ahead there, and what is right at positions of all kinds."""
    evaluations = read_evaluation(run.evaluation)["evaluations"]
    return [_computed(evaluations), _ahead(run, evaluations), _everywhere(evaluations[EVERYWHERE])]


def _computed(evaluations: Mapping[str, Any]) -> Sheet:
    size = evaluations["trained"]["summary"]["span"]["all"]
    rows = []
    for title, (label, thinks) in _ROWS.items():
        if label not in evaluations:
            continue
        summary = evaluations[label]["summary"]
        names = [name if thinks else SIDES[name] for name in _MEASURES.values()]
        shares = [share(summary[name]["all"]) for name in names]
        rows.append([title, *shares, *cost_cells(evaluations[label]["cost"])])
    return Sheet(
        title=f"Right at {size['n']} computed numbers of {size['documents']} held-out documents, %",
        headings=["", *_MEASURES, *COST_HEADINGS],
        rows=rows,
        notes=["± is the standard error by document"],
    )


def _ahead(run: Run, evaluations: Mapping[str, Any]) -> Sheet:
    after = EvaluationResult.load(result_path(run, _ROWS[_AFTER][0]))
    rows = []
    for title in (_OWN, _CONTROL, _GIVEN):
        label, thinks = _ROWS[title]
        if label not in evaluations:
            continue
        other = EvaluationResult.load(result_path(run, label))
        found = [
            paired_differences(after, name, other, name if thinks else SIDES[name])["all"]
            for name in _MEASURES.values()
        ]
        rows.append([title, *(difference_cell(one.as_dict()) for one in found)])
    return Sheet(
        title=f"{_AFTER}, minus: points [95 %], paired", headings=["", *_MEASURES], rows=rows
    )


def _everywhere(evaluation: Mapping[str, Any]) -> Sheet:
    summary, value = evaluation["summary"], evaluation["thought_value"]
    rows = [
        [
            title,
            share(summary[SIDES[name]]["all"]),
            share(summary[name]["all"]),
            points(value[name]["all"]),
        ]
        for title, name in {"first token": "first_token", "whole word or number": "span"}.items()
    ]
    return Sheet(
        title=f"Right at {summary['span']['all']['n']} positions of all kinds, trained model, %",
        headings=["", "standard prediction", "reasoning", "difference, points [95 %]"],
        rows=rows,
    )


def verdict(run: Run) -> str:
    """Returns in a sentence whether the demo shows that thinking pays at computed numbers."""
    trained = read_evaluation(run.evaluation)["evaluations"]["trained"]
    found = trained["thought_value"]["span"]["all"]
    if not found["distinguishable"]:
        return (
            "At computed numbers reasoning can't be told apart from the same weights' standard"
            " prediction: a larger --budget trains longer."
        )
    more = "more" if found["value"] > 0 else "fewer"
    return (
        f"At computed numbers reasoning has {abs(100 * found['value']):.0f} points {more} whole"
        " numbers right than the same weights' standard prediction."
    )


def difference_cell(difference: Mapping[str, Any]) -> str:
    """Returns `+1.2 [−1.0, +3.4]`, and whether it can be told from none.

    >>> difference_cell({"value": 0.012, "low": -0.01, "high": 0.034, "distinguishable": False})
    '+1.2 [−1.0, +3.4], not distinguishable'
    """
    return points(difference) + ("" if difference["distinguishable"] else ", not distinguishable")
