"""OpenRPT's side: whole training steps on a case, timed. Run by a benchmark, in its own process.

    python openrpt_step.py JOB.json FOUND.json

A step is what `openrpt train` does between two batches: generate, grade, update (forward,
backward, clipping, AdamW). Two things differ from a real run, so that both sides do the same
work: completions never stop early, and the advantages are random, so that no group is skipped.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import own_versions

from openrpt.config.loading import load_config
from openrpt.config.sections import Config
from openrpt.costs.limits import Pass, matrix_product_rate, rate_of_passes
from openrpt.data.positions import ScoredDocument, Window
from openrpt.data.prompts import Layout, build_layout
from openrpt.data.work import Work, document_bytes
from openrpt.engine.cpu import keep_memory, use_cpu
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine, bind
from openrpt.engine.generation import Generated
from openrpt.engine.loading import load_model
from openrpt.engine.model import Model
from openrpt.rl.batch import Graded, Weighted
from openrpt.rl.cost import step_cost
from openrpt.rl.grading import grade_groups
from openrpt.rl.optimizer import make_optimizer, set_learning_rate
from openrpt.rl.update import update_policy
from openrpt.runs.metrics import PhaseTimer, memory_metrics, peak_memory_gib
from openrpt.seeding import keys_of
from openrpt.types import Position

PRODUCT_ROWS = 1024
"""Rows of the single matrix product whose rate stands beside the limits."""
LIMIT_SECONDS = 8.0
"""What measuring one limit may take."""


@dataclass(kw_only=True, eq=False)
class EndlessModel(Model):
    """Never stops before its budget: every completion has the same number of tokens."""

    @property
    def stop_ids(self) -> frozenset[int]:
        return frozenset({-1})


def main(job: dict[str, Any]) -> dict[str, Any]:
    config = config_of(job)
    use_cpu(config.model.threads)
    loaded = load_model(config.model, trained=True)
    policy = EndlessModel(
        network=loaded.network,
        tokenizer=loaded.tokenizer,
        name=loaded.name,
        compute_dtype=loaded.compute_dtype,
    )
    layout = endless_layout(policy, config)
    if list(layout.tail_ids) != job["tail_ids"] or layout.head_ids:
        raise RuntimeError("the layout's head and tail are not those of the case")
    optimizer = make_optimizer(policy, config.optim, weight_decay=config.optim.weight_decay)
    set_learning_rate(optimizer, config.train.learning_rate)
    engine = bind("tree", policy)
    work = work_of(job, config.train.positions_per_document)
    steps: list[dict[str, Any]] = []
    for number in range(1 + job["steps"]):
        # The first step is not counted: it sets up threads, buffers and the optimizer's state.
        brief = number == 0 and job["brief_warm_up"]
        use = replace(work, positions=work.positions[:1]) if brief else work
        group_size = 2 if brief else config.train.group_size
        found = step(engine, optimizer, config, layout, use, group_size, number)
        if number:
            steps.append(found)
    return {
        "steps": steps,
        "peak_memory_gib": peak_memory_gib(),
        "gpu_peak_gib": memory_metrics(policy.device).get("memory/gpu_peak_gib", 0.0),
        "rates": rates(
            policy,
            {"generate": generation_passes(job, config), "update": update_passes(job, config)},
        )
        if job["measure_rates"]
        else {},
        "threads": torch.get_num_threads(),
        "settings": {
            "microbatch_tokens": config.memory.microbatch_tokens,
            "generation_rollouts": config.memory.generation_rollouts,
            "gradient_checkpointing": config.memory.gradient_checkpointing,
            "keeps_freed_memory": keep_memory(),
            "optimizer": "AdamW (fused)",
        },
        "versions": own_versions(),
    }


def rates(policy: Model, passes: dict[str, list[Pass]]) -> dict[str, float]:
    """FLOP/s: each phase's limit, and that of one large product."""
    model = policy.causal_lm.config
    single = [(PRODUCT_ROWS, model.hidden_size, model.intermediate_size)]
    limits = {
        phase: rate_of_passes(policy, made, seconds=LIMIT_SECONDS) for phase, made in passes.items()
    }
    one = matrix_product_rate(single, policy.product_dtype, device=policy.device, seconds=1.0)
    return limits | {"single_product": one}


