"""A plain transformers loop that scores the same windows: run by a benchmark, in its own process.

    python peer_score.py JOB.json FOUND.json

One document's window at a time: the model's full logits, their log-softmax, and from it the same
four numbers of each token (negative log-likelihood, entropy, entropy over the 16 most probable,
argmax). Tokenizing is not in its time. Nothing here imports openrpt.
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


@torch.no_grad()
def main(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    model = AutoModelForCausalLM.from_pretrained(job["model_folder"], dtype=torch.float32).eval()
    score(model, list(range(1000, 1000 + job["window"])), 1)  # sets up threads and buffers
    start = time.perf_counter()
    scored = [score(model, window["ids"], window["first"]) for window in job["windows"]]
    seconds = time.perf_counter() - start
    tokens = sum(len(window["ids"]) - window["first"] for window in job["windows"])
    if sum(len(one[0]) for one in scored) != tokens:
        raise RuntimeError("not every token was scored")
    return {
        "steps": [{"seconds": seconds, "scored_tokens": tokens}],
        "mean_negative_log_likelihood": float(torch.cat([one[0] for one in scored]).mean()),
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def score(model: Any, ids: list[int], first: int) -> tuple[torch.Tensor, ...]:
    """Four numbers of each token from `first` on."""
    tokens = torch.tensor([ids])
    logp = model(input_ids=tokens[:, :-1]).logits[0, first - 1 :].log_softmax(-1)
    nll = -logp.gather(-1, tokens[0, first:, None])[:, 0]
    top = logp.topk(16, dim=-1).values.log_softmax(-1)
    return nll, entropy(logp), entropy(top), logp.argmax(-1)


def entropy(logp: torch.Tensor) -> torch.Tensor:
    return -(logp.exp() * logp).sum(-1)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
