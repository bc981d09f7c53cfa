"""What TRL's GRPOTrainer makes of a run, beside `openrpt train`: rewards and seconds of each step.

    ~/.cache/openrpt/environments/trl/bin/python scripts/measure_trl.py RUN --steps 40

RUN is scored and warmed up; nothing is written into it. Both begin from the same policy, take the
same positions in the same order with the same draws, and make equal steps (dr_grpo, no KL term, no
plain next-token loss). Each of TRL's rewards is graded again, as `openrpt train` grades.
"""

import argparse
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trl import GRPOConfig, GRPOTrainer

from openrpt.config.loading import with_overrides
from openrpt.errors import UserError
from openrpt.files import write_text
from openrpt.integrations.trl import TrlTask, open_task
from openrpt.json_files import json_text
from openrpt.rl.grading import grade
from openrpt.runs.run import Run, existing_run
from openrpt.stages.train import open_train
from openrpt.terminal import say, say_error
from openrpt.types import Completion

_SETTINGS = {
    "train.algorithm": "dr_grpo",
    "train.kl_weight": 0.0,
    "train.ntp_weight": 0.0,
    "train.entropy_weight": 0.0,
    "train.schedule_steps": 0,
}
_VERSIONS = ("trl", "transformers", "torch", "datasets", "accelerate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--output", type=Path, default=Path("docs/results/trl.json"))
    given = parser.parse_args()
    stored = existing_run(given.run)
    run = Run(path=stored.path, config=with_overrides(stored.config, _SETTINGS))
    theirs = by_trl(open_task(given.run), run, given.steps)
    own = by_openrpt(run, given.steps)
    train = run.config.train
    found = {
        "model": run.config.model.path,
        "corpus": run.config.corpus.path,
        "positions_a_step": train.documents_per_step * train.positions_per_document,
        "group_size": train.group_size,
        "learning_rate": train.learning_rate,
        "trl": theirs,
        "openrpt": own,
        "versions": {name: version(name) for name in _VERSIONS},
    }
    write_text(given.output, json_text(found))
    say(f"written: {given.output}")


def by_trl(task: TrlTask, run: Run, steps: int) -> dict[str, Any]:
    train, optim = run.config.train, run.config.optim
    checked = {"rewards": 0, "differ": 0}

    def prefix_match(**columns: Any) -> list[float]:
        rewards = task.prefix_match(**columns)
        pairs = zip(columns["completion_ids"], columns["continuation"], strict=True)
        again = [_graded(task, ids, continuation) for ids, continuation in pairs]
        checked["rewards"] += len(rewards)
        checked["differ"] += sum(a != b for a, b in zip(rewards, again, strict=True))
        return rewards

    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=train.documents_per_step
            * train.positions_per_document
            * train.group_size,
            num_generations=train.group_size,
            max_completion_length=task.max_completion_length,
            temperature=train.temperature,
            loss_type="dr_grpo",
            scale_rewards="none",
            learning_rate=train.learning_rate,
            lr_scheduler_type="constant",
            weight_decay=optim.weight_decay,
            adam_beta1=optim.adam_beta1,
            adam_beta2=optim.adam_beta2,
            max_grad_norm=optim.max_grad_norm,
            gradient_checkpointing=False,
            shuffle_dataset=False,
            logging_steps=1,
            use_cpu=True,
            bf16=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(args=settings, **task.parts | {"reward_funcs": prefix_match})
        trainer.train()
    rows = [row for row in trainer.state.log_history if "reward" in row]
    return {
        "reward": [round(row["reward"], 4) for row in rows],
        "seconds_a_step": [round(row["step_time"], 3) for row in rows],
    } | checked


def _graded(task: TrlTask, ids: list[int], continuation: list[bytes]) -> float:
    whole = Completion(
        token_ids=tuple(ids), sampler_logprobs=(), loss_mask=(), finish_reason="stop"
    )
    return grade(whole, continuation, task.layout, task.policy.table).reward


def by_openrpt(run: Run, steps: int) -> dict[str, Any]:
    stage = open_train(run)
    rewards, seconds = [], []
    for _ in range(steps):
        start = time.perf_counter()
        rewards.append(round(stage.step()["reward/mean"], 4))
        seconds.append(round(time.perf_counter() - start, 3))
    return {"reward": rewards, "seconds_a_step": seconds}


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        say_error(str(error))
        sys.exit(2)
