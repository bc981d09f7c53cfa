"""TRL's side: whole `GRPOTrainer` steps on a case, timed. Run by the peer's own Python.

    environments/trl/bin/python peer_trl.py JOB.json FOUND.json

The trainer is TRL's own, on a GPU with vLLM in its process, but for two things. Prompts come as
ids, so that both sides have the same tokens: by `rollout_func`, with the function by which OpenRPT
hands ids to TRL (`openrpt.integrations.trl.unforced_rollout`: TRL generates). And where the job
says `"generate": false`, completions are made up, to time only what a micro-batch's size can
change. Nothing of OpenRPT's engine is imported.
"""

import importlib.metadata
import json
import platform
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

sys.path.append(str(Path(__file__).parents[1]))  # last: all else is the peer's own
from openrpt.integrations.trl import unforced_rollout

WARM_UP_TOKENS = 8
"""The first step, which is not counted, runs on prompts cut to this many tokens."""
VERSIONS = ("trl", "transformers", "torch", "accelerate", "datasets", "peft", "tokenizers")


class TimedTrainer(GRPOTrainer):
    """Notes how long generation took."""

    generate: bool
    generation_seconds: float = 0.0

    def _generate_single_turn(self, prompt_ids: list, *args: Any, **kwargs: Any):
        start = time.perf_counter()
        if self.generate:
            completion_ids, logprobs = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        else:
            length = self.args.max_completion_length
            completion_ids = [[1000 + token for token in range(length)] for _ in prompt_ids]
            logprobs = None
        self.generation_seconds = time.perf_counter() - start
        lengths = {len(ids) for ids in completion_ids}
        if lengths != {self.args.max_completion_length}:
            raise RuntimeError(f"completions of {lengths} tokens: all were to be of full length")
        return completion_ids, logprobs


class Stopwatch(TrainerCallback):
    """From the start of a step's generation to the end of its optimizer step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.phases: list[dict[str, float]] = []
        self.peaks: list[float] = []
        self.trainer: TimedTrainer | None = None

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.start = time.perf_counter()

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        assert self.trainer is not None
        generation = self.trainer.generation_seconds
        rest = time.perf_counter() - self.start - generation
        self.phases.append({"generate": generation, "forward_backward": rest})

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)
        self.peaks.append(peak_memory_gib())


def peak_memory_gib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def random_reward(completions: list, **kwargs: Any) -> list[float]:
    """No group is flat, so every rollout is trained."""
    return [random.random() for _ in completions]


def main(job: dict[str, Any], folder: str) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    random.seed(job["seed"])
    prompts, settings = job["prompts"], settings_of(job, folder)
    ids = [prompt[-WARM_UP_TOKENS:] for prompt in prompts] + prompts * job["steps"]
    stopwatch = Stopwatch()
    trainer = TimedTrainer(
        model=job["model_folder"],
        reward_funcs=random_reward,
        args=settings,
        train_dataset=Dataset.from_dict({"prompt": [{"ids": prompt} for prompt in ids]}),
        rollout_func=unforced_rollout,
        processing_class=AutoTokenizer.from_pretrained(job["model_folder"]),
        callbacks=[stopwatch],
    )
    trainer.generate, stopwatch.trainer = job["generate"], trainer
    require_same_work(trainer)
    trainer.train()
    return measured(trainer, stopwatch, job)


def rollouts_of(job: dict[str, Any]) -> int:
    """The rollouts of a step."""
    return len(job["prompts"]) * job["group_size"]


def settings_of(job: dict[str, Any], folder: str) -> GRPOConfig:
    """The job as TRL says it: an optimizer step on the rollouts of all prompts."""
    on_gpu, full = job["device"] == "cuda", job["new_tokens"]
    # The one calls it so, the other so; vLLM stops at an end-of-text token unless told not to.
    exact = {"min_tokens": full, "ignore_eos": True} if on_gpu else {"min_new_tokens": full}
    return GRPOConfig(
        output_dir=folder,
        use_cpu=not on_gpu,
        use_vllm=on_gpu,
        vllm_mode="colocate",
        bf16=job["mixed"],
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=job["seed"],
        shuffle_dataset=False,
        max_steps=1 + job["steps"],
        per_device_train_batch_size=job["microbatch_rollouts"],
        gradient_accumulation_steps=rollouts_of(job) // job["microbatch_rollouts"],
        num_generations=job["group_size"],
        num_iterations=1,
        max_completion_length=full,
        generation_kwargs=exact,
        temperature=1.0,
        beta=0.0,
        learning_rate=job["learning_rate"],
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        weight_decay=0.01,
        optim="adamw_torch_fused",
        model_init_kwargs={"dtype": "float32"},
    )


def require_same_work(trainer: TimedTrainer) -> None:
    """Float32, full fine-tuning, no recomputation."""
    dtypes = {parameter.dtype for parameter in trainer.model.parameters()}
    trained = all(parameter.requires_grad for parameter in trainer.model.parameters())
    if dtypes != {torch.float32} or not trained or trainer.model.is_gradient_checkpointing:
        raise RuntimeError(f"not the case's work: {dtypes}, all trained: {trained}")


def measured(trainer: TimedTrainer, stopwatch: Stopwatch, job: dict[str, Any]) -> dict[str, Any]:
    """What was measured, without the first step, and what it was measured with."""
    return {
        "steps": [
            {"seconds": seconds, "phases": phases, "rollouts": rollouts_of(job)}
            for seconds, phases in zip(stopwatch.seconds[1:], stopwatch.phases[1:], strict=True)
        ],
        "peak_memory_gib": stopwatch.peaks[-1],
        "warm_up_peak_memory_gib": stopwatch.peaks[0],
        "threads": torch.get_num_threads(),
        "settings": {
            "microbatch_rollouts": job["microbatch_rollouts"],
            "gradient_accumulation_steps": trainer.args.gradient_accumulation_steps,
            "attention": trainer.model.config._attn_implementation,
            "loss_type": trainer.args.loss_type,
            "optimizer": "AdamW (fused)",
            "gradient_checkpointing": False,
            "bf16": trainer.args.bf16,
        },
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS}
        | {"python": platform.python_version()},
    }


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory() as output:
        found = main(given, output)
    Path(sys.argv[2]).write_text(json.dumps(found))
