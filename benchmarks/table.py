"""Prints the README's table from the result files.

python benchmarks/table.py [FOLDER]
"""

import json
import sys
from pathlib import Path
from typing import Any

from common import RESULTS


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    report = found.pop("report", None)
    lines = ["| measure | OpenRPT | peer | ratio |", "|---|---|---|---|"]
    for name, result in found.items():
        if name.startswith("train_step"):
            lines += train_step_rows(result)
        if name.startswith("generation"):
            lines += generation_rows(result)
    if "memory" in found:
        lines += memory_rows(found["memory"])
    print("\n".join(lines))
    for name, result in found.items():
        print(f"\n{name}: {provenance(result)}")
    if report:
        print("\n" + report_line(report))


def train_step_rows(result: dict[str, Any]) -> list[str]:
    own, peer, case = result["openrpt"], result["trl"], result["case"]
    shares = own["share_of_matrix_product_rate"]
    rows = [
        f"| training step, {sizes(case)}: seconds a rollout"
        f" | {ranged(own['seconds_a_rollout'], 3)} | TRL {ranged(peer['seconds_a_rollout'], 2)}"
        f" | **{ranged(result['ratio'], 1)} ×** |",
        f"| its peak memory | {own['peak_memory_gib']:.1f} GiB"
        f" | {peer['peak_memory_gib']:.1f} GiB"
        f" (micro-batch {peer['settings']['microbatch_rollouts']}) | |",
    ]
    for phase, name in (("generate", "generation"), ("update", "update")):
        rows.append(f"| {name}, share of the matrix-product rate | {ranged(shares[phase])} | | |")
    return rows


def generation_rows(result: dict[str, Any]) -> list[str]:
    own, peer, case = result["openrpt"], result["transformers"], result["case"]
    return [
        f"| generation alone, {sizes(case)}: seconds a rollout"
        f" | {ranged(own['seconds_a_rollout'], 3)}"
        f" | transformers {ranged(peer['seconds_a_rollout'], 3)}"
        f" | **{ranged(result['ratio'], 1)} ×** |",
        f"| its share of the matrix-product rate | {ranged(own['share_of_matrix_product_rate'])}"
        " | | |",
    ]


def memory_rows(result: dict[str, Any]) -> list[str]:
    return [
        f"| peak memory, {peak['positions']} positions × {peak['group_size']} rollouts"
        f" | {peak['peak_memory_gib']:.2f} GiB | | |"
        for peak in result["peaks"]
    ]


def report_line(result: dict[str, Any]) -> str:
    case, opened = result["case"], result["seconds_to_open"]
    return (
        f"report of {case['steps']:,} steps × {case['rollouts_per_step']} rollouts:"
        f" {result['megabytes']:.1f} MB, written in {result['seconds_to_write']:.1f} s; the"
        f" inspector answers after {ranged(opened['inspector'])} s, the first chart stands after"
        f" {ranged(opened['chart'])} s ({result['machine']['processor']})"
    )


def sizes(case: dict[str, Any]) -> str:
    return (
        f"window {case['window']}, {case['positions']} positions × {case['group_size']},"
        f" {case['new_tokens']} new tokens"
    )


def ranged(values: dict[str, Any], digits: int = 2) -> str:
    """The median, and the range where there is one."""
    median, low, high = (f"{values[name]:.{digits}f}" for name in ("median", "min", "max"))
    return median if len(values["values"]) == 1 else f"{median} ({low} to {high})"


def provenance(result: dict[str, Any]) -> str:
    """What a result holds for, in one line."""
    machine, case = result["machine"], result["case"]
    parts = [
        f"{case['model']}, {case['dtype']}, {case['threads']} threads",
        f"{machine['processor']} ({machine['memory_gib']:.0f} GiB)",
    ]
    if "trl" in result:
        rate = result["openrpt"]["matrix_product_gflop_per_second"]
        line = result["trl"]["linearity"]
        parts += [
            f"matrix product {ranged(rate, 0)} GFLOP/s",
            f"TRL ran {result['trl']['rollouts']} rollouts where OpenRPT ran {case['rollouts']}"
            f" (at {line['rollouts']}: {line['over_all_prompts']:.2f} of its time a rollout)",
            f"TRL {result['trl']['versions']['trl']}",
        ]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "; ".join([*parts, versions, f"{result['date'][:10]}, {result['commit'][:12]}"])


if __name__ == "__main__":
    main()
