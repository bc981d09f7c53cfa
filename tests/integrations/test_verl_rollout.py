"""The rollout half of a step of verl's trainer: workers on Ray, its queue, dynamic sampling.

Run by `python scripts/environments.py --check verl`, in verl's environment. A local Ray cluster,
verl's own manager, workers, TransferQueue and replay buffer; only the servers are a stand-in.
"""

import os
import uuid
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("verl", reason="needs verl's environment")

import ray
import transfer_queue
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils import tensordict_utils
from verl.utils.dataset.rl_dataset import collate_fn

from tests.helpers.numbers import record
from tests.helpers.verl_made import GROUP, Made

_BATCH = 4
"""Groups of a step."""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    environment = {"TRANSFER_QUEUE_ENABLE": "1", "PYTHONPATH": os.environ["PYTHONPATH"]}
    ray.init("local", num_cpus=8, include_dashboard=False, runtime_env={"env_vars": environment})
    yield Made(tmp_path)
    transfer_queue.close()
    ray.shutdown()


class _Trainer:
    """What `PPOTrainerSync` does up to the batch that it trains on."""

    def __init__(self, made: Made) -> None:
        self.config = made.config(
            "dynamic",
            "transfer_queue.enable=true",
            "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
            "actor_rollout_ref.rollout.agent.num_workers=1",
            f"data.train_batch_size={_BATCH}",
        )
        transfer_queue.init(self.config.transfer_queue)
        # Every third group is flat, whatever is drawn; others may be by chance.
        server = made.server(hopeless=slice(None, None, 3))
        self.manager = AgentLoopManagerTQ.create(config=self.config, llm_client=server)
        self._dataset, self.taken = made.dataset(), 0

    def add(self, count: int) -> None:
        """Sends the next prompts to the workers."""
        rows = [self._dataset[self.taken + n] for n in range(count)]
        self.taken += count
        batch = collate_fn(rows)
        batch["uid"] = np.array([uuid.uuid4().hex for _ in rows], dtype=object)
        sent = tensordict_utils.get_tensordict(batch)
        tensordict_utils.assign_non_tensor_data(sent, "global_steps", 1)
        tags = [{"is_prompt": True, "status": "pending", "global_steps": 1} for _ in rows]
        transfer_queue.kv_batch_put(keys=list(batch["uid"]), partition_id="train", tags=tags)
        self.manager.generate_sequences(sent)

    def sample(self) -> tuple[dict[str, list[Any]], dict[str, Any]]:
        """Returns the step's rollouts, and what became of the others."""
        settings = self.config.algorithm.filter_groups
        buffer = ReplayBuffer(
            trainer_mode="sync",
            trainer_config=self.config.trainer.v1.sync,
            max_off_policy_threshold=8,
            max_off_policy_strategy="drop",
            sampler_kwargs={},
            poll_interval=0.5,
            refill_fn=self.add,
            filter_groups_metric=settings.metric,
            train_batch_size=_BATCH,
            gen_batch_size=self.config.data.gen_batch_size,
            max_inflight_gen_batches=settings.max_inflight_gen_batches,
        )
        found, metrics = buffer.sample(global_steps=1, partition_id="train", batch_size=_BATCH)
        fields = ["uid", "responses", "response_mask", "rm_scores", "extra_info", "extra_fields"]
        data = transfer_queue.kv_batch_get(
            keys=found.keys, partition_id="train", select_fields=fields
        )
        return {name: list(data[name]) for name in fields}, metrics


def test_a_step_is_filled_with_groups_that_are_not_flat(made: Made) -> None:
    trainer = _Trainer(made)
    trainer.add(_BATCH)
    data, metrics = trainer.sample()
    groups: dict[str, list[float]] = defaultdict(list)
    for uid, ids, mask, reward, info, extra in zip(*data.values(), strict=True):
        own = getattr(info, "data", info)
        score = float(reward.sum())
        assert score == made.reward(ids.tolist(), own)
        assert len(mask) == len(ids)
        measured = getattr(extra, "data", extra)["reward_extra_info"]
        assert measured["acc"] == score and measured["forced"] == float(0 in mask.tolist())
        groups[str(getattr(uid, "data", uid))].append(score)
    assert len(groups) == _BATCH
    assert all(len(group) == GROUP and len(set(group)) == 2 for group in groups.values())
    evicted = metrics.get("training/filter_groups/evicted_samples", 0)
    assert evicted >= 2 and trainer.taken >= _BATCH + evicted
    record(queue_groups=len(groups), queue_flat_groups=int(evicted), queue_taken=trainer.taken)
