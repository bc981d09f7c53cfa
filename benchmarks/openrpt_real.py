"""OpenRPT's side of the real run: the steps of `openrpt train`, timed as the trainer times them.

    python openrpt_real.py JOB.json FOUND.json

`"prepare": true` scores the corpus and warms the policy up instead, where that is not done.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import own_versions
from transformers import AutoTokenizer

from openrpt.config.loading import load_config
from openrpt.config.sections import Config
from openrpt.data.prompts import Layout, build_layout
from openrpt.engine.cpu import use_cpu
from openrpt.engine.loading import resolve_model
from openrpt.rl.batch import Graded, group_branch
from openrpt.runs.metrics import peak_memory_gib
from openrpt.runs.run import Run, open_run
from openrpt.stages.score.score import score_corpus
from openrpt.stages.train import Trainer, open_train
from openrpt.stages.warmup.warmup import warmup

PHASES = ("generate", "update")


def main(job: dict[str, Any]) -> dict[str, Any]:
    config = config_of(job)
    use_cpu(config.model.threads)
    if job["prepare"]:
        prepare(open_run(config))
        return {}
    config = replace_train(config, ntp_weight=job["ntp_weight"])
    trainer = open_train(Run(path=Path(config.run), config=config))
    brief = replace(trainer, config=replace_train(config, documents_per_step=1))
    advance(brief)  # not counted: it sets up threads, buffers and the optimizer's state
    counted = [advance(trainer) for _ in range(job["steps"])]
    peak = peak_memory_gib()
    trainer.state.step += 1
    _, generated = trainer.collector.collect(trainer.state)  # prompts for the peer
    return {
        "steps": [summary(metrics, config) for metrics in counted],
        "peak_memory_gib": peak,
        "prompts": prompts_of(generated, trainer.layout),
        "versions": own_versions(),
    }


def config_of(job: dict[str, Any]) -> Config:
    """The demo's recipe, with a free thought as long as makes `new_tokens` in all: thought, forced
    close and prediction."""
    overrides: dict[str, Any] = {
        "run": job["run"],
        "model.device": "cpu",
        "model.threads": job["threads"],
        "corpus.path": job["corpus"],
        "train.group_size": job["group_size"],
        "train.positions_per_document": job["positions"],
        "train.eval_every": 0,
        "warmup.steps": job["warmup_steps"],
        "warmup.time_limit": 0.0,
        "score.splits": ["train"],
    }
    recipe = Path(job["recipe"])
    plain = load_config(recipe, overrides)
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(plain.model.path))
    close = build_layout(tokenizer, plain.prompt).close_ids
    thought = job["new_tokens"] - len(close) - plain.prompt.prediction_budget
    return load_config(recipe, overrides | {"prompt.think_budget": thought})


def replace_train(config: Config, **changes: Any) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update=changes)})


def prepare(run: Run) -> None:
    score_corpus(run.config, run.scored)
    warmup(run)


def advance(trainer: Trainer) -> dict[str, Any]:
    return trainer.step(store=True)


def summary(metrics: dict[str, Any], config: Config) -> dict[str, Any]:
    return {
        "seconds": metrics["time/step"],
        "phases": {phase: metrics[f"time/{phase}"] for phase in PHASES},
        "rollouts": round(metrics["group/generated"]) * config.train.group_size,
        "flat_fraction": metrics["group/flat_fraction"],
        "reward_mean": metrics["reward/mean"],
        "tokens_a_completion": metrics["completion/tokens_mean"],
        "efficiency": {
            key.removeprefix("efficiency/"): value
            for key, value in metrics.items()
            if key.startswith("efficiency/")
        },
    }


def prompts_of(generated: Sequence[Graded], layout: Layout) -> list[dict[str, Any]]:
    """A group: its prompt as ids, the forced opening included, and how many tokens its rollouts
    went on for."""
    found = []
    for graded in generated:
        prefix = graded.work.prefix_ids(layout, whole=False)
        lengths = graded.work.prefix_lengths(layout)
        for group, length in zip(graded.groups, lengths, strict=True):
            one = group_branch(group, length, layout)
            new = [len(r.completion.token_ids) - one.opening for r in group.rollouts]
            prompt = [*prefix[:length], *one.branch.tail_ids]
            found.append({"ids": prompt, "new_tokens": sum(new) / len(new)})
    return found


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
