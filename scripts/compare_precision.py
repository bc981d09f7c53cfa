"""Compares learning in mixed precision with learning in float32, in the laboratory.

    openrpt lab scan --seeds 3
    python scripts/compare_precision.py runs/lab-scan

The thoughts of each seed's start are reinforced twice, in `SEED/precision`: with products in
float32 and in bfloat16. All else is the same, and what is there is not run again. Writes
`precision.json` in the folder and prints it as a table; docs/performance.md has it.
"""

import argparse
import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from openrpt.config.loading import with_overrides
from openrpt.engine.cpu import use_cpu
from openrpt.evaluation.next_token.stage import evaluate_model
from openrpt.evaluation.records import read_evaluation
from openrpt.experiments.answers.outcome import measured_values
from openrpt.experiments.lab.lab import Lab, LabSeed
from openrpt.json_files import write_sealed
from openrpt.runs.checkpoints import latest_checkpoint
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, existing_run, open_run
from openrpt.stages.score.score import score_corpus
from openrpt.stages.train import train

PRECISIONS = {"float32": "same", "bfloat16": "bfloat16"}
"""`model.compute_dtype` by the precision of the products."""
_LAST = 0.1
"""The share of the steps, the last ones, over which a metric is averaged."""


def main() -> None:
    """Runs what is missing at each seed, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a laboratory's folder, its starts trained")
    parser.add_argument("--world", default="scan", help="its world")
    given = parser.parse_args()
    use_cpu(1)
    lab = Lab(folder=given.folder, world=given.world, changes={"model.threads": 1})
    found: dict[str, list[dict[str, float]]] = {name: [] for name in PRECISIONS}
    starts = sorted(given.folder.glob("seed-*/text/pretrain-checkpoints"))
    for start in starts:
        seed = int(start.parts[-3].removeprefix("seed-"))
        for name in PRECISIONS:
            found[name].append(_measured(lab.at(seed), start, name, lab.opened.shown))
            print(f"seed {seed}, {name}: {found[name][-1]}", flush=True)
    result = {"world": given.world, "seeds": len(starts), "precisions": found}
    write_sealed(given.folder / "precision.json", result)
    _print_table(found)


def _measured(lab: LabSeed, start: Path, precision: str, shown: int) -> dict[str, float]:
    """Reinforces and evaluates what is missing, and returns what became of it."""
    model = latest_checkpoint(start)
    folder = str(lab.folder / "precision" / precision)
    changes = {"run": folder, "model.compute_dtype": PRECISIONS[precision]}
    run = _scored(open_run(with_overrides(lab.rpt(str(model)), changes)))
    train(run)
    evaluate_model(run, "trained", run.config, label="rpt")
    summary = read_evaluation(run.evaluation)["evaluations"]["rpt"]["summary"]
    right = measured_values(summary, shown)
    return {
        "reward": _last(run, "reward/mean"),
        "% right, depths shown": 100 * right["within"],
        "% right, beyond": 100 * right["beyond"],
        "policy/sampler_difference": _last(run, "policy/sampler_difference"),
    }


def _scored(run: Run) -> Run:
    if "score" not in run.standing():
        score_corpus(run.config, run.scored)
    return existing_run(run.path)


def _last(run: Run, metric: str) -> float:
    # A step whose groups are all flat runs no completion.
    values = [row[metric] for row in read_metrics(run.metrics) if metric in row]
    return fmean(values[-max(1, round(_LAST * len(values))) :])


def _print_table(found: dict[str, list[dict[str, Any]]]) -> None:
    seeds = len(found["float32"])
    print(f"\n{seeds} seeds; mean ± standard error, of the difference within seeds\n")
    print("| measure | float32 | bfloat16 | difference |")
    print("|---|---:|---:|---:|")
    for measure in found["float32"][0]:
        columns = [[one[measure] for one in found[name]] for name in PRECISIONS]
        differences = [mixed - exact for exact, mixed in zip(*columns, strict=True)]
        cells = [_mean(column) for column in (*columns, differences)]
        print(f"| {measure} | {' | '.join(cells)} |")


def _mean(values: list[float]) -> str:
    error = f" ± {stdev(values) / math.sqrt(len(values)):.3g}" if len(values) > 1 else ""
    return f"{fmean(values):.3g}{error}".replace("-", "−")


if __name__ == "__main__":
    main()
