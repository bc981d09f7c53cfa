"""Prints the tables of docs/performance.md from the result files, or puts them there.

python benchmarks/table.py [FOLDER]
python benchmarks/table.py --write      # between its <!-- benchmarks --> markers
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import FOLDER, RESULTS, parser_of
from marked import put

Result = dict[str, Any]
PEERS = {"vllm": "vLLM, prefix caching on", "transformers": "transformers `generate`"}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    given = parser.parse_args()
    paths = sorted(given.folder.glob("*.json"))
    found = {path.stem: json.loads(path.read_text()) for path in paths}
    if given.write:
        put(FOLDER.parent / "docs/performance.md", "benchmarks", f"\n{everything(found)}\n")
    else:
        print(everything(found))


def measures(found: dict[str, Result]) -> str:
    lines = ["| measure | OpenRPT | peer | ratio |", "|---|---|---|---|"]
    for benchmark, rows in ROWS.items():
        for result in of(found, benchmark):
            lines += rows(result)
    return "\n".join(lines)


def everything(found: dict[str, Result]) -> str:
    parts = [measures(found)]
    steps = [one for one in of(found, "train_step") if one["case"]["dtype"] == "float32"]
    if len(steps) > 1:
        parts.append("Over the completion's length and the window:\n\n" + "\n".join(curve(steps)))
    parts += ["How a step grows:\n\n" + "\n".join(growth(result)) for result in of(found, "growth")]
    parts += [kernels(result) for result in of(found, "operators")]
    parts.append("\n".join(f"- `{name}`: {provenance(result)}" for name, result in found.items()))
    return "\n\n".join(parts)


def of(found: dict[str, Result], benchmark: str) -> list[Result]:
    """The results of one benchmark, the usual case first."""
    chosen = [(name, result) for name, result in found.items() if result["benchmark"] == benchmark]
    return [result for _, result in sorted(chosen, key=lambda pair: (len(pair[0]), pair[0]))]


def train_step_rows(result: Result) -> list[str]:
    own, peer, case = result["openrpt"], result["trl"], result["case"]
    if result["brief"] and case["new_tokens"] != 256:
        return []  # a point of the curve
    trl = "TRL in bfloat16" if peer["settings"].get("bf16") else "TRL"
    return [
        f"| training step, {sizes(case)}: seconds a rollout"
        f" | {ranged(own['seconds_a_rollout'], 3)} | {trl} {ranged(peer['seconds_a_rollout'], 2)}"
        f" | **{ranged(result['ratio'], 1)} ×** |",
        f"| its peak memory | {own['peak_memory_gib']:.1f} GiB"
        f" | {peer['peak_memory_gib']:.1f} GiB"
        f" (micro-batch {peer['settings']['microbatch_rollouts']}) | |",
        *share_rows(own["shares"], {"generate": "its generation's", "update": "its update's"}),
    ]


def share_rows(shares: dict[str, Any], names: dict[str, str]) -> list[str]:
    return [
        f"| {name} share of the limit | {ranged(shares['of_limit'][phase])}"
        f" ({shares['of_single_product'][phase]['median']:.2f} of one large product's rate) | | |"
        for phase, name in names.items()
    ]


def real_run_rows(result: Result) -> list[str]:
    case, peer = result["case"], result["trl"]
    rows = []
    for name, own in result["openrpt"].items():
        flat = own["flat_fraction"]["median"]
        rows.append(
            f"| real run on {case['corpus']}, {case['positions']} positions ×"
            f" {case['group_size']}, prompts of {case['mean_prompt_tokens']:.0f} and completions of"
            f" {case['mean_new_tokens']} tokens on average, {flat:.0%} of the groups flat, {name}:"
            f" seconds a generated rollout | {ranged(own['seconds_a_rollout'], 3)}"
            f" | TRL {ranged(peer['seconds_a_rollout'], 2)} | **{ranged(own['ratio'], 1)} ×** |"
        )
    return rows


def generation_rows(result: Result) -> list[str]:
    own, case = result["openrpt"], result["case"]
    rows = [
        f"| generation alone, {sizes(case)}: seconds a rollout"
        f" | {ranged(own['seconds_a_rollout'], 4)}"
        f" | {PEERS[name]} {ranged(peer['seconds_a_rollout'], 4)}"
        f" | **{ranged(peer['ratio'], 2)} ×** |"
        for name, peer in result["peers"].items()
    ]
    return rows + share_rows(own["shares"], {"generate": "its"})


def scoring_rows(result: Result) -> list[str]:
    own, peer = result["openrpt"], result["transformers"]
    return [
        f"| scoring a corpus: tokens a second | {ranged(own['tokens_a_second'], 0)}"
        f" | a transformers loop {ranged(peer['tokens_a_second'], 0)}"
        f" | **{ranged(result['ratio'], 2)} ×** |",
        *share_rows(own["shares"], {"score": "its"}),
    ]


def questions_rows(result: Result) -> list[str]:
    seconds, ratios, case = result["seconds_a_question"], result["ratios"], result["case"]
    names = {
        "one_after_the_other": "OpenRPT, one after the other",
        "transformers": "transformers `generate`, one batch",
    }
    what = f"{case['questions']} prompts that share nothing, {case['new_tokens']} new tokens"
    own = ranged(seconds["side_by_side"], 3)
    return [
        f"| {what}: seconds a prompt | {own} | {title} {ranged(seconds[name], 3)}"
        f" | **{ranged(ratios[name], 1)} ×** |"
        for name, title in names.items()
    ]


def memory_rows(result: Result) -> list[str]:
    rows = [
        f"| peak memory, positions × rollouts: {peak['positions']} × {peak['group_size']}"
        f" | {peak['peak_memory_gib']:.2f} GiB | | |"
        for peak in result["peaks"]
    ]
    peaks = [peak["peak_memory_gib"] for peak in result["peaks"]]
    return [*rows, f"| the largest over the smallest | {max(peaks) / min(peaks):.2f} | | |"]


def startup_rows(result: Result) -> list[str]:
    seconds, imports = result["seconds"], result["seconds"]["imports"]
    return [
        f"| `openrpt --help` | {ranged(seconds['help'])} s | | |",
        f"| `openrpt train` until the first token | {ranged(seconds['first_token'])} s"
        f" (importing what it needs: {ranged(imports['train'])} s, torch alone"
        f" {imports['torch']['median']:.2f} s) | | |",
    ]


def report_rows(result: Result) -> list[str]:
    case, opened = result["case"], result["seconds_to_open"]
    return [
        f"| `openrpt report`, {case['steps']:,} steps × {case['rollouts_per_step']} rollouts"
        f" | {result['seconds_to_write']:.1f} s, {result['megabytes']:.1f} MB; opens in"
        f" {ranged(opened['inspector'])} s | | |"
    ]


ROWS: dict[str, Callable[[Result], list[str]]] = {
    "train_step": train_step_rows,
    "real_run": real_run_rows,
    "generation": generation_rows,
    "scoring": scoring_rows,
    "questions": questions_rows,
    "memory": memory_rows,
    "startup": startup_rows,
    "report": report_rows,
}


def curve(steps: list[Result]) -> list[str]:
    """The same ratio over new tokens and over the window."""
    lines = [
        "| window | positions × rollouts | new tokens | OpenRPT, s a rollout | TRL | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for result in sorted(steps, key=lambda r: (r["case"]["window"], r["case"]["new_tokens"])):
        case = result["case"]
        lines.append(
            f"| {case['window']} | {case['positions']} × {case['group_size']}"
            f" | {case['new_tokens']} | {ranged(result['openrpt']['seconds_a_rollout'], 3)}"
            f" | {ranged(result['trl']['seconds_a_rollout'], 2)}"
            f" | **{ranged(result['ratio'], 1)} ×** |"
        )
    return lines


def growth(result: Result) -> list[str]:
    lines = ["| over | from … to | line | R² |", "|---|---|---|---|"]
    names = {"positions": "positions", "group_size": "rollouts a position", "window": "the window"}
    for series, name in names.items():
        key = "window" if series == "window" else series
        points = [point for point in result["points"] if point["series"] == series]
        ends = f"{points[0][key]} … {points[-1][key]}"
        times = [points[i]["seconds"]["median"] for i in (0, -1)]
        fit = result["fits"][series]
        unit = "token of the window" if series == "window" else "new token"
        lines.append(
            f"| {name} | {ends}: {times[0]:.1f} … {times[1]:.1f} s"
            f" | {fit['intercept']:.1f} s + {1000 * fit['slope']:.2f} ms a {unit}"
            f" | {fit['r_squared']:.4f} |"
        )
    more = result["fits"]["window"]["in_new_tokens"]
    lines.append(f"\nA token of the window takes as long as {more:.2f} new tokens, once.")
    return lines


def kernels(result: Result) -> str:
    """Where a step's time goes."""
    parts = [f"By kernel, {sizes(result['case'])} (`benchmarks/operators.py`):"]
    for phase, found in result["phases"].items():
        lines = ["| kernel | share of the time |", "|---|---|"]
        lines += [f"| `{name}` | {share:.1%} |" for name, share in found["kernels"].items()]
        parts.append(
            f"{phase}: {found['matrix_products']:.0%} in matrix products,"
            f" {found['attention']:.0%} in attention's kernels\n\n" + "\n".join(lines)
        )
    return "\n\n".join(parts)


