"""Generation alone: OpenRPT's document tree against vLLM with its prefix cache and against
transformers' `generate`, seconds a rollout.

    python benchmarks/generation.py

Same model, prompts (as ids), lengths, precision and threads. See README.md for what is measured
and what it takes.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from case import Case, add_arguments, make_case
from common import (
    environment,
    exit_cleanly,
    parser_of,
    per_rollout,
    run_child,
    say,
    shares,
    spread,
    write_result,
)
from environments import ENVIRONMENTS, environment_python
from train_step import spread_indices

from openrpt.errors import UserError


@dataclass(kw_only=True, eq=False)
class Peer:
    """One of the others, at its best setting."""

    name: str
    script: str
    python: str
    job: dict[str, Any]
    """Its best setting is put into it."""
    isolated: bool
    search: list[dict[str, Any]] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        return run_child(self.python, self.script, self.job, isolated=self.isolated)

    def tune(self, settings: Sequence[dict[str, Any]]) -> None:
        """Keeps the fastest of the settings. One alone is not run."""
        for setting in settings if len(settings) > 1 else ():
            self.job |= setting
            rate = per_rollout(self.run())
            self.search.append(setting | {"seconds_a_rollout": rate})
            say(f"{self.name}, {setting}: {rate:.3f} s a rollout")
        fastest = min(self.search, key=lambda one: one["seconds_a_rollout"], default=settings[0])
        self.job |= {key: fastest[key] for key in settings[0]}

    def summary(self, own: list[dict[str, Any]]) -> dict[str, Any]:
        last = self.found[-1]
        rates = [per_rollout(child) for child in self.found]
        return {
            "seconds_a_rollout": spread(rates),
            "ratio": spread([b / per_rollout(a) for a, b in zip(own, rates, strict=True)]),
            "peak_memory_gib": max(child["peak_memory_gib"] for child in self.found),
            "rollouts": last["steps"][0]["rollouts"],
            "settings": last["settings"],
            "search": self.search,
            "versions": last["versions"],
            "pins": ENVIRONMENTS[self.name].lines() if self.name in ENVIRONMENTS else [],
        }


def main() -> None:
    given = arguments()
    case = make_case(given)
    started = environment()
    peers = [MAKERS[name](case, given) for name in given.peers]
    own = []
    for pair in range(1, given.pairs + 1):
        own.append(run_child(sys.executable, "openrpt_generate.py", case.job(steps=1)))
        ours = per_rollout(own[-1])
        say(f"pair {pair} of {given.pairs}: OpenRPT, {ours:.4f} s a rollout")
        for peer in peers:
            peer.found.append(peer.run())
            rate = per_rollout(peer.found[-1])
            say(f"  {peer.name}, {rate:.4f} s a rollout: {rate / ours:.2f} times OpenRPT's")
    result = started | {
        "case": case.facts(),
        "openrpt": {
            "seconds_a_rollout": spread([per_rollout(child) for child in own]),
            "shares": shares(own),
            "peak_memory_gib": max(child["peak_memory_gib"] for child in own),
            "steps": [step for child in own for step in child["steps"]],
        },
        "peers": {peer.name: peer.summary(own) for peer in peers},
    }
    write_result(given.output, "generation", result)


def vllm(case: Case, given: argparse.Namespace) -> Peer:
    """All prompts: it shares their keys and values."""
    peer = Peer(
        name="vllm",
        script="peer_vllm.py",
        python=str(environment_python("vllm")),
        job=case.job(prompts=case.prompts),
        isolated=True,
    )
    peer.tune([VLLM_SETTINGS[name] for name in given.vllm])
    return peer


def transformers(case: Case, given: argparse.Namespace) -> Peer:
    """Some of the prompts: it shares nothing, so more take as long a rollout."""
    chosen = spread_indices(given.peer_prompts, len(case.prefix_lengths))
    peer = Peer(
        name="transformers",
        script="peer_generate.py",
        python=sys.executable,
        job=case.job(prompts=[case.prompts[i] for i in chosen]),
        isolated=False,
    )
    peer.tune([{"batch_size": size} for size in given.batch_sizes])
    return peer


VLLM_SETTINGS = {
    "compiled": {"eager": False, "bind": True},
    "eager": {"eager": True, "bind": True},
    "unbound": {"eager": True, "bind": False},
}
"""Compiled or not; its threads bound to cores or not."""
MAKERS = {"vllm": vllm, "transformers": transformers}


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add_arguments(parser)
    parser.add_argument("--peers", default="vllm,transformers", help="of these")
    parser.add_argument("--peer-prompts", type=int, default=4, help="of the prompts, generate's")
    parser.add_argument("--pairs", type=int, default=3, help="OpenRPT, its peers, OpenRPT, …")
    parser.add_argument("--batch-sizes", default="8,16,32", help="generate's; the fastest counts")
    parser.add_argument(
        "--vllm", default=",".join(VLLM_SETTINGS), help="vLLM's settings; the fastest counts"
    )
    parser.add_argument("--output", type=Path, default=Path("generation.json"))
    given = parser.parse_args()
    given.batch_sizes = [int(size) for size in given.batch_sizes.split(",")]
    given.vllm = given.vllm.split(",")
    given.peers = given.peers.split(",")
    for chosen, known in ((given.peers, MAKERS), (given.vllm, VLLM_SETTINGS)):
        if unknown := set(chosen) - set(known):
            raise UserError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
    if not 2 <= given.peer_prompts <= given.positions or given.pairs < 1:
        raise UserError("--peer-prompts must be from 2 to --positions, --pairs at least 1")
    return given


if __name__ == "__main__":
    exit_cleanly(main)
