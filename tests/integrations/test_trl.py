"""TRL's own `GRPOTrainer` on OpenRPT's task: run `python scripts/environments.py --check trl`."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import torch
from trl import GRPOConfig, GRPOTrainer

from openrpt.config.loading import to_toml, with_overrides
from openrpt.data.work import document_bytes
from openrpt.integrations.trl import TrlTask, open_task, unforced_rollout
from openrpt.rl.grading import grade
from openrpt.runs.run import Run
from openrpt.runs.scores import scores_of
from openrpt.stages.train import open_train
from openrpt.stages.warmup.warmup import warmup
from openrpt.types import Completion
from tests.helpers.tiny_model import copied_run, tiny_run

# TRL 1.16 uses names that transformers has deprecated, and says that rollout_func is experimental.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:You are using 'rollout_f")
PAGE = Path(__file__).parents[2] / "docs" / "trl.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A scored run with a policy that has learned the form."""
    folder = tmp_path_factory.mktemp("trl") / "runs"
    folder.mkdir()
    run = tiny_run(folder, run=str(folder / "maths"))
    warmup(run)
    return run


def settings(folder: Path, **values: Any) -> GRPOConfig:
    plain = {
        "output_dir": str(folder),
        "max_steps": 1,
        "per_device_train_batch_size": 6,
        "num_generations": 3,
        "shuffle_dataset": False,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return GRPOConfig(**(plain | values))


def trainer_of(task: TrlTask, args: GRPOConfig, **values: Any) -> GRPOTrainer:
    return GRPOTrainer(args=args, **task.parts | values)


def test_twenty_lines_train(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's own lines, on a run of that name. Each reward is what our grading gives for the
    text at that position of that document, and the mean of each step is what TRL logs."""
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert found is not None
    lines = [line for line in found[1].splitlines() if line.strip()]
    assert len(lines) <= 20
    seen: list[tuple[list[float], dict[str, Any]]] = []
    own = TrlTask.prefix_match

    def recorded(self: TrlTask, completion_ids: Any, continuation: Any, **columns: Any) -> Any:
        rewards = own(self, completion_ids, continuation, **columns)
        seen.append((rewards, {"completion_ids": completion_ids, **columns}))
        return rewards

    recorded.__name__ = "prefix_match"
    monkeypatch.setattr(TrlTask, "prefix_match", recorded)
    monkeypatch.chdir(run.path.parents[1])
    names: dict[str, Any] = {}
    before = {k: v.clone() for k, v in open_task(run.path).model.state_dict().items()}
    exec(found[1], names)
    task, trainer = names["task"], names["trainer"]
    assert any((before[k] != v).any() for k, v in task.model.state_dict().items())

    corpus = scores_of(run)
    for rewards, columns in seen:
        pairs = zip(rewards, columns["completion_ids"], columns["prompts"], strict=True)
        for reward, said, asked in pairs:
            whole = Completion(
                token_ids=tuple(said), sampler_logprobs=(), loss_mask=(), finish_reason="stop"
            )
            document = corpus.document(asked["document_id"])
            pieces = document_bytes(task.tokenizer, document)[asked["position"] :]
            assert reward == grade(whole, pieces, task.layout, task.policy.table).reward
    logged = [row["rewards/prefix_match/mean"] for row in trainer.state.log_history[:-1]]
    assert logged == [pytest.approx(sum(r) / len(r)) for r, _ in seen] and len(logged) == 20
    assert 0 < sum(logged) < 20


def test_a_prompt_comes_as_often_as_it_is_drawn_and_forced_tokens_are_not_trained(
    run: Run, tmp_path: Path
) -> None:
    """The contract of `rollout_func`, with two prompts; its text says that none comes twice."""
    task = open_task(run.path)
    given: list[Any] = []

    def rollout(prompts: Any, trainer: GRPOTrainer) -> Any:
        given.append((prompts, task.rollout(prompts, trainer)))
        return given[-1][1]

    trainer = trainer_of(
        task, settings(tmp_path, gradient_checkpointing=False), rollout_func=rollout
    )
    losses: list[Any] = []
    compute = trainer._compute_loss

    def computed(model: Any, inputs: Any) -> Any:
        losses.append(inputs)
        return compute(model, inputs)

    trainer._compute_loss = computed
    trainer.train()
    ((prompts, made),) = given
    assert len(prompts) == 6
    assert prompts[0] == prompts[1] == prompts[2] != prompts[3] == prompts[4] == prompts[5]
    (inputs,) = losses
    trained = inputs["completion_mask"] * inputs["tool_mask"]
    columns = (made["prompt_ids"], made["completion_ids"], made["env_mask"])
    found = [
        (
            inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()].tolist(),
            inputs["completion_ids"][row][inputs["completion_mask"][row].bool()].tolist(),
            trained[row][inputs["completion_mask"][row].bool()].tolist(),
        )
        for row in range(6)
    ]
    assert sorted(found) == sorted(zip(*columns, strict=True))  # TRL shuffles the rows
    assert int(inputs["num_items_in_batch"]) == sum(map(sum, made["env_mask"]))
    # What TRL finds for the drawn tokens is what they were drawn with.
    fresh = open_task(run.path)
    prompt, ids = prompts[0]["ids"], made["completion_ids"][0]
    with torch.no_grad():
        logits = fresh.model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    logprobs = logits.log_softmax(-1)[torch.arange(len(ids)), ids]
    drawn = torch.tensor(made["env_mask"][0]).bool()
    told = torch.tensor(made["logprobs"][0])
    assert torch.allclose(logprobs[drawn], told[drawn], atol=1e-4)


def test_trl_generates_itself_from_the_same_ids(run: Run, tmp_path: Path) -> None:
    plain = copied_run(run, "unforced", prompt__candidates=0, prompt__think_budget=4)
    (plain.path / "config.toml").write_text(to_toml(plain.config))
    task = open_task(plain.path)
    asked: list[Any] = []

    def rollout(prompts: Any, trainer: GRPOTrainer) -> Any:
        asked.append(prompts)
        return unforced_rollout(prompts, trainer)

    args = settings(tmp_path, max_completion_length=7, logging_steps=1)
    trainer = trainer_of(task, args, rollout_func=rollout)
    trainer.train()
    row = next(iter(task.dataset))
    assert asked[0][:3] == [row["prompt"]] * 3
    assert trainer.state.log_history[0]["completions/max_length"] <= 7


def test_trls_step_is_ours(run: Run, tmp_path: Path) -> None:
    """The same seed draws the same completions, and on those TRL's dr_grpo and AdamW make the step
    that `openrpt train` makes."""
    steps, alike = 3, {"train.algorithm": "dr_grpo", "train.kl_weight": 0.0}
    alike |= {"train.ntp_weight": 0.0, "train.entropy_weight": 0.0, "train.learning_rate": 1e-3}
    alike |= {"train.group_size": 8, "train.schedule_steps": 0}
    config = with_overrides(run.config, alike)
    stage = open_train(replace(run, config=config))
    own = [stage.step() for _ in range(steps)]
    assert own[0]["group/flat_fraction"] < 1  # AdamW counts a step without gradient in TRL alone
    task = open_task(run.path)
    train = config.train
    args = settings(
        tmp_path,
        max_steps=steps,
        per_device_train_batch_size=train.documents_per_step * 4 * train.group_size,
        num_generations=train.group_size,
        max_completion_length=task.max_completion_length,
        loss_type="dr_grpo",
        scale_rewards="none",
        learning_rate=train.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=config.optim.weight_decay,
        adam_beta2=config.optim.adam_beta2,
        max_grad_norm=config.optim.max_grad_norm,
        logging_steps=1,
    )
    trainer = trainer_of(task, args)
    trainer.train()
    theirs = trainer.state.log_history[:steps]
    for mine, other in zip(own, theirs, strict=True):
        assert mine["reward/mean"] == pytest.approx(other["reward"])
        assert mine["optim/grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    weights = dict(task.model.named_parameters())
    for name, parameter in stage.engine.model.network.named_parameters():
        assert torch.allclose(parameter, weights[name], atol=1e-5)


PROCESS = """
import json, sys
from pathlib import Path
from trl import GRPOConfig, GRPOTrainer
from openrpt.integrations.trl import open_task

task, asked = open_task(sys.argv[1]), []

def rollout(prompts, trainer):
    made = task.rollout(prompts, trainer)
    asked.extend((p["document_id"], p["position"]) for p in prompts)
    return made

def odd(completion_ids, **columns):
    return [float(sum(ids) % 2) for ids in completion_ids]

settings = GRPOConfig(
    output_dir=sys.argv[2], max_steps=2, per_device_train_batch_size=6, num_generations=4,
    learning_rate=1e-3, shuffle_dataset=False, use_cpu=True, bf16=False, report_to="none",
    save_strategy="no", disable_tqdm=True,
)
parts = task.parts | {"reward_funcs": odd, "rollout_func": rollout}
trainer = GRPOTrainer(args=settings, **parts)
trainer.train()
weights = float(sum(p.detach().double().abs().sum() for p in task.model.parameters()))
rank = trainer.accelerator.process_index
Path(sys.argv[2], f"{rank}.json").write_text(json.dumps({"weights": weights, "asked": asked}))
"""


def test_two_processes_share_the_prompts_and_the_weights(run: Run, tmp_path: Path) -> None:
    """DDP over gloo; of three prompts with four rollouts each, the second is drawn in both."""
    script = tmp_path / "train.py"
    script.write_text(PROCESS)
    torchrun = str(Path(sys.executable).parent / "torchrun")
    command = [torchrun, "--nproc-per-node", "2", str(script), str(run.path), str(tmp_path)]
    variables = os.environ | {"PYTHONPATH": str(PAGE.parents[1])}
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    own = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert own[0]["weights"] == own[1]["weights"]
    task = open_task(run.path)
    start = float(sum(p.detach().double().abs().sum() for p in task.model.parameters()))
    assert own[0]["weights"] != start
    prompts = [row["prompt"] for row in islice(task.dataset, 6)]
    places = [[p["document_id"], p["position"]] for p in prompts for _ in range(4)]
    first, second = own[0]["asked"], own[1]["asked"]
    assert first[:6] + second[:6] + first[6:] + second[6:] == places


def test_adapters_are_trained_alone(run: Run, tmp_path: Path) -> None:
    adapted = copied_run(run, "lora", model__lora_rank=2)
    (adapted.path / "config.toml").write_text(to_toml(adapted.config))
    task = open_task(adapted.path)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}

    def odd(completion_ids: Any, **columns: Any) -> list[float]:
        return [float(sum(ids) % 2) for ids in completion_ids]

    args = settings(tmp_path, max_steps=2, learning_rate=1e-2)
    trainer_of(task, args, reward_funcs=odd).train()
    after = task.model.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert changed and all("lora_" in name for name in changed)


def test_a_stopped_training_goes_on_to_the_same_weights(run: Run, tmp_path: Path) -> None:
    """Draws are keyed by the step, and the dataset is read up to where it stopped."""

    def weights(folder: Path, steps: int, **values: Any) -> dict[str, torch.Tensor]:
        task = open_task(run.path)
        kept = {"save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-3}
        args = settings(folder, max_steps=steps, lr_scheduler_type="constant", **kept)
        trainer_of(task, args).train(**values)
        return task.model.state_dict()

    whole = weights(tmp_path / "whole", 3)
    weights(tmp_path / "part", 1)
    resumed = weights(tmp_path / "part", 3, resume_from_checkpoint=True)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
