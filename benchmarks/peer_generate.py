"""transformers' side of generation alone: `generate` with its key-value cache, one batch after
another. Run by a benchmark, in its own process.

    python peer_generate.py JOB.json FOUND.json

Nothing here imports openrpt.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM


def main(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    model = AutoModelForCausalLM.from_pretrained(job["model_folder"], dtype=torch.float32).eval()
    rows = [prompt for prompt in job["prompts"] for _ in range(job["group_size"])]
    run(model, rows[:2], 2, new_tokens=2)  # sets up threads and buffers
    start = time.perf_counter()
    run(model, rows, job["batch_size"], new_tokens=job["new_tokens"])
    seconds = time.perf_counter() - start
    return {
        "steps": [{"seconds": seconds, "rollouts": len(rows)}],
        "settings": {"batch_size": job["batch_size"]},
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


@torch.no_grad()
def run(model: Any, rows: list[list[int]], size: int, *, new_tokens: int) -> None:
    """All rows, `size` at a time, padded on the left; every completion has `new_tokens` tokens."""
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        width = max(map(len, batch))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in batch])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
        found = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        )
        if found.shape[1] != width + new_tokens:
            raise RuntimeError(f"{found.shape[1] - width} new tokens, not {new_tokens}")


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
