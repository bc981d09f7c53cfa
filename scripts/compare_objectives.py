"""Compares objectives of reinforcement in the laboratory: the same start and steps, one thing
changed.

    openrpt lab scan --seeds 3
    python scripts/compare_objectives.py runs/lab-scan

Each objective is a run in `SEED/rpt/controls/NAME` that goes on from the seed's start; what is
there is not run again. Prints a table as Markdown, and writes `objectives.json` in the folder.
"""

import argparse
import json
import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from openrpt.engine.cpu import use_cpu
from openrpt.evaluation.next_token.results import KIND
from openrpt.evaluation.records import read_evaluation
from openrpt.experiments.control import Control
from openrpt.experiments.controls import run_control
from openrpt.json_files import write_sealed
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, existing_run

_EXACT: dict[str, Any] = {"train.answer_gradient": "exact", "train.algorithm": "dr_grpo"}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "dr_grpo": {"train.algorithm": "dr_grpo"},
    "maxrl": {"train.algorithm": "maxrl"},
    "live-denominator": {"train.denominator": "live"},
    "positives-half": {"train.positive_weight": 0.5},
    "expected": {"reward.terms": {"expected": 1.0}, **_EXACT},
    "expected-sampled": {"reward.terms": {"expected": 1.0, "prefix": 1.0}},
    "log-expected": {"reward.terms": {"log_expected": 1.0}, **_EXACT},
    "pass-rate-band": {"selection.strategy": "pass_rate"},
    "plain-loss": {"train.ntp_weight": 0.5},
    "plain-loss-separate-states": {"train.ntp_weight": 0.5, "train.adam_states": "separate"},
}
"""What each objective changes of the laboratory's own (GRPO, prefix match, no plain loss)."""


def main() -> None:
    """Runs what is missing of each objective at each seed, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a laboratory's folder, its seeds finished")
    parser.add_argument("--only", nargs="*", default=list(OBJECTIVES), choices=list(OBJECTIVES))
    arguments = parser.parse_args()
    use_cpu(1)
    runs = [existing_run(path) for path in sorted(arguments.folder.glob("seed-*/rpt"))]
    shown = json.loads((arguments.folder / "lab.json").read_text())["shown"]
    for run in runs:
        for name in arguments.only:
            control = Control(question=name, stage="train", changes=OBJECTIVES[name])
            run_control(run, control, f"objective-{name}", run.config)
    rows = [_row("grpo", runs, "rpt", shown)]
    rows += [_row(name, runs, f"objective-{name}", shown) for name in arguments.only]
    write_sealed(arguments.folder / "objectives.json", {"seeds": len(runs), "objectives": rows})
    print(f"{len(runs)} seeds; % right, mean ± standard error over seeds\n")
    print("| objective | depths shown | beyond | − grpo beyond | reinforcement, 10^9 FLOPs |")
    print("|---|---:|---:|---:|---:|")
    for row in rows:
        ahead = [a - b for a, b in zip(row["beyond"], rows[0]["beyond"], strict=True)]
        cells = [_mean(row["within"]), _mean(row["beyond"])]
        cells.append(_mean(ahead, "+") if any(ahead) else "–")
        print(f"| {row['name']} | {' | '.join(cells)} | {fmean(row['flops']) / 1e9:.0f} |")


def _row(name: str, runs: list[Run], label: str, shown: int) -> dict[str, Any]:
    found = [_accuracies(run, label, shown) for run in runs]
    folders = [run.path if label == "rpt" else run.path / "controls" / label for run in runs]
    flops = [
        sum(r["flops/generate"] + r["flops/update"] for r in read_metrics(existing_run(f).metrics))
        for f in folders
    ]
    within, beyond = ([one[side] for one in found] for side in (0, 1))
    return {"name": name, "within": within, "beyond": beyond, "flops": flops}


def _accuracies(run: Run, label: str, shown: int) -> tuple[float, float]:
    """Returns % right at the depths that worked lines show, and beyond."""
    parts = read_evaluation(run.evaluation)["evaluations"][label]["summary"]["reasoning"]
    sides = []
    for inside in (True, False):
        cells = [
            (part["value"], part["n"])
            for name, part in parts.items()
            if name.startswith(KIND) and (int(name.removeprefix(KIND)) <= shown) is inside
        ]
        total = sum(n for _, n in cells)
        sides.append(100 * sum(value * n for value, n in cells) / total)
    return sides[0], sides[1]


def _mean(values: list[float], sign: str = "") -> str:
    error = f" ± {stdev(values) / math.sqrt(len(values)):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):{sign}.1f}{error}".replace("-", "−")


if __name__ == "__main__":
    main()
