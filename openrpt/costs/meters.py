"""What a piece of work and a training step cost as they run: FLOPs, seconds, energy, money, and
the share of the machine's limit that was reached."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from openrpt.config.sections import Config
from openrpt.costs.energy import EnergyMeter, money
from openrpt.costs.flops import (
    Ledger,
    count_alone,
    count_scoring,
    count_tree,
    generation_ledger,
    model_shape,
    prefix_passes,
    spans_ledger,
)
from openrpt.costs.limits import model_rate, shares_of_limit
from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.engine.around import Around
from openrpt.engine.branches import Branch
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine
from openrpt.engine.generation import STANDARD_TOP, Generated
from openrpt.engine.model import Model
from openrpt.engine.standard import Standard


@dataclass(frozen=True, kw_only=True, eq=False)
class CountingEngine(Around):
    """An engine around another: what it generates, predicts and rates is added up in `ledger`.

    States and gradients are not counted here: whoever asks for them knows which of them are read.
    """

    ledger: Ledger
    passes: int = 1
    """Passes over a prefix, where a thought is seeded: `prefix_passes`."""

    def generate_each(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> Iterator[list[Generated]]:
        """Yields what the engine generates, and counts it: `Sampler.generate_each`."""
        passes = self.passes if sampling.candidates else 1
        each = self.engine.generate_each(requests, layout, sampling)
        for request, found in zip(requests, each, strict=True):
            made = [outcome.completions for outcome in found]
            positions = list(zip(request.prefix_lengths, made, strict=True))
            prefix_tokens, tail_tokens = len(request.prefix_ids), len(layout.tail_ids)
            self.ledger.add(generation_ledger(prefix_tokens, positions, tail_tokens, passes=passes))
            behind = [len(outcome.standard_ids) - 1 for outcome in found]
            self.ledger.add(spans_ledger(request.prefix_lengths, behind))
            yield found

    def standard(
        self,
        prefix_ids: Sequence[int],
        lengths: Sequence[int],
        *,
        k: int = STANDARD_TOP,
        delimiter_ids: Collection[int] = (),
    ) -> Standard:
        """Returns standard prediction, and counts it: `Engine.standard`."""
        self.ledger.add(generation_ledger(len(prefix_ids), [(n, ()) for n in lengths], 0))
        return self.engine.standard(prefix_ids, lengths, k=k, delimiter_ids=delimiter_ids)

    def branch_states(
        self, prefix_ids: Sequence[int], branches: Sequence[Branch]
    ) -> list[list[Tensor]]:
        """Returns the states of the branches, and counts them: `Engine.branch_states`."""
        logits = sum(len(ids) for branch in branches for ids in branch.completions)
        self.ledger.shared.add(count_tree(len(prefix_ids), branches, logits))
        self.ledger.alone.add(count_alone(branches, logits))
        return self.engine.branch_states(prefix_ids, branches)


SUMMED = ("tokens", "flops", "flops_alone", "seconds", "joules")
"""The parts of a cost that add up, where several processes did one piece of work in turn."""


class WorkMeter:
    """A meter of work without gradients (scoring, evaluation), from when it is made."""

    engine: Engine
    """The engine to work with: what it runs is counted."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self.config = config
        self.ledger = Ledger()
        passes = prefix_passes(config.prompt)
        self.engine = CountingEngine(engine=engine, ledger=self.ledger, passes=passes)
        self.energy = EnergyMeter(engine.model.device, watts=config.cost.watts)
        self.started = time.perf_counter()
        self.earlier: dict[str, float] = dict.fromkeys(SUMMED, 0)

    def add(self, *costs: Mapping[str, float]) -> None:
        """Counts what an earlier process took for a part of the work, each as `cost` says it."""
        for cost in costs:
            for name in SUMMED:
                self.earlier[name] += cost.get(name, 0)

    def add_scoring(self, tokens: int, *, window: int, min_context: int) -> None:
        """Counts that a document of plain text was read, window by window."""
        head = len(self.engine.model.bos_ids)
        count = count_scoring(tokens, head=head, window=window, min_context=min_context)
        self.ledger.shared.add(count)
        self.ledger.alone.add(count)

    def cost(self) -> dict[str, Any]:
        """Returns what the work took so far: FLOPs with and without sharing; `money` only where the
        config has a price."""
        shape, price = model_shape(self.engine.model), self.config.cost
        own = {
            "tokens": self.ledger.shared.tokens,
            "flops": self.ledger.shared.forward(shape),
            "flops_alone": self.ledger.alone.forward(shape),
            "seconds": time.perf_counter() - self.started,
            "joules": self.energy.joules(),
        }
        found: dict[str, Any] = {name: own[name] + self.earlier[name] for name in SUMMED}
        found["energy_measured"] = self.energy.measured
        if price.price_per_hour:
            found["money"] = money(found["seconds"], price.price_per_hour)
            found["currency"] = price.currency
        return found


class StepMeter:
    """A meter of one training step after another."""

    def __init__(self, policy: Model, config: Config, *, processes: int = 1) -> None:
        """Takes the policy that is trained; `processes`: those that share each step."""
        self.policy, self.processes = policy, processes
        self.began = time.perf_counter(), time.process_time()
        self.energy = EnergyMeter(policy.device, watts=config.cost.watts)

    @cached_property
    def rate(self) -> float:
        """FLOP/s of the model's matrix products, here and now: measured after the first step, so
        that no one waits for it before the first token."""
        return model_rate(self.policy)

    def begin(self) -> None:
        """Begins to measure a step."""
        self.energy.begin()
        self.began = time.perf_counter(), time.process_time()

    def metrics(self, cost: Mapping[str, float], seconds: Mapping[str, float]) -> dict[str, float]:
        """Returns the step's energy, its shares of the limit and the processor cores that it kept
        busy; `cost` has `flops/PHASE`, `seconds` the wall time by phase."""
        wall, processor = self.began
        busy = (time.process_time() - processor) / (time.perf_counter() - wall)
        phases = [name for name in cost if name.startswith("flops/")]
        flops = {name.removeprefix("flops/"): cost[name] for name in phases}
        shares = shares_of_limit(self.processes * self.rate, flops, seconds)
        return self.energy.metrics() | shares | {"efficiency/cores_busy": busy}
