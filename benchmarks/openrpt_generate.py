"""OpenRPT's side of generation alone: run by a benchmark, in its own process.

python openrpt_generate.py JOB.json FOUND.json
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from common import own_versions
from openrpt_step import (
    EndlessModel,
    config_of,
    draw,
    endless_layout,
    generation_passes,
    rates,
    work_of,
)

from openrpt.costs.flops import Ledger, model_shape
from openrpt.costs.meters import CountingEngine
from openrpt.engine.cpu import use_cpu
from openrpt.engine.engine import bind
from openrpt.engine.loading import load_model
from openrpt.runs.metrics import memory_metrics, peak_memory_gib


def main(job: dict[str, Any]) -> dict[str, Any]:
    config = config_of(job)
    use_cpu(config.model.threads)
    loaded = load_model(config.model)
    policy = EndlessModel(network=loaded.network, tokenizer=loaded.tokenizer, name=loaded.name)
    layout = endless_layout(policy, config)
    work = work_of(job, config.train.positions_per_document)
    steps = []
    for number in range(1 + job["steps"]):
        ledger = Ledger()
        engine = CountingEngine(engine=bind("tree", policy), ledger=ledger)
        # The first is not counted: it sets up threads and buffers.
        rollouts = config.train.group_size if number else 1
        start = time.perf_counter()
        found = draw(engine, config, layout, work, rollouts, number)
        seconds = time.perf_counter() - start
        lengths = {len(c.token_ids) for one in found for c in one.completions}
        if lengths != {config.prompt.prediction_budget}:
            raise RuntimeError(f"completions of {lengths} tokens: all were to be of full length")
        if number:
            steps.append(
                {
                    "seconds": seconds,
                    "phases": {"generate": seconds},
                    "rollouts": len(found) * rollouts,
                    "flop": {"generate": ledger.shared.forward(model_shape(policy))},
                }
            )
    return {
        "steps": steps,
        "peak_memory_gib": peak_memory_gib(),
        "gpu_peak_gib": memory_metrics(policy.device).get("memory/gpu_peak_gib", 0.0),
        "rates": rates(policy, {"generate": generation_passes(job, config)}),
        "versions": own_versions(),
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
