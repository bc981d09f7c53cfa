"""A whole training step of OpenRPT against TRL's GRPOTrainer, seconds a rollout.

    python benchmarks/train_step.py

Same model, prompts (as ids), lengths, group size, precision, optimizer and threads; every
rollout is trained on both sides. See README.md for what is measured and what it takes.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from case import Case, add_arguments, make_case
from common import (
    GIB,
    ChildFailed,
    environment,
    exit_cleanly,
    parser_of,
    per_rollout,
    per_rollout_of,
    run_child,
    say,
    shares,
    spread,
    write_result,
)
from environments import ENVIRONMENTS, environment_python

from openrpt.errors import UserError

MEMORY_SHARE = 0.9
"""A larger micro-batch is tried if what it is expected to take is below this share of what is free."""  # noqa: E501
WORTH = 0.98
"""A larger micro-batch is better if it takes less than this share of the smaller one's time."""


def main() -> None:
    given = arguments()
    case = replace(make_case(given), mixed=given.mixed)
    chosen = spread_indices(given.peer_prompts, len(case.prefix_lengths))
    started = environment()
    peer = Peer(
        case=case,
        python=environment_python("trl"),
        prompts=[case.prompts[i] for i in chosen],
        group_size=given.peer_group_size or case.group_size,
    )
    say(
        f"the case: {len(case.prefix_lengths)} positions × {case.group_size} rollouts ×"
        f" {case.new_tokens} tokens, window {len(case.window_ids)}, {case.threads} threads"
    )
    if case.mixed:
        peer.choose_precision(given.micro_batches[0])
    microbatch = peer.best_microbatch(given.micro_batches)
    linearity = None
    if not given.brief:
        say(f"micro-batches of {microbatch} for TRL; first half of its prompts")
        linearity = peer.step(peer.outer_half(), microbatch)
        say(f"  TRL, {linearity['rollouts']} rollouts: {peer.rate(linearity):.2f} s a rollout")
    own, theirs = [], []
    for pair in range(1, given.pairs + 1):
        say(f"pair {pair} of {given.pairs}: OpenRPT, {case.rollouts} rollouts")
        job = case.job(steps=1, brief_warm_up=given.brief, measure_rates=True)
        own.append(run_child(sys.executable, "openrpt_step.py", job))
        say(f"  {per_rollout(own[-1]):.3f} s a rollout")
        say(f"pair {pair} of {given.pairs}: TRL, {peer.rollouts} rollouts")
        theirs.append(peer.step(peer.prompts, microbatch))
        ratio = peer.rate(theirs[-1]) / per_rollout(own[-1])
        say(f"  {peer.rate(theirs[-1]):.2f} s a rollout: {ratio:.1f} times OpenRPT's")
    result = started | {
        "case": case.facts(),
        "brief": given.brief,
        "openrpt": own_summary(own),
        "trl": peer_summary(theirs, linearity, peer, chosen),
        "ratio": spread([peer.rate(b) / per_rollout(a) for a, b in zip(own, theirs, strict=True)]),
    }
    write_result(given.output, "train_step", result)
    say(f"OpenRPT is {result['ratio']['median']:.1f} times faster a rollout")


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add_arguments(parser)
    parser.add_argument("--peer-prompts", type=int, default=4, help="of the prompts, TRL's")
    parser.add_argument(
        "--peer-group-size",
        type=int,
        help="rollouts of each of TRL's prompts; default: --group-size. TRL shares nothing in a"
        " group, so fewer take as long a rollout",
    )
    parser.add_argument(
        "--brief",
        action="store_true",
        help="for a point of a curve: the step that OpenRPT is warmed up with is a small one, and"
        " that TRL's time is linear in its rollouts is not shown again",
    )
    parser.add_argument(
        "--mixed",
        action="store_true",
        help="matrix products in bfloat16; TRL in the faster of its two precisions",
    )
    parser.add_argument("--pairs", type=int, default=2, help="OpenRPT, TRL, OpenRPT, TRL, …")
    parser.add_argument(
        "--micro-batches",
        default="4,8,16,32",
        help="TRL's, in rollouts, ascending: the first that is no better ends the search",
    )
    parser.add_argument("--output", type=Path, default=Path("train_step.json"))
    given = parser.parse_args()
    given.micro_batches = sorted({int(size) for size in given.micro_batches.split(",")})
    if not 2 <= given.peer_prompts <= given.positions or given.pairs < 1:
        raise UserError("--peer-prompts must be from 2 to --positions, --pairs at least 1")
    return given


