"""Runs the benchmarks one after another, the most telling first.

    python benchmarks/all.py --list             # what there is, with minutes
    python benchmarks/all.py                    # all of it, over two hours of an idle machine
    python benchmarks/all.py train generation   # these

One that fails is named, and the next runs. Results lie in `results/`; `table.py` prints them.
"""

import subprocess
import sys
from dataclasses import dataclass

from common import FOLDER, exit_cleanly, parser_of, say

from openrpt.errors import UserError

FEW = ("--brief", "--peer-prompts=2", "--peer-group-size=2")
"""TRL runs four rollouts: that its time is linear in them, the first benchmark shows."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    minutes: int
    script: str
    options: tuple[str, ...] = ()


BENCHMARKS = {
    "train": Benchmark(
        minutes=14,
        script="train_step.py",
        options=("--pairs=3", "--peer-prompts=2", "--micro-batches=4,8"),
    ),
    "train-mixed": Benchmark(
        minutes=14,
        script="train_step.py",
        options=(
            "--mixed",
            "--pairs=3",
            "--peer-prompts=2",
            "--micro-batches=4,8",
            "--output=train_step-mixed.json",
        ),
    ),
    "generation": Benchmark(minutes=11, script="generation.py"),
    "train-256": Benchmark(
        minutes=11,
        script="train_step.py",
        options=(
            "--new-tokens=256",
            "--positions=8",
            *FEW,
            "--micro-batches=2,4",
            "--pairs=3",
            "--output=train_step-tokens-256.json",
        ),
    ),
    "generation-256": Benchmark(
        minutes=15,
        script="generation.py",
        options=(
            "--new-tokens=256",
            "--pairs=2",
            "--batch-sizes=16",
            "--vllm=compiled",
            "--output=generation-tokens-256.json",
        ),
    ),
    "real-run": Benchmark(minutes=20, script="real_run.py"),
    "scoring": Benchmark(minutes=4, script="scoring.py"),
    "questions": Benchmark(minutes=3, script="questions.py"),
    "startup": Benchmark(minutes=2, script="startup.py"),
    "growth": Benchmark(minutes=12, script="growth.py"),
    "train-64": Benchmark(
        minutes=5,
        script="train_step.py",
        options=(
            "--new-tokens=64",
            *FEW,
            "--micro-batches=2,4",
            "--pairs=1",
            "--output=train_step-tokens-64.json",
        ),
    ),
    "window-256": Benchmark(
        minutes=4,
        script="train_step.py",
        options=(
            "--window=256",
            "--brief",
            "--peer-prompts=4",
            "--peer-group-size=2",
            "--micro-batches=4,8",
            "--pairs=1",
            "--output=train_step-window-256.json",
        ),
    ),
    "window-2048": Benchmark(
        minutes=9,
        script="train_step.py",
        options=(
            "--window=2048",
            *FEW,
            "--micro-batches=1,2",
            "--pairs=1",
            "--output=train_step-window-2048.json",
        ),
    ),
    "memory": Benchmark(minutes=8, script="memory.py"),
    "operators": Benchmark(minutes=3, script="operators.py"),
    "report": Benchmark(minutes=2, script="report.py"),
}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of --list; default: all")
    parser.add_argument("--list", action="store_true", help="print them and their minutes")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in BENCHMARKS]:
        raise UserError(f"no benchmark '{unknown[0]}'; see --list")
    chosen = {name: BENCHMARKS[name] for name in given.names or BENCHMARKS}
    if given.list:
        for name, one in chosen.items():
            print(f"{name:15} {one.minutes:3} min   python benchmarks/{' '.join(arguments(one))}")
        return
    failed = []
    for name, one in chosen.items():
        say(f"{name}, about {one.minutes} minutes")
        command = [sys.executable, str(FOLDER / one.script), *arguments(one)[1:]]
        if subprocess.run(command).returncode != 0:
            failed.append(name)
    if failed:
        raise UserError(f"failed: {', '.join(failed)}")


def arguments(one: Benchmark) -> list[str]:
    return [one.script, *one.options]


if __name__ == "__main__":
    exit_cleanly(main)
