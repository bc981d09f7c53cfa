"""A real run's steps against TRL's GRPOTrainer, seconds a generated rollout.

    python benchmarks/real_run.py

OpenRPT takes steps of `openrpt train` with the demo's recipe from a warmed-up policy: its own
positions, rewards and stops, and groups whose rewards are all equal are not trained. TRL trains
the same policy on prompts of those steps, with completions of as many tokens, all of them. See
README.md for what is measured and what it takes.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from common import (
    FOLDER,
    add_corpus,
    environment,
    exit_cleanly,
    parser_of,
    per_rollout,
    per_rollout_of,
    run_child,
    say,
    spread,
    write_result,
)
from environments import ENVIRONMENTS, environment_python

from openrpt.errors import UserError


def main() -> None:
    given = arguments()
    job = {
        "run": str(given.run),
        "recipe": str(FOLDER.parent / "openrpt/recipes/demo.toml"),
        "corpus": given.corpus,
        "positions": given.positions,
        "group_size": given.group_size,
        "new_tokens": given.new_tokens,
        "warmup_steps": given.warmup_steps,
        "threads": given.threads,
        "steps": given.steps,
        "prepare": False,
    }
    say("scoring and warmup, where they are not done")
    run_child(sys.executable, "openrpt_real.py", job | {"prepare": True})
    started = environment()
    own: dict[float, list[dict[str, Any]]] = {weight: [] for weight in given.ntp_weights}
    theirs: list[dict[str, Any]] = []
    for pair in range(1, given.pairs + 1):
        for weight, found in own.items():
            found.append(run_child(sys.executable, "openrpt_real.py", job | {"ntp_weight": weight}))
            prompts = found[-1].pop("prompts")
            flat = statistics.mean(step["flat_fraction"] for step in found[-1]["steps"])
            say(
                f"pair {pair} of {given.pairs}: OpenRPT, {per_rollout(found[-1]):.3f} s a rollout,"
                f" {flat:.0%} flat (ntp_weight {weight:g})"
            )
        theirs.append(peer_step(given, job, prompts))
        say(f"  TRL, {rate(theirs[-1], own):.2f} s a rollout")
    rates = [rate(child, own) for child in theirs]
    result = started | {
        "case": job_facts(job, theirs[0]),
        "openrpt": {f"ntp_weight {w:g}": own_summary(f, rates) for w, f in own.items()},
        "trl": {
            "seconds_a_rollout": spread(rates),
            "peak_memory_gib": max(child["peak_memory_gib"] for child in theirs),
            "rollouts": theirs[0]["steps"][0]["rollouts"],
            "settings": theirs[0]["settings"],
            "versions": theirs[0]["versions"],
            "pins": ENVIRONMENTS["trl"].lines(),
            "steps": [step for child in theirs for step in child["steps"]],
        },
    }
    write_result(given.output, "real_run", result)
    for name, one in result["openrpt"].items():
        say(f"{name}: {one['ratio']['median']:.1f} times faster a generated rollout")


def peer_step(
    given: argparse.Namespace, job: dict[str, Any], prompts: list[dict[str, Any]]
) -> dict[str, Any]:
    """One step of TRL on those of the prompts that are nearest to their mean length."""
    mean = statistics.mean(len(prompt["ids"]) for prompt in prompts)
    nearest = sorted(prompts, key=lambda prompt: abs(len(prompt["ids"]) - mean))
    chosen = nearest[: given.peer_prompts]
    new_tokens = round(statistics.mean(prompt["new_tokens"] for prompt in prompts))
    found = run_child(
        environment_python("trl"),
        "peer_trl.py",
        {
            "model_folder": str(given.run / "warmup"),
            "prompts": [prompt["ids"] for prompt in chosen],
            "group_size": given.group_size,
            "new_tokens": new_tokens,
            "threads": job["threads"],
            "seed": 0,
            "learning_rate": 1e-6,
            "microbatch_rollouts": given.micro_batch,
            "generate": True,
            "steps": 1,
        },
        isolated=True,
    )
    return found | {"new_tokens": new_tokens, "mean_prompt_tokens": mean}


def rate(found: dict[str, Any], own: dict[float, Any]) -> float:
    """TRL's seconds a rollout, as if all rollouts of OpenRPT's step were in its own."""
    return per_rollout_of(found, next(iter(own.values()))[0]["steps"][0]["rollouts"])


def job_facts(job: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    corpus = job["corpus"]
    kept = ("positions", "group_size", "new_tokens", "warmup_steps", "threads")
    return {key: job[key] for key in kept} | {
        "model": "smollm2",
        "dtype": "float32",
        "recipe": "recipe:demo",
        "corpus": corpus if corpus == "champ" else Path(corpus).name,
        "mean_new_tokens": peer["new_tokens"],
        "mean_prompt_tokens": peer["mean_prompt_tokens"],
    }


def own_summary(found: list[dict[str, Any]], rates: list[float]) -> dict[str, Any]:
    steps = [step for child in found for step in child["steps"]]
    return {
        "seconds_a_rollout": spread([per_rollout(child) for child in found]),
        "ratio": spread([b / per_rollout(a) for a, b in zip(found, rates, strict=True)]),
        "flat_fraction": spread([step["flat_fraction"] for step in steps]),
        "peak_memory_gib": max(child["peak_memory_gib"] for child in found),
        "versions": found[0]["versions"],
        "steps": steps,
    }


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add_corpus(parser)
    parser.add_argument("--positions", type=int, default=16, help="positions of a document")
    parser.add_argument("--group-size", type=int, default=8, help="rollouts of a position")
    parser.add_argument("--new-tokens", type=int, default=24, help="most tokens of a completion")
    parser.add_argument("--warmup-steps", type=int, default=24, help="before the run")
    parser.add_argument("--steps", type=int, default=1, help="counted, of each of OpenRPT's turns")
    parser.add_argument(
        "--ntp-weights",
        default="0.5,0",
        help="OpenRPT with its plain next-token loss, as the recipe has it, and without, as TRL",
    )
    parser.add_argument("--pairs", type=int, default=3, help="OpenRPT, TRL, OpenRPT, …")
    parser.add_argument("--peer-prompts", type=int, default=2, help="of a step's prompts, TRL's")
    parser.add_argument("--micro-batch", type=int, default=4, help="TRL's best in train_step.py")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each side")
    parser.add_argument(
        "--run",
        type=Path,
        default=Path("runs/benchmark"),
        help="where the scores and the warmed-up policy are kept, for the next time",
    )
    parser.add_argument("--output", type=Path, default=Path("real_run.json"))
    given = parser.parse_args()
    given.ntp_weights = [float(weight) for weight in given.ntp_weights.split(",")]
    if given.peer_prompts < 1 or given.pairs < 1:
        raise UserError("--peer-prompts and --pairs must be at least 1")
    return given


if __name__ == "__main__":
    exit_cleanly(main)
