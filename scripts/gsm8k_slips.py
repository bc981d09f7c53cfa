"""Where wrong predictions of computed numbers come from: `python scripts/gsm8k_slips.py runs/gsm8k
--from-step 101` writes the section of docs/results/gsm8k.md between its markers.

Read from the rollouts of training: of each wrong one, whether a line of its thought says a result
that is not the one of its operation, found by the calculator that makes the given thoughts.
"""

from argparse import ArgumentParser
from collections import Counter
from pathlib import Path

from marked import put

import openrpt
from openrpt.data.calculator.find import find_computed
from openrpt.runs.rollouts import rollout_folder, stored_steps
from openrpt.sheets import Sheet, markdown

PAGE = Path(__file__).parent.parent / "docs" / "results" / "gsm8k.md"
SLIP, NO_LINE, LINES_HOLD = (
    "a line whose result is not its operation's",
    "no line with an operation",
    "every line holds, the number is another",
)


def cause(thought: str) -> str:
    """Returns why the prediction behind a thought is wrong, as far as its lines say."""
    lines = [line for line in thought.splitlines() if "=" in line]
    if not lines:
        return NO_LINE
    return LINES_HOLD if all([*find_computed(line)] for line in lines) else SLIP


def operation(text: str) -> str:
    """Returns the operation that a text says the result of: its kind, `several`, or `in words`."""
    asked = next(iter(reversed([*find_computed(text)])), None)
    return "in words" if asked is None or asked.start < text.rfind("=") else asked.kind


def main() -> None:
    """Writes both tables of the run that is named on the command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--from-step", type=int, default=1)
    given = parser.parse_args()
    run = openrpt.load_run(given.run)
    steps = [n for n in stored_steps(rollout_folder(given.run)) if n >= given.from_step]
    causes: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    right: Counter[str] = Counter()
    unsure = 0
    for step in steps:
        for row in run.rollouts(step).to_pylist():
            thought = row["thought"].decode(errors="replace")
            truth = b"".join(row["continuation"]).decode(errors="replace")
            kind = operation(row["prefix_end"].decode(errors="replace").splitlines()[-1] + truth)
            seen[kind] += 1
            if row["exact"]:
                right[kind] += 1
                unsure += cause(thought) == SLIP
            else:
                causes[cause(thought)] += 1
    wrong = causes.total()
    by_cause = Sheet(
        title="",
        headings=["in the thought of a wrong prediction", "rollouts", "share"],
        labels=1,
        rows=[[name, f"{n:,}", f"{100 * n / wrong:.0f} %"] for name, n in causes.most_common()],
        notes=[
            f"{wrong:,} wrong ones of {seen.total():,} rollouts, steps {steps[0]} to {steps[-1]};"
            f" of the right ones {100 * unsure / right.total():.1f} % have a line that the"
            " calculator can't follow"
        ],
    )
    by_operation = Sheet(
        title="",
        headings=["what the text asks for", "rollouts", "right"],
        labels=1,
        rows=[[kind, f"{n:,}", f"{100 * right[kind] / n:.0f} %"] for kind, n in seen.most_common()],
        notes=[],
    )
    put(PAGE, "slips", f"\n{markdown(by_cause)}\n{markdown(by_operation)}")
    print(PAGE)


if __name__ == "__main__":
    main()