def sizes(case: Result) -> str:
    _, _, products = case.get("dtype", "").partition(", ")
    return (
        f"window {case['window']}, {case['positions']} positions × {case['group_size']},"
        f" {case['new_tokens']} new tokens{products and f', {products}'}"
    )


def ranged(values: Result, digits: int = 2) -> str:
    """The median, and the range where there is one."""
    median, low, high = (f"{values[name]:,.{digits}f}" for name in ("median", "min", "max"))
    return median if len(values["values"]) == 1 else f"{median} ({low} to {high})"


def provenance(result: Result) -> str:
    """What a result holds for, in one line."""
    machine, case = result["machine"], result.get("case", {})
    parts = [f"{machine['processor']} ({machine['memory_gib']:.0f} GiB)"]
    if "model" in case:
        parts.insert(0, f"{case['model']}, {case['dtype']}, {case['threads']} threads")
    own = result.get("openrpt", {})
    if "shares" in own:
        rates = own["shares"]["gflop_per_second"]
        listed = ", ".join(f"{name} {ranged(rate, 0)}" for name, rate in rates.items())
        parts.append(f"products in GFLOP/s: {listed}")
    if line := result.get("trl", {}).get("linearity"):
        parts.append(
            f"TRL ran {result['trl']['rollouts']} rollouts where OpenRPT ran {case['rollouts']}"
            f" (at {line['rollouts']}: {line['over_all_prompts']:.2f} of its time a rollout)"
        )
    for name, peer in {"trl": result.get("trl"), **result.get("peers", {})}.items():
        if peer:
            parts.append(f"{name}: {', '.join(f'{k} {v}' for k, v in peer['versions'].items())}")
    load = machine["load_average_at_start"][0]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    parts += [versions, f"load {load:.1f}", f"{result['date'][:10]}, {result['commit'][:12]}"]
    return "; ".join(parts)


if __name__ == "__main__":
    main()
