"""A step that several workers share is the step of one: what is trained on, gradients, metrics."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch

from openrpt.engine.checkpoint_record import TrainerState
from openrpt.engine.engine import bind
from openrpt.engine.model import Model
from openrpt.rl.batch import Graded, Weighted
from openrpt.rl.collect import Collector, batch_metrics
from openrpt.rl.nonfinite import NotFinite
from openrpt.rl.update import update_policy
from openrpt.rl.workers import ALONE, Workers
from openrpt.stages.text_task import text_task
from tests.helpers.byte_policy import policy_of
from tests.helpers.exact import exact_batch, exact_config
from tests.helpers.tiny_model import tiny_run
from tests.helpers.updates import assert_equal, batch_of, config_of, gradients, layout_of


@dataclass
class _Meeting:
    """Where threads wait for one another and lay down what they give."""

    count: int
    given: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = Barrier(self.count, timeout=300)

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.given[rank] = value
        self.barrier.wait()
        found = [self.given[other] for other in range(self.count)]
        self.barrier.wait()
        return found


@dataclass
class Threads:
    """One of several threads, each with a model of its own; sums are real sums."""

    rank: int
    meeting: _Meeting

    @property
    def count(self) -> int:
        return self.meeting.count

    def share(self, items: Sequence[Any]) -> list[Any]:
        return list(items)[self.rank :: self.count]

    def gather(self, value: Any) -> list[Any]:
        return self.meeting.exchange(self.rank, value)

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        own = [None if p.grad is None else p.grad.clone() for p in parameters]
        each = self.meeting.exchange(self.rank, own)
        for parameter, parts in zip(parameters, zip(*each, strict=True), strict=True):
            known = [part for part in parts if part is not None]
            parameter.grad = torch.stack(known).sum(0) if known else None


def in_threads(count: int, work: Callable[[Workers, Model], Any]) -> list[Any]:
    """What each of `count` workers, given a model of its own, comes to; raises what one raises."""
    meeting, found, errors = _Meeting(count), {}, []
    policies = [policy_of() for _ in range(count)]  # one after another: torch's seed is global

    def run(rank: int) -> None:
        try:
            found[rank] = work(Threads(rank=rank, meeting=meeting), policies[rank])
        except BaseException as error:
            errors.append(error)
            meeting.barrier.abort()

    threads = [Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [found[rank] for rank in range(count)]


@pytest.mark.parametrize("algorithm", ["grpo", "reinforce_plus_plus", "maxrl, exact"])
def test_the_gradient_of_a_shared_batch_is_the_whole_one(algorithm: str) -> None:
    """NTP + policy + entropy: in float64, by two workers and by three, of which one has nothing."""
    name, _, exact = algorithm.partition(", ")
    if exact:
        config = exact_config(train__algorithm=name)
        batch = exact_batch(policy_of(), config)
    else:
        config = config_of(train__algorithm=name, train__kl_weight=0.0)
        batch = batch_of(policy_of(), config)
    expected, metrics = gradients(policy_of(), "tree", batch, config)

    def update(workers: Workers, policy: Model) -> Any:
        optimizer = torch.optim.SGD(policy.parameters(), lr=0.0)
        found = update_policy(
            bind("tree", policy),
            optimizer,
            batch,
            config,
            layout_of(policy, config),
            workers=workers,
        )
        return {
            n: p.grad for n, p in policy.network.named_parameters() if p.grad is not None
        }, found

    for count in (2, 3):
        for found, own_metrics in in_threads(count, update):
            assert_equal(found, expected, tolerance=1e-10)
            assert own_metrics == pytest.approx(metrics, rel=1e-10, abs=1e-14)


def test_a_gradient_that_is_not_finite_is_met_by_all() -> None:
    config = config_of(train__kl_weight=0.0, train__ntp_weight=0.0)
    batch = batch_of(policy_of(), config)
    batch[1].advantages[2, 0] = float("inf")

    def update(workers: Workers, policy: Model) -> str:
        optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
        engine, layout = bind("tree", policy), layout_of(policy, config)
        with pytest.raises(NotFinite) as error:
            update_policy(engine, optimizer, batch, config, layout, workers=workers)
        return str(error.value)

    assert all("the update was not made" in said for said in in_threads(2, update))


def facts(batch: Sequence[Graded]) -> list[Any]:
    return [
        (
            graded.work.document.document_id,
            graded.groups,
            graded.advantages.tolist() if isinstance(graded, Weighted) else None,
        )
        for graded in batch
    ]


@pytest.mark.parametrize("algorithm", ["reinforce_plus_plus", "dapo"])
def test_what_is_trained_on_does_not_depend_on_the_workers(tmp_path: Path, algorithm: str) -> None:
    """Rollouts, advantages, cursor and pass rates; `dapo` goes on for live groups, and the three
    documents of a round are no multiple of two workers."""
    run = tiny_run(
        tmp_path,
        train__algorithm=algorithm,
        train__documents_per_step=3,
        train__dynamic_sampling_rounds=3,
        reward__terms={"random": 1.0},
        reward__random_probability=0.2,
    )

    def collect(workers: Workers, policy: Model) -> Any:
        engine, layout = bind("tree", policy), layout_of(policy, run.config)
        task = text_task(run, engine, layout)
        collector = Collector(
            config=run.config, sampler=engine, task=task, layout=layout, workers=workers
        )
        state = TrainerState(stage="train", step=1)
        steps = []
        for _ in range(2):
            batch, generated = collector.collect(state)
            metrics = batch_metrics(batch, generated)
            steps.append((facts(batch), facts(generated), metrics, replace(state)))
            state.step += 1
        return steps

    alone = collect(ALONE, policy_of())
    assert any(any(group) for _, _, rows in alone[0][0] for group in rows)
    for found in in_threads(2, collect):
        assert rounded(found) == rounded(alone)


def rounded(found: Any) -> str:
    """As text, floats to 9 digits: documents that share a pass change the last bits."""
    return re.sub(r"-?\d+\.\d+(e-?\d+)?", lambda match: f"{float(match[0]):.9g}", repr(found))