def spread_indices(count: int, total: int) -> list[int]:
    """`count` of `total` indices, symmetric about the middle: evenly spaced prefixes keep their
    mean length.

    >>> spread_indices(4, 16), spread_indices(2, 16)
    ([1, 5, 10, 14], [3, 12])
    """
    half = [int((i + 0.5) * total / count - 0.5) for i in range(count // 2)]
    middle = [total // 2] if count % 2 else []
    return half + middle + [total - 1 - i for i in reversed(half)]


@dataclass(kw_only=True, eq=False)
class Peer:
    """TRL on some of the case's prompts, shortest first."""

    case: Case
    python: Path
    prompts: list[list[int]]
    group_size: int
    precisions: dict[str, float] = field(default_factory=dict)
    """Seconds a rollout in either, where both were tried."""
    search: list[dict[str, Any]] = field(default_factory=list)

    def step(
        self,
        prompts: Sequence[list[int]],
        microbatch: int,
        *,
        group_size: int | None = None,
        generate: bool = True,
    ) -> dict[str, Any]:
        """One counted step (after a brief warm-up) in a process of its own."""
        case = replace(self.case, group_size=group_size or self.group_size)
        rollouts = len(prompts) * case.group_size
        found = run_child(
            self.python,
            "peer_trl.py",
            case.job(
                prompts=list(prompts),
                microbatch_rollouts=min(microbatch, rollouts),
                generate=generate,
                steps=1,
            ),
            isolated=True,
        )
        return found | {"rollouts": rollouts}

    def choose_precision(self, microbatch: int) -> None:
        """Takes the precision in which half of the prompts are faster."""
        whole = self.case
        for mixed in (False, True):
            self.case = replace(whole, mixed=mixed)
            name = self.case.facts()["dtype"]
            self.precisions[name] = self.rate(self.step(self.outer_half(), microbatch))
            say(f"TRL in {name}: {self.precisions[name]:.2f} s a rollout")
        float32, mixed_seconds = self.precisions.values()
        self.case = replace(whole, mixed=mixed_seconds < float32)

    @property
    def rollouts(self) -> int:
        return len(self.prompts) * self.group_size

    def rate(self, found: dict[str, Any]) -> float:
        """Seconds a rollout, as if all rollouts of the case were in the step."""
        return per_rollout_of(found, self.case.rollouts)

    def outer_half(self) -> list[list[int]]:
        """Half of the prompts with the same mean length and the same longest (TRL pads to it)."""
        low = len(self.prompts) // 4
        return self.prompts[:low] + self.prompts[-(len(self.prompts) // 2 - low) :]

    def best_microbatch(self, sizes: Sequence[int]) -> int:
        """The fastest size that fits. Forward and backward are timed, on the longest prompts.

        Raises UserError if not even the first size fits.
        """
        rollouts = {self.rollouts, len(self.outer_half()) * self.group_size}
        best, best_seconds, last = 0, float("inf"), None
        for size in sizes:
            count = -(-size // self.group_size)  # prompts
            group_size = max(2, min(size, self.group_size))  # TRL takes no group of one
            if (count * group_size) % size or any(n % min(size, n) for n in rollouts):
                continue
            if count > len(self.prompts):
                break
            if last is not None and not self._fits(size, last):
                break
            try:
                found = self.step(
                    self.prompts[-count:], size, group_size=group_size, generate=False
                )
            except ChildFailed as error:
                if not error.killed or last is None:
                    raise
                self._note(size, None, "ended by the system: it does not fit")
                break
            counted = found["steps"][0]  # without AdamW, whose time does not depend on the size
            seconds = counted["phases"]["forward_backward"] / counted["rollouts"]
            self._note(size, seconds, f"peak {found['peak_memory_gib']:.1f} GiB")
            if seconds >= WORTH * best_seconds:
                break
            best, best_seconds, last = size, seconds, (size, found)
        if not best:
            raise UserError("none of --micro-batches divides the peer's rollouts; name others")
        return best

    def _fits(self, size: int, last: tuple[int, dict[str, Any]]) -> bool:
        """Memory grows with the micro-batch from what the brief warm-up took."""
        before, found = last
        base = found["warm_up_peak_memory_gib"]
        expected = base + (found["peak_memory_gib"] - base) * size / before
        free = psutil.virtual_memory().available / GIB
        if expected <= MEMORY_SHARE * free:
            return True
        self._note(size, None, f"would take {expected:.1f} GiB of {free:.1f} free: not tried")
        return False

    def _note(self, size: int, seconds: float | None, remark: str) -> None:
        self.search.append(
            {
                "microbatch_rollouts": size,
                "forward_backward_seconds_a_rollout": seconds,
                "remark": remark,
            }
        )
        timed = "" if seconds is None else f"{seconds:.2f} s a rollout, "
        say(f"TRL's forward and backward, micro-batches of {size}: {timed}{remark}")


def own_summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "seconds_a_rollout": spread([per_rollout(child) for child in found]),
        "peak_memory_gib": max(child["peak_memory_gib"] for child in found),
        "shares": shares(found),
        "settings": found[0]["settings"],
        "versions": found[0]["versions"],
        "steps": [step for child in found for step in child["steps"]],
    }


def peer_summary(
    found: list[dict[str, Any]], linearity: dict[str, Any] | None, peer: Peer, chosen: list[int]
) -> dict[str, Any]:
    whole = spread([peer.rate(child) for child in found])
    shown = None
    if linearity is not None:
        half = peer.rate(linearity)
        shown = {
            "rollouts": linearity["rollouts"],
            "seconds_a_rollout": half,
            "over_all_prompts": half / whole["median"],
        }
    counted = found if linearity is None else [linearity, *found]
    return {
        "seconds_a_rollout": whole,
        "peak_memory_gib": max(child["peak_memory_gib"] for child in found),
        "prompts": chosen,
        "group_size": peer.group_size,
        "rollouts": found[0]["rollouts"],
        "linearity": shown,
        "microbatch_search": peer.search,
        "precisions": peer.precisions,
        "settings": found[0]["settings"],
        "versions": found[0]["versions"],
        "pins": ENVIRONMENTS["trl"].lines(),
        "steps": [step for child in counted for step in child["steps"]],
    }


if __name__ == "__main__":
    exit_cleanly(main)
