"""OpenRPT's peak memory over rollouts a position and positions: it should not grow.

    python benchmarks/memory.py

Each size runs one whole training step in a process of its own. Memory only: the machine may be
busy with other work.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from case import add_arguments, make_case
from common import RESULTS, environment, exit_cleanly, run_child, say, write_result


def main() -> None:
    given = arguments()
    case = make_case(given)
    result = environment() | {"case": case.facts(), "peaks": []}
    for group_size in given.group_sizes:
        sized = replace(case, group_size=group_size)
        say(f"{len(sized.prefix_lengths)} positions × {group_size} rollouts")
        # A brief first step, so that the optimizer's state is there when the real one runs.
        job = sized.job(steps=1, brief_warm_up=True)
        found = run_child(sys.executable, "openrpt_step.py", job)
        result["peaks"].append(
            {
                "positions": len(sized.prefix_lengths),
                "group_size": group_size,
                "rollouts": sized.rollouts,
                "peak_memory_gib": found["peak_memory_gib"],
            }
        )
        say(f"  peak {found['peak_memory_gib']:.2f} GiB")
    write_result(given.output, "memory", result)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    add_arguments(parser)
    parser.add_argument("--group-sizes", default="8,64", help="rollouts a position, each a run")
    parser.add_argument("--output", type=Path, default=RESULTS / "memory.json")
    given = parser.parse_args()
    given.group_sizes = [int(size) for size in given.group_sizes.split(",")]
    return given


if __name__ == "__main__":
    exit_cleanly(main)
