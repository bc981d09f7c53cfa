"""What a piece of work and a training step cost as they run: FLOPs, seconds, energy, money, and
the share of the machine's limit that was reached."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

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
)
from openrpt.costs.limits import model_rate, shares_of_limit
from openrpt.data.prompts import Layout
from openrpt.engine.branches import Branch
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine
from openrpt.engine.generation import Generated, Generator, Request
from openrpt.engine.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class CountingGenerator:
    """Another generator, whose work is added up in `ledger`."""

    generator: Generator
    ledger: Ledger
    passes: int = 1

    def generate(self, request: Request, layout: Layout, sampling: Sampling) -> list[Generated]:
        found = self.generator.generate(request, layout, sampling)
        self._count(request, layout, found)
        return found

    def generate_each(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> Iterator[list[Generated]]:
        each = self.generator.generate_each(requests, layout, sampling)
        for request, found in zip(requests, each, strict=True):
            self._count(request, layout, found)
            yield found

    def _count(self, request: Request, layout: Layout, found: Sequence[Generated]) -> None:
        made = [outcome.completions for outcome in found]
        positions = list(zip(request.prefix_lengths, made, strict=True))
        prefix_tokens, tail_tokens = len(request.prefix_ids), len(layout.tail_ids)
        self.ledger.add(
            generation_ledger(prefix_tokens, positions, tail_tokens, passes=self.passes)
        )


def counting_engine(engine: Engine, ledger: Ledger, passes: int = 1) -> Engine:
    """The same engine; what it runs without gradient is added to the ledger."""

    def branch_hidden(
        policy: Model, prefix_ids: Sequence[int], branches: Sequence[Branch], **more: Any
    ) -> Any:
        logits = sum(len(ids) for branch in branches for ids in branch.completions)
        ledger.shared.add(count_tree(len(prefix_ids), branches, logits))
        ledger.alone.add(count_alone(branches, logits))
        return engine.branch_hidden(policy, prefix_ids, branches, **more)

    generator = CountingGenerator(generator=engine.generator, ledger=ledger, passes=passes)
    return replace(engine, generator=generator, branch_hidden=branch_hidden)


class WorkMeter:
    """Of work without gradients (scoring, evaluation), from when it is made."""

    def __init__(self, policy: Model, config: Config) -> None:
        self.policy, self.config = policy, config
        self.ledger = Ledger()
        self.energy = EnergyMeter(policy.device, watts=config.cost.watts)
        self.started = time.perf_counter()

    def counting(self, engine: Engine) -> Engine:
        """The engine to work with: what it runs is counted."""
        return counting_engine(engine, self.ledger, prefix_passes(self.config.prompt))

    def add_scoring(self, tokens: int, *, window: int, min_context: int) -> None:
        """A document of plain text was read, window by window."""
        head = len(self.policy.bos_ids)
        count = count_scoring(tokens, head=head, window=window, min_context=min_context)
        self.ledger.shared.add(count)
        self.ledger.alone.add(count)

    def cost(self) -> dict[str, Any]:
        """So far. FLOPs with and without sharing; `money` only where the config has a price."""
        seconds = time.perf_counter() - self.started
        shape, price = model_shape(self.policy), self.config.cost
        found: dict[str, Any] = {
            "tokens": self.ledger.shared.tokens,
            "flops": self.ledger.shared.forward(shape),
            "flops_alone": self.ledger.alone.forward(shape),
            "seconds": seconds,
            "joules": self.energy.joules(),
            "energy_measured": self.energy.measured,
        }
        if price.price_per_hour:
            found["money"] = money(seconds, price.price_per_hour)
            found["currency"] = price.currency
        return found


class StepMeter:
    """Of one training step after another."""

    def __init__(self, policy: Model, config: Config) -> None:
        self.policy = policy
        self.energy = EnergyMeter(policy.device, watts=config.cost.watts)

    @cached_property
    def rate(self) -> float:
        """FLOP/s of the model's matrix products, here and now: measured after the first step, so
        that no one waits for it before the first token."""
        return model_rate(self.policy)

    def begin(self) -> None:
        """A step begins."""
        self.energy.begin()

    def metrics(self, cost: Mapping[str, float], seconds: Mapping[str, float]) -> dict[str, float]:
        """The step's energy and its shares of the limit; `cost` has `flops/PHASE`, `seconds` the
        wall time by phase."""
        phases = [name for name in cost if name.startswith("flops/")]
        flops = {name.removeprefix("flops/"): cost[name] for name in phases}
        return self.energy.metrics() | shares_of_limit(self.rate, flops, seconds)
