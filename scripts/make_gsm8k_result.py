"""The table of docs/results/gsm8k.md: `python scripts/make_gsm8k_result.py runs/gsm8k`.

All of it is read from the run folder, after `openrpt evaluate warmup trained` and
`openrpt evaluate start --evaluate.modes ntp`: held-out positions.
"""

import sys
from pathlib import Path
from typing import Any

from marked import put

from openrpt.amounts import flops
from openrpt.evaluation.records import read_evaluation
from openrpt.runs.run import existing_run
from openrpt.sheets import Sheet, markdown, points, share

PAGE = Path(__file__).parent.parent / "docs" / "results" / "gsm8k.md"
GRADINGS = (
    ("first token", "first_token_ntp", "first_token"),
    ("whole number", "span_ntp", "span"),
    ("prefix match", "ntp", "reasoning"),
)
"""Each with its measures of standard prediction and of reasoning."""
LEVELS = (("all", "all"), ("easy", "above 0.5 nats"))
ROLES = ("start", "warmup", "trained")


def rows_of(label: str, evaluation: dict[str, Any]) -> list[list[str]]:
    """Returns a row a grading and level: n, standard prediction, reasoning, their difference."""
    summary, value = evaluation["summary"], evaluation["thought_value"]
    return [
        [
            label,
            grading,
            name,
            f"{summary[ntp][level]['n']} ({summary[ntp][level]['documents']})",
            share(summary[ntp][level]),
            share(summary[reasoning][level]) if value else "–",
            points(value[reasoning][level]) if value else "–",
        ]
        for grading, ntp, reasoning in GRADINGS
        for level, name in LEVELS
    ]


def main() -> None:
    """Writes the table of the run that is named on the command line."""
    evaluations = read_evaluation(existing_run(Path(sys.argv[1])).evaluation)["evaluations"]
    heldout = {
        label.partition("-")[0]: found
        for label, found in evaluations.items()
        if found["split"] == "heldout"
    }
    rows = [row for name in ROLES for row in rows_of(name, heldout[name])]
    spent = [f"{name} {flops(heldout[name]['cost']['flops'])}" for name in ROLES[1:]]
    headings = ["model", "right by", "positions", "n (documents)", "its own standard prediction"]
    sheet = Sheet(
        title="",
        headings=[*headings, "reasoning", "difference, points [95 %]"],
        labels=3,
        rows=rows,
        notes=[
            "± is the standard error by document; training FLOPs: " + ", ".join(spent),
        ],
    )
    put(PAGE, "gsm8k", f"\n{markdown(sheet)}")
    print(PAGE)


if __name__ == "__main__":
    main()
