"""OpenRPT's side of scoring a corpus: run by a benchmark, in its own process.

    python openrpt_score.py JOB.json FOUND.json

Timed is all that `openrpt score` does once the model is loaded: reading, splitting, tokenizing,
the passes, and writing the shards.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import own_versions
from openrpt_step import rates

from openrpt.config.loading import load_config
from openrpt.config.sections import Config
from openrpt.costs.limits import Pass
from openrpt.data.positions import windows
from openrpt.data.scored import ScoredCorpus, load_scored
from openrpt.engine.cpu import use_cpu
from openrpt.engine.engine import open_engine
from openrpt.engine.scorer import score_ids
from openrpt.runs.metrics import peak_memory_gib
from openrpt.runs.spent import scoring_cost
from openrpt.stages.score.score import score_corpus


def main(job: dict[str, Any]) -> dict[str, Any]:
    config = config_of(job)
    use_cpu(config.model.threads)
    policy = open_engine(config)
    prompt = config.prompt
    warm = list(range(1000, 1000 + prompt.window))  # sets up threads and buffers
    score_ids(policy, warm, window=prompt.window, min_context=prompt.min_context)
    with tempfile.TemporaryDirectory(prefix="openrpt-score-") as name:
        folder = Path(name) / "scored"
        folder.mkdir()
        start = time.perf_counter()
        summary = score_corpus(config, folder, policy=policy, scorer=policy)
        seconds = time.perf_counter() - start
        cost = scoring_cost(folder)
        found = windows_of(load_scored(folder), config)
    rows = round(statistics.mean(len(window["ids"]) for window in found))
    return {
        "steps": [
            {
                "seconds": seconds,
                "phases": {"score": seconds},
                "tokens": summary.num_tokens,
                "flop": {"score": cost["flops"]},
            }
        ],
        "documents": summary.documents,
        "windows": found,
        "peak_memory_gib": peak_memory_gib(),
        "rates": rates(policy.model, {"score": [Pass(rows=rows, logits=rows)]}),
        "versions": own_versions(),
    }


def config_of(job: dict[str, Any]) -> Config:
    return load_config(
        overrides={
            "model.path": job["model_folder"],
            "model.device": "cpu",
            "model.threads": job["threads"],
            "corpus.path": job["corpus"],
            "corpus.heldout_fraction": 0.0,
            "corpus.development_fraction": 0.0,
            "score.splits": ["train"],
            "score.max_tokens": job["max_tokens"],
            "prompt.window": job["window"],
        }
    )


def windows_of(corpus: ScoredCorpus, config: Config) -> list[dict[str, Any]]:
    """What the peer runs: a window's ids, and the first of them that is scored there."""
    prompt = config.prompt
    found = []
    for name in corpus.ids("train"):
        ids = corpus.document(name).token_ids.tolist()
        spans = windows(len(ids), window=prompt.window, min_context=prompt.min_context)
        for number, span in enumerate(spans):
            first = span.first - span.start if number else 1
            found.append({"ids": ids[span.start : span.end], "first": first})
    return found


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
