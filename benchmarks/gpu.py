"""On a GPU: first that the engine is right there, and which attention is faster; then a training
step against TRL with vLLM in its process, and generation alone against vLLM. One table, in less
than eight minutes.

    python benchmarks/gpu.py --peer-python PATH
    python benchmarks/gpu.py --device cpu --smoke     # its own plumbing, without a GPU and peers

PATH is a Python with TRL and vLLM for this GPU; without it only OpenRPT is timed. No run on a GPU
has been recorded yet: see docs/performance.md.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from case import add_arguments, make_case
from common import (
    FOLDER,
    ChildFailed,
    environment,
    exit_cleanly,
    parser_of,
    per_rollout,
    run_child,
    say,
    spread,
    write_result,
)

from openrpt.errors import UserError

LIMIT = 8 * 60.0
"""Seconds that all of it may take: no pair begins that would not end in time."""
SMOKE_MODEL = "new:llama?layers=2&width=64&heads=4&mlp=2&context=512"
SMOKE = ["--window", "48", "--positions", "2", "--group-size", "2", "--new-tokens", "4"]


def main() -> None:
    began = time.monotonic()
    given = arguments()
    case = make_case(given)
    started = environment()
    if given.device == "cuda":
        check_engine()
    job = case.job(steps=1, brief_warm_up=True, measure_rates=True)
    peer = case.job(steps=1, prompts=case.prompts)
    at_once = {"microbatch_rollouts": case.rollouts, "generate": True}
    comparisons: dict[str, tuple[Side, Side]] = {
        "step": (("openrpt_step.py", job), ("peer_trl.py", peer | at_once)),
        "generation": (
            ("openrpt_generate.py", job),
            ("peer_vllm.py", peer | {"eager": False, "bind": False}),
        ),
    }
    try:
        attention = run_child(sys.executable, "flex_shared.py", job)
    except ChildFailed as error:  # not compiled, or other numbers: the rest doesn't need it
        attention = {"flex_shared": str(error)}
    found: dict[str, Any] = {}
    for name, (own, theirs) in comparisons.items():
        found[name] = pairs(name, own, theirs, given, until=began + LIMIT)
    facts = {"device": torch.cuda.get_device_name() if given.device == "cuda" else "cpu"}
    write_result(given.output, "gpu", started | {"case": case.facts() | facts} | attention | found)
    for line in table(found):
        print(line)


Side = tuple[str, dict[str, Any]]
"""A script and its job."""


def check_engine() -> None:
    """Runs the tests that are marked `gpu`. Raises UserError where one fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/engine"]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True)
    say(done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "no test has run")
    if done.returncode:
        raise UserError(f"the engine is not right on this GPU:\n{done.stdout[-2000:]}")


def pairs(
    name: str, own: Side, theirs: Side, given: argparse.Namespace, *, until: float
) -> dict[str, Any]:
    """Both sides in turn, as often as there is time for."""
    ours: list[dict[str, Any]] = []
    peers: list[dict[str, Any]] = []
    longest, reason = 0.0, "" if given.peer_python else "no --peer-python"
    for pair in range(given.pairs):
        start = time.monotonic()
        if pair and start + longest > until:
            break
        ours.append(run_child(sys.executable, *own))
        say(f"{name}: OpenRPT, {per_rollout(ours[-1]):.4f} s a rollout")
        if not reason:
            try:
                peers.append(run_child(given.peer_python, *theirs, isolated=True))
                say(f"  {theirs[0]}: {per_rollout(peers[-1]):.4f} s a rollout")
            except ChildFailed as error:  # the peer's fault leaves our own figures
                reason = str(error)
                say(f"  {reason}")
        longest = max(longest, time.monotonic() - start)
    both = [per_rollout(b) / per_rollout(a) for a, b in zip(ours, peers, strict=False)]
    return {
        "openrpt": {
            "seconds_a_rollout": spread([per_rollout(one) for one in ours]),
            "gpu_peak_gib": max(one["gpu_peak_gib"] for one in ours),
            "runs": ours,
        },
        "peer": {"script": theirs[0], "runs": peers, "missing": reason},
        "ratio": spread(both) if both else None,
    }


def table(found: dict[str, Any]) -> list[str]:
    lines = ["| measure | OpenRPT, s a rollout | peer | ratio |", "|---|---|---|---|"]
    for name, one in found.items():
        own, peers = one["openrpt"]["seconds_a_rollout"], one["peer"]["runs"]
        peer = f"{spread([*map(per_rollout, peers)])['median']:.4f}" if peers else "not run"
        ratio = f"{one['ratio']['median']:.2f} ×" if one["ratio"] else ""
        lines.append(f"| {name} | {own['median']:.4f} | {peer} | {ratio} |")
    return lines


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add_arguments(parser)
    parser.add_argument("--peer-python", type=Path, help="a Python with TRL and vLLM")
    parser.add_argument("--pairs", type=int, default=3, help="most pairs")
    parser.add_argument("--smoke", action="store_true", help="a tiny new model, a few tokens")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.set_defaults(device="cuda")
    given = parser.parse_args()
    if given.smoke:
        given = parser.parse_args([*SMOKE, "--model", SMOKE_MODEL, *sys.argv[1:]])
        given.corpus = given.corpus or FOLDER / "README.md"
    if given.device == "cuda" and not torch.cuda.is_available():
        raise UserError("no GPU: torch sees none; --device cpu --smoke runs the plumbing alone")
    return given


if __name__ == "__main__":
    exit_cleanly(main)