def generation_passes(job: dict[str, Any], config: Config) -> list[Pass]:
    """The runs of the model that generation can't do without: the prefix, the tails, and then
    every rollout's next token at once, as many as are decoded together."""
    lengths, new_tokens = job["prefix_lengths"], job["new_tokens"]
    positions = len(lengths)
    rollouts = positions * job["group_size"]
    together = min(rollouts, config.memory.generation_rollouts)
    return [
        Pass(rows=lengths[-1], logits=positions),
        Pass(rows=positions * len(job["tail_ids"]), logits=positions),
        Pass(rows=together, logits=together, times=-(-rollouts // together) * (new_tokens - 1)),
    ]


def update_passes(job: dict[str, Any], config: Config) -> list[Pass]:
    """The same of the update: the prefix, the tails, and the completions by micro-batches."""
    lengths, new_tokens = job["prefix_lengths"], job["new_tokens"]
    rollouts = len(lengths) * job["group_size"]
    together = max(1, min(rollouts, config.memory.microbatch_tokens // new_tokens))
    return [
        Pass(rows=lengths[-1], backward=True),
        Pass(rows=len(lengths) * len(job["tail_ids"]), backward=True),
        Pass(
            rows=together * (new_tokens - 1),
            logits=together * new_tokens,
            times=-(-rollouts // together),
            backward=True,
        ),
    ]


def config_of(job: dict[str, Any]) -> Config:
    """The library's defaults for micro-batches; a plain thought, no extra loss terms."""
    return load_config(
        overrides={
            "seed": job["seed"],
            "model.path": job["model_folder"],
            "model.device": job["device"],
            "model.threads": job["threads"],
            "model.compute_dtype": "bfloat16" if job["mixed"] else "same",
            "prompt.window": len(job["window_ids"]),
            "prompt.candidates": 0,
            "prompt.think_budget": 0,
            "prompt.prediction_budget": job["new_tokens"],
            "train.documents_per_step": 1,
            "train.positions_per_document": len(job["prefix_lengths"]),
            "train.group_size": job["group_size"],
            "train.ntp_weight": 0.0,
            "train.learning_rate": job["learning_rate"],
        }
    )


def endless_layout(policy: Model, config: Config) -> Layout:
    """No forced close: every token of a completion is sampled, and trained."""
    return replace(build_layout(policy.tokenizer, config.prompt, policy.bos_ids), close_ids=())


def work_of(job: dict[str, Any], positions: int) -> Work:
    ids = np.array(job["window_ids"], dtype=np.int64)
    unknown = np.full(len(ids), np.nan, dtype=np.float32)
    document = ScoredDocument(
        document_id="benchmark",
        key="",
        split="train",
        source="",
        text="",
        token_ids=ids,
        byte_offsets=np.arange(len(ids)),
        negative_log_likelihood=unknown,
        entropy=unknown,
        entropy_top16=unknown,
        ntp_token_id=np.full(len(ids), -1),
        ntp_correct=np.zeros(len(ids), dtype=bool),
    )
    lengths = job["prefix_lengths"][:positions]
    return Work(
        document=document,
        window=Window(start=0, end=len(ids), first=lengths[0]),
        positions=tuple(Position(document_id="benchmark", index=length) for length in lengths),
    )


def draw(
    engine: Engine, config: Config, layout: Layout, work: Work, group_size: int, number: int
) -> list[Generated]:
    """Generation as `openrpt train` calls it."""
    keys = [keys_of(group_size, config.seed, number, p.index) for p in work.positions]
    sampling = Sampling.of(
        config.prompt,
        temperature=config.train.temperature,
        generation_rollouts=config.memory.generation_rollouts,
    )
    (found,) = engine.generate_each([work.request(layout, keys)], layout, sampling)
    return found


def graded_of(
    policy: Model, layout: Layout, work: Work, generated: list[Generated], *, number: int
) -> Weighted:
    """With random advantages, so that every group is trained."""
    groups = grade_groups(
        generated,
        work.positions,
        work.document.token_ids.tolist(),
        document_bytes(policy.tokenizer, work.document),
        layout,
        policy.table,
    )
    random = torch.Generator().manual_seed(number)
    shape = len(groups), len(groups[0].rollouts)
    advantages = torch.randn(*shape, generator=random, dtype=torch.float64)
    return Graded(work=work, groups=tuple(groups)).weighted(advantages)


def step(
    engine: Engine,
    optimizer: torch.optim.Optimizer,
    config: Config,
    layout: Layout,
    work: Work,
    group_size: int,
    number: int,
) -> dict[str, Any]:
    """One whole step; seconds by phase, and what it ran."""
    policy, timer = engine.model, PhaseTimer()
    with timer("generate"):
        generated = draw(engine, config, layout, work, group_size, number)
    with timer("grade"):
        graded = graded_of(policy, layout, work, generated, number=number)
    with timer("update"):
        metrics = update_policy(engine, optimizer, [graded], config, layout)
    require_all_trained(graded, metrics, config.prompt.prediction_budget)
    cost = step_cost(policy, [graded], [graded], config, layout)
    return {
        "seconds": sum(timer.seconds.values()),
        "phases": timer.seconds,
        "rollouts": len(graded.groups) * group_size,
        "flop": {phase: cost[f"flops/{phase}"] for phase in ("generate", "update")},
        "tokens": {phase: cost[f"tokens/{phase}"] for phase in ("generate", "update")},
    }


def require_all_trained(graded: Graded, metrics: dict[str, float], new_tokens: int) -> None:
    """Every completion has `new_tokens` tokens, all sampled, and the update ran every one."""
    completions = [r.completion for group in graded.groups for r in group.rollouts]
    trained = {completion.num_trained_tokens for completion in completions}
    if trained != {new_tokens} or metrics["tokens/trained_run"] != new_tokens * len(completions):
        raise RuntimeError(f"not every token was sampled and trained: {trained}, {metrics}")


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
