"""The README's table of a demo: `python scripts/make_demo_table.py runs/demo` puts it there.

Everything in it is read from the run folder that `openrpt demo` left.
"""

import json
import sys
from pathlib import Path
from typing import Any

from marked import put

from openrpt.sheets import Sheet, markdown, points, share

ROOT = Path(__file__).parent.parent
LEVELS = ("easy", "medium", "hard")
ROWS = (
    ("standard NTP, start model", "start", "ntp"),
    ("standard NTP, trained model", "trained", "ntp"),
    ("reasoning, untrained", "start", "reasoning"),
    ("reasoning, after warmup", "warmup", "reasoning"),
    ("reasoning, after RPT", "trained", "reasoning"),
)
DIFFERENCES = (
    ("RPT − warmup", "warmup", "reasoning"),
    ("RPT − the trained model's own NTP", "trained", "ntp"),
    ("RPT − the start model's NTP", "start", "ntp"),
)


def demo_table(run: Path) -> str:
    """The markdown between the README's marks."""
    found = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    evaluations, differences = found["evaluations"], found["differences"]
    sizes = evaluations["trained"]["summary"]["reasoning"]
    rows = [
        [name, *(share(evaluations[label]["summary"][mode][level]) for level in LEVELS)]
        for name, label, mode in ROWS
    ]
    for name, label, mode in DIFFERENCES:
        other = {"label": label, "mode": mode}
        of = {"label": "trained", "mode": "reasoning"}
        (pair,) = (d for d in differences if d["a"] == of and d["b"] == other)
        rows.append([f"*{name}*", *(difference(pair["difference"][level]) for level in LEVELS)])
    sheet = Sheet(
        title="",
        headings=["", *(f"{level} (n = {sizes[level]['n']})" for level in LEVELS)],
        rows=rows,
        notes=[cost(run)],
    )
    opening = (
        "What `openrpt demo` printed (SmolLM2-135M-Instruct, positions of"
        f" {sizes['easy']['documents']} held-out CHAMP problems; next-token accuracy in % on"
        " positions above 0.5 / 1.0 / 1.5 nats, ± standard error by document):"
    )
    return f"\n{opening}\n\n{markdown(sheet)}"


def difference(estimate: dict[str, Any]) -> str:
    """`+1.2 [−1.0, +3.4]`, and whether it can be told from none."""
    return points(estimate) + ("" if estimate["distinguishable"] else ", not distinguishable")


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
        f" warmup and {steps['train']} of reinforcement. Read it so: almost all of what reasoning"
        " gains is form; no gain of thinking over standard prediction of the same weights is shown."
    )


def main() -> None:
    """Puts the table of the run named on the command line into the README."""
    put(ROOT / "README.md", "demo-table", demo_table(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
