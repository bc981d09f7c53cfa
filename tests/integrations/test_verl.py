"""What is exported for verl, against verl itself, as far as that goes without a GPU.

Run by `python scripts/environments.py --check verl`, in verl's environment.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("verl", reason="needs verl's environment")

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils import tensordict_utils
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.utils.dataset.rl_dataset import collate_fn

from openrpt.errors import UserError
from openrpt.integrations.verl.__main__ import check as check_folder
from openrpt.integrations.verl.reward import score
from openrpt.rl.advantages import group_advantages
from tests.helpers.numbers import record
from tests.helpers.verl_export import rows, some_completion
from tests.helpers.verl_made import GROUP, Made

_CASES = 10_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("verl"))


def test_verls_dataset_reads_the_rows(made: Made) -> None:
    """As they were written, through its batches to what is sent to the workers."""
    for name in ("train", "development"):
        dataset, written = made.dataset(name), rows(made.folder, name)
        assert len(dataset) == len(written) > 10
        batch = collate_fn([dataset[n] for n in range(len(dataset))])
        sent = tensordict_utils.get_tensordict(batch)
        assert [sent["extra_info"][n] for n in range(len(written))] == [
            row["extra_info"] for row in written
        ]
        assert batch["data_source"].tolist() == [row["data_source"] for row in written]
        record(**{f"{name}_rows": len(written)})


@pytest.mark.parametrize("name", ["rpt", "dynamic", "dapo"])
def test_the_configuration_is_verls(made: Made, name: str) -> None:
    """It composes with verl's own, has no key that verl lacks, and passes its validation."""
    defaults = made.config()  # a struct: verl's keys and `folder`
    config = made.config(name, "trainer.n_gpus_per_node=8")
    validate_config(config, need_reference_policy(config), need_critic(config))
    assert not need_critic(config) and not need_reference_policy(config)
    with initialize_config_dir(config_dir=_verls_own(), version_base=None):
        own = compose(config_name="ppo_trainer")
    assert _keys(config) - _keys(own) == {"folder"}
    assert OmegaConf.to_container(defaults, resolve=True)["folder"] == str(made.folder)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    omega_conf_to_dataclass(config.algorithm)
    train = made.run.config.train
    assert actor.optim.lr == train.learning_rate
    assert actor.optim.clip_grad == made.run.config.optim.max_grad_norm
    assert (actor.ppo_mini_batch_size, rollout.n) == (config.data.train_batch_size, GROUP)
    assert actor.clip_ratio_high == (0.28 if name == "dapo" else 0.2)
    assert config.algorithm.filter_groups.enable == (name != "rpt")
    longest = max(len(row["extra_info"]["prompt_ids"]) for row in rows(made.folder))
    assert longest <= rollout.prompt_length <= longest + 8  # development rows may be longer
    assert rollout.max_model_len == rollout.prompt_length + rollout.response_length


def _verls_own() -> str:
    import verl.trainer

    return str(Path(verl.trainer.__file__).parent / "config")


def _keys(config: DictConfig, before: str = "") -> set[str]:
    found = set()
    for key in config:
        value = None if OmegaConf.is_missing(config, key) else config._get_node(key)
        name = f"{before}{key}"
        if isinstance(value, DictConfig):
            found |= _keys(value, f"{name}.") if len(value) else {name}
        else:
            found.add(name)
    return found


