"""Where wrong predictions of computed numbers come from: `python scripts/gsm8k_slips.py runs/gsm8k
--from-step 101` writes the section of docs/results/gsm8k.md between its markers.

Read from the rollouts of training: of each wrong one, whether a line of its thought says a result
that is not the one of its operation, found by the calculator that makes the given thoughts.
"""

from argparse import ArgumentParser
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


def operation(before: str, truth: str) -> str:
    """Returns the operation whose result comes next in the text: its kind, `several`, or `further
    up` where the line before does not hold it."""
    text, place = before + truth, len(before.encode())
    number = next((one for one in find_computed(text) if one.end > place), None)
    if number is None or b"=" in text.encode()[place : number.start]:
        return "further up"
    return number.kind


@dataclass(kw_only=True)
class Counts:
    """What is counted of rollouts."""

    seen: Counter[str] = field(default_factory=Counter)
    """The rollouts by operation."""
    right: Counter[str] = field(default_factory=Counter)
    """The right ones among them."""
    causes: Counter[str] = field(default_factory=Counter)
    """The wrong ones by cause."""
    unfollowed: int = 0
    """The right ones with a line that the calculator can't follow."""

    def add(self, row: dict[str, Any]) -> None:
        """Counts a rollout."""
        why = cause(row["thought"].decode(errors="replace"))
        line = row["prefix_end"].decode(errors="replace").rpartition("\n")[2]
        kind = operation(line, b"".join(row["continuation"]).decode(errors="replace"))
        self.seen[kind] += 1
        if row["exact"]:
            self.right[kind] += 1
            self.unfollowed += why == SLIP
        else:
            self.causes[why] += 1

    def tables(self, steps: str) -> str:
        """Returns the causes and the operations as Markdown; `steps` says where they are from."""
        wrong = self.causes.total()
        by_cause = Sheet(
            title="",
            headings=["in the thought of a wrong prediction", "rollouts", "share"],
            labels=1,
            rows=[
                [name, f"{n:,}", f"{100 * n / wrong:.0f} %"]
                for name, n in self.causes.most_common()
            ],
            notes=[
                f"{wrong:,} wrong ones of {self.seen.total():,} rollouts, {steps}; of the right"
                f" ones {100 * self.unfollowed / self.right.total():.1f} % have a line that the"
                " calculator can't follow"
            ],
        )
        by_operation = Sheet(
            title="",
            headings=["what the text asks for", "rollouts", "right"],
            labels=1,
            rows=[
                [kind, f"{n:,}", f"{100 * self.right[kind] / n:.0f} %"]
                for kind, n in self.seen.most_common()
            ],
            notes=[],
        )
        return f"\n{markdown(by_cause)}\n{markdown(by_operation)}"


def main() -> None:
    """Writes both tables of the run that is named on the command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--from-step", type=int, default=1)
    given = parser.parse_args()
    run, counts = openrpt.load_run(given.run), Counts()
    steps = [n for n in stored_steps(rollout_folder(given.run)) if n >= given.from_step]
    for step in steps:
        for row in run.rollouts(step).to_pylist():
            counts.add(row)
    put(PAGE, "slips", counts.tables(f"steps {steps[0]} to {steps[-1]}"))
    print(PAGE)


if __name__ == "__main__":
    main()
