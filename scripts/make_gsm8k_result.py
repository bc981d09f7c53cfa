"""The table of docs/results/gsm8k.md, and gsm8k.json beside it:
`python scripts/make_gsm8k_result.py runs/gsm8k`.

All of it is read from the run folder, after the commands on that page: what was evaluated on
held-out positions, under any label (`openrpt evaluate MODEL --label LABEL`), controls included.
"""

import sys
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

from marked import put

from openrpt.amounts import flops
from openrpt.evaluation.next_token.results import SIDES, EvaluationResult, paired_differences
from openrpt.evaluation.records import read_evaluation, result_path
from openrpt.json_files import write_sealed
from openrpt.runs.run import Run, existing_run
from openrpt.sheets import Sheet, markdown, points, share

PAGE = Path(__file__).parent.parent / "docs" / "results" / "gsm8k.md"
GRADINGS = {"first token": "first_token", "whole number": "span", "prefix match": "reasoning"}
"""The table's words → the measure of reasoning; that of standard prediction is its side."""
LEVELS = (("all", "all"), ("easy", "above 0.5 nats"))


def rows_of(label: str, evaluation: dict[str, Any]) -> list[list[str]]:
    """Returns a row a grading and level: n, standard prediction, reasoning, their difference."""
    summary, value = evaluation["summary"], evaluation["thought_value"]
    return [
        [
            label,
            flops(evaluation["cost"]["flops"]),
            grading,
            name,
            f"{standard[level]['n']} ({standard[level]['documents']})",
            share(standard[level]),
            share(summary[measure][level]) if value else "–",
            points(value[measure][level]) if value else "–",
        ]
        for grading, measure in GRADINGS.items()
        for standard in [summary[SIDES[measure]]]
        for level, name in LEVELS
    ]


def numbers_of(label: str, evaluation: dict[str, Any]) -> dict[str, Any]:
    """Returns what is kept of an evaluation: its training FLOPs, and each measure at each level."""
    measures = {name for measure in GRADINGS.values() for name in (measure, SIDES[measure])}
    return {
        "model": label,
        "flops": evaluation["cost"]["flops"],
        "measures": {
            name: {level: evaluation["summary"][name][level] for level, _ in LEVELS}
            for name in sorted(measures & set(evaluation["summary"]))
        },
    }


def differences(run: Run, thinking: Sequence[str], plain: Sequence[str]) -> Sheet:
    """Returns how the reasoning of each thinking model stands to that of those before it, and to
    the standard prediction of the plain ones. Paired by position."""
    results = {label: EvaluationResult.load(result_path(run, label)) for label in thinking}
    results |= {label: EvaluationResult.load(result_path(run, label)) for label in plain}
    pairs = [(b, a) for a, b in combinations(thinking, 2)] + list(product(thinking, plain))
    rows = []
    for a, b in pairs:
        found = [
            paired_differences(results[a], own, results[b], own if b in thinking else SIDES[own])
            for own in ("first_token", "span")
        ]
        other = f"{b}, {'reasoning' if b in thinking else 'standard prediction'}"
        rows.append([f"{a}, reasoning", other, *(points(one["all"].as_dict()) for one in found)])
    headings = ["model", "against", "first token, points [95 %]", "whole number, points [95 %]"]
    return Sheet(title="", headings=headings, labels=2, rows=rows, notes=[])


def main() -> None:
    """Writes the table and the numbers of the run that is named on the command line."""
    run = existing_run(Path(sys.argv[1]))
    evaluations = read_evaluation(run.evaluation)["evaluations"]
    heldout = {label: found for label, found in evaluations.items() if found["split"] == "heldout"}
    ordered = sorted(
        heldout.items(), key=lambda item: (not item[1]["thought_value"], item[1]["cost"]["flops"])
    )
    headings = [
        "model",
        "training FLOPs",
        "right by",
        "positions",
        "n (documents)",
        "its own standard prediction",
    ]
    sheet = Sheet(
        title="",
        headings=[*headings, "reasoning", "difference, points [95 %]"],
        labels=4,
        rows=[row for label, found in ordered for row in rows_of(label, found)],
        notes=["± is the standard error by document"],
    )
    thinking = [label for label, found in ordered if found["thought_value"]]
    plain = [label for label, found in ordered if not found["thought_value"]]
    against = differences(run, thinking, plain)
    put(PAGE, "gsm8k", f"\n{markdown(sheet)}\n{markdown(against)}")
    numbers = [numbers_of(label, found) for label, found in ordered]
    write_sealed(PAGE.with_suffix(".json"), {"format": 1, "models": numbers})
    print(PAGE)


if __name__ == "__main__":
    main()