def test_the_script_calls_verls_trainer(made: Made) -> None:
    """Hydra prints what each launch would run with."""
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(made.folder)}
    environment |= {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "GPUS": "4"}
    command = ["bash", str(made.folder / "train.sh"), "--cfg", "job"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    shown = OmegaConf.create(done.stdout)
    assert shown.trainer.n_gpus_per_node == 4
    assert shown.trainer.total_training_steps == made.run.config.train.steps
    assert shown.actor_rollout_ref.rollout.agent.default_agent_loop == "openrpt"


def test_the_second_launch_goes_on_where_the_first_stopped(made: Made) -> None:
    """The dataloader's state, which verl keeps in a checkpoint, with and without filtering."""
    dataset = made.dataset()

    def loader() -> StatefulDataLoader:
        size = made.config("dynamic").data.gen_batch_size
        assert size == made.config("rpt").data.gen_batch_size == 1
        return StatefulDataLoader(dataset, batch_size=size, collate_fn=collate_fn, drop_last=True)

    first = loader()
    read = [batch["index"][0] for _, batch in zip(range(17), first, strict=False)]
    second = loader()
    second.load_state_dict(first.state_dict())
    rest = [batch["index"][0] for batch in second]
    assert len(read) == 17 and [*read, *rest] == list(range(len(dataset)))


def test_the_reward_on_ten_thousand_cases(made: Made) -> None:
    """Through a row that verl's dataset has read, against the document itself."""
    dataset, rng = made.dataset(), np.random.default_rng(1)
    brace = made.table.bytes.index(b"}")
    right = different = 0
    for case in range(_CASES):
        info = dataset[case % len(dataset)]["extra_info"]
        said = some_completion(made.form, made.true_ids(info), len(made.table.bytes), rng)
        ids = [*said.token_ids, brace] if rng.random() < 0.9 else list(said.token_ids)
        ended = type(said)(
            token_ids=tuple(ids),
            sampler_logprobs=(0.0,) * len(ids),
            loss_mask=(*said.loss_mask, *[True] * (len(ids) - len(said.token_ids))),
            finish_reason="stop",
        )
        expected = made.reward(ids, info)
        different += score(ended, info, made.form, made.table).reward != expected
        right += expected == 1.0
    record(reward_cases=_CASES, reward_right=right, reward_different=different)
    assert different == 0 and _CASES / 4 < right < _CASES * 3 / 4


def _worker(made: Made, name: str = "rpt", *overrides: str) -> AgentLoopWorker:
    return AgentLoopWorker(made.config(name, *overrides), made.server())


def _batch(made: Made, count: int) -> DataProto:
    """Rows as the trainer gives them to a worker, each a group's size of times."""
    dataset = made.dataset()
    found = [dataset[n] for n in range(count) for _ in range(GROUP)]
    return DataProto.from_single_dict(collate_fn(found))


def test_the_agent_loop_in_verls_worker(made: Made) -> None:
    """verl's worker makes the loop from agent_loop.yaml and pads what it gives; every reward is
    that of the document, every forced token is masked."""
    config = made.config()
    out = asyncio.run(_worker(made).generate_sequences(_batch(made, 24)))
    batch, info = out.batch, out.non_tensor_batch["extra_info"]
    width = config.data.max_prompt_length
    assert batch["prompts"].shape == (24 * GROUP, width)
    assert batch["responses"].shape == (24 * GROUP, config.data.max_response_length)
    rewards, forced = [], 0
    for n in range(len(out)):
        length = int(batch["attention_mask"][n, width:].sum())
        ids = batch["responses"][n, :length].tolist()
        mask = batch["response_mask"][n].tolist()
        prompt = batch["input_ids"][n, :width][batch["attention_mask"][n, :width] > 0].tolist()
        assert prompt == info[n]["prompt_ids"]
        reward = batch["rm_scores"][n]
        assert float(reward.sum()) == float(reward[length - 1]) == made.reward(ids, info[n])
        assert out.non_tensor_batch["acc"][n] == float(reward.sum())
        zeros = [i for i in range(length) if not mask[i]]
        logprobs = batch["rollout_log_probs"][n, :length].tolist()
        assert [logprobs[i] for i in zeros] == [0.0] * len(zeros)
        if zeros:
            forced += 1
            assert [ids[i] for i in zeros] == list(made.form.close_ids)
            assert zeros == list(range(made.form.think_budget, zeros[-1] + 1))
        rewards.append(float(reward.sum()))
        assert bool(zeros) == bool(out.non_tensor_batch["forced"][n])
    assert 0 < forced < len(out) and 0 < sum(rewards) < len(out)
    record(loop_rollouts=len(out), loop_right=int(sum(rewards)), loop_forced=forced)
    # What verl makes of them is what training here does.
    index = np.repeat(np.arange(24), GROUP).astype(object)
    theirs, _ = compute_grpo_outcome_advantage(batch["rm_scores"], batch["response_mask"], index)
    ours = group_advantages(torch.tensor(rewards, dtype=torch.float64).view(24, GROUP)).flatten()
    mask = batch["response_mask"].bool()
    torch.testing.assert_close(theirs[mask], ours[:, None].expand_as(theirs)[mask].float())


def test_the_penalty_of_dapos_loop(made: Made) -> None:
    out = asyncio.run(_worker(made, "dapo").generate_sequences(_batch(made, 12)))
    extra = out.non_tensor_batch
    rewards = out.batch["rm_scores"].sum(1).numpy()
    penalties = rewards - extra["acc"]
    assert (penalties[extra["stopped"] == 0] == pytest.approx(-1.0)) and (penalties <= 0).all()
    assert len(set(extra["acc"])) == 2


def test_a_prompt_is_never_cut(made: Made) -> None:
    worker = _worker(made, "rpt", "data.max_prompt_length=5")
    with pytest.raises(Exception, match=r"data\.max_prompt_length is 5"):
        asyncio.run(worker.generate_sequences(_batch(made, 2)))


def test_another_tokenizer_is_refused(made: Made, tmp_path: Path) -> None:
    other = AutoTokenizer.from_pretrained(made.folder.parent / "model")
    other.add_tokens(["zebra"])
    AutoModelForCausalLM.from_pretrained(made.folder.parent / "model").save_pretrained(tmp_path)
    other.save_pretrained(tmp_path)
    worker = _worker(made, "rpt", f"actor_rollout_ref.model.path={tmp_path}")
    with pytest.raises(Exception, match="is not the one that the prompts were exported with"):
        asyncio.run(worker.generate_sequences(_batch(made, 1)))


def test_a_folder_is_checked_before_a_launch(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_folder(made.folder)
    copy = Path(shutil.copytree(made.folder, tmp_path / "copy"))
    own = (made.folder / "rpt.yaml").read_text()
    (copy / "rpt.yaml").write_text(own.replace(f"{made.folder.parent}/model", "/nowhere"))
    with pytest.raises(UserError, match=r"the model /nowhere is not on this machine"):
        check_folder(copy)
    (copy / "rpt.yaml").write_text(own)
    loop = (copy / "agent_loop.yaml").read_text()
    (copy / "agent_loop.yaml").write_text(loop.replace(made.form.tokenizer, "0" * 16))
    with pytest.raises(UserError, match="is not the one that the prompts were exported with"):
        check_folder(copy)
    (copy / "train.parquet").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "openrpt.integrations.verl", str(copy)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("openrpt: ") and "train.parquet is missing" in done.stderr
    assert done.stderr.count("\n") == 1
    monkeypatch.setattr("openrpt.integrations.verl.__main__.version", lambda name: "0.8.0")
    with pytest.raises(UserError, match=r"verl 0\.8\.0 is installed"):
        check_folder(made.folder)
