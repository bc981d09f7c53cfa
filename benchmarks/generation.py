"""Generation alone: OpenRPT's document tree against transformers' `generate`, seconds a rollout.

    python benchmarks/generation.py

Same model, prompts (as ids), lengths, precision and threads, in one Python. See README.md for
what is measured and what it takes.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from case import Case, add_arguments, make_case
from common import RESULTS, environment, exit_cleanly, run_child, say, spread, write_result
from train_step import per_rollout, spread_indices

from openrpt.errors import UserError


def main() -> None:
    given = arguments()
    case = make_case(given)
    chosen = spread_indices(given.peer_prompts, len(case.prefix_lengths))
    started = environment()
    search = peer_run(case, chosen, given.batch_sizes)["steps"]
    for step in search:
        say(f"generate, batches of {step['batch_size']}: {rate(step):.3f} s a rollout")
    best = min(search, key=rate)["batch_size"]
    own, theirs = [], []
    for pair in range(1, given.pairs + 1):
        own.append(run_child(sys.executable, "openrpt_generate.py", case.job(steps=1)))
        theirs.append(peer_run(case, chosen, [best]))
        ours, other = per_rollout(own[-1]), per_rollout(theirs[-1])
        say(f"pair {pair} of {given.pairs}: {ours:.3f} and {other:.3f} s a rollout")
    result = started | {
        "case": case.facts(),
        "openrpt": {
            "seconds_a_rollout": spread([per_rollout(child) for child in own]),
            "share_of_matrix_product_rate": spread([share(child) for child in own]),
            "peak_memory_gib": max(child["peak_memory_gib"] for child in own),
        },
        "transformers": {
            "seconds_a_rollout": spread([per_rollout(child) for child in theirs]),
            "peak_memory_gib": max(child["peak_memory_gib"] for child in theirs),
            "prompts": chosen,
            "rollouts": theirs[0]["steps"][0]["rollouts"],
            "batch_size": best,
            "batch_size_search": search,
            "versions": theirs[0]["versions"],
        },
        "ratio": spread(
            [per_rollout(b) / per_rollout(a) for a, b in zip(own, theirs, strict=True)]
        ),
    }
    write_result(given.output, "generation", result)
    say(f"OpenRPT is {result['ratio']['median']:.1f} times faster a rollout")


def peer_run(case: Case, chosen: list[int], sizes: list[int]) -> dict[str, Any]:
    prompts = [case.prompts[i] for i in chosen]
    return run_child(
        sys.executable, "peer_generate.py", case.job(prompts=prompts, batch_sizes=sizes)
    )


def rate(step: dict[str, Any]) -> float:
    return step["seconds"] / step["rollouts"]


def share(child: dict[str, Any]) -> float:
    step = child["steps"][0]
    return step["flop"] / step["seconds"] / child["product_flop_per_second"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    add_arguments(parser)
    parser.add_argument("--peer-prompts", type=int, default=4, help="of the prompts, generate's")
    parser.add_argument("--pairs", type=int, default=3, help="OpenRPT, generate, OpenRPT, …")
    parser.add_argument("--batch-sizes", default="8,16,32", help="generate's; the fastest counts")
    parser.add_argument("--output", type=Path, default=RESULTS / "generation.json")
    given = parser.parse_args()
    given.batch_sizes = [int(size) for size in given.batch_sizes.split(",")]
    if not 2 <= given.peer_prompts <= given.positions or given.pairs < 1:
        raise UserError("--peer-prompts must be from 2 to --positions, --pairs at least 1")
    return given


if __name__ == "__main__":
    exit_cleanly(main)
