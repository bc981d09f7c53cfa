"""The tables of docs/results/demo.md: `python scripts/make_demo_table.py runs/demo`.

Everything in them is read from the run folder that `openrpt demo` left.
"""

import json
import sys
from pathlib import Path

from marked import put

from openrpt.experiments.demo_tables import demo_sheets, verdict
from openrpt.runs.run import Run, existing_run
from openrpt.sheets import markdown

PAGE = Path(__file__).parent.parent / "docs" / "results" / "demo.md"


def demo_table(run: Run) -> str:
    """The markdown between the page's marks."""
    tables = map(markdown, demo_sheets(run))
    return "\n".join(["", *tables, verdict(run), "", cost(run.path), ""])


def cost(run: Path) -> str:
    """Time, memory and steps of the demo, in a sentence."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = {name: sum(row["stage"] == name for row in rows) for name in ("warmup", "train")}
    machine = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    minutes = json.loads((run / "demo.json").read_text(encoding="utf-8"))["seconds"] / 60
    peak = max(row["memory/peak_gib"] for row in rows)
    return (
        f"Cost: {minutes:.1f} minutes from the first stage to the report on {machine['threads']}"
        f" threads of an x86 server, {peak:.1f} GiB of memory at most; {steps['warmup']} steps of"
        f" warmup and {steps['train']} of reinforcement."
    )


def main() -> None:
    """Puts the tables of the run named on the command line into the page."""
    put(PAGE, "demo-table", demo_table(existing_run(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
