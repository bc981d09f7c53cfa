"""OpenRPT's peak memory over positions and over rollouts a position: it should not grow.

    python benchmarks/memory.py

Each size runs one whole training step in a process of its own. Memory only: the machine may be
busy with other work.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from case import Case, add_arguments, make_case
from common import environment, exit_cleanly, parser_of, run_child, say, write_result
from train_step import spread_indices

from openrpt.errors import UserError


def main() -> None:
    given = arguments()
    case = make_case(given)
    result = environment() | {"case": case.facts(), "peaks": []}
    for positions, group_size in given.sizes:
        sized = of_size(case, positions, group_size)
        say(f"{positions} positions × {group_size} rollouts")
        # A brief first step, so that the optimizer's state is there when the real one runs.
        job = sized.job(steps=1, brief_warm_up=True, measure_rates=False)
        found = run_child(sys.executable, "openrpt_step.py", job)
        result["peaks"].append(
            {
                "positions": positions,
                "group_size": group_size,
                "rollouts": sized.rollouts,
                "peak_memory_gib": found["peak_memory_gib"],
            }
        )
        say(f"  peak {found['peak_memory_gib']:.2f} GiB")
    write_result(given.output, "memory", result)


def of_size(case: Case, positions: int, group_size: int) -> Case:
    """The same window: its last prefix is always there."""
    lengths = case.prefix_lengths
    kept = [lengths[-1]]
    if positions > 1:
        kept = [lengths[i] for i in spread_indices(positions - 1, len(lengths) - 1)] + kept
    return replace(case, prefix_lengths=kept, group_size=group_size)


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add_arguments(parser)
    parser.add_argument(
        "--sizes", default="1x8,1x64,16x8,16x64", help="positions x rollouts a position, each a run"
    )
    parser.add_argument("--output", type=Path, default=Path("memory.json"))
    given = parser.parse_args()
    try:
        given.sizes = [tuple(map(int, size.split("x"))) for size in given.sizes.split(",")]
        given.positions = max(2, max(positions for positions, _ in given.sizes))
    except ValueError:
        raise UserError(f"--sizes {given.sizes}: give them as 1x8,16x64") from None
    return given


if __name__ == "__main__":
    exit_cleanly(main)
