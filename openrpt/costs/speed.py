"""How fast this machine runs each phase with a model: a measurement of about ten seconds, on random
weights and random text, so nothing is downloaded but the model's configuration and tokenizer."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor

from openrpt.config.sections import Config
from openrpt.costs.flops import Ledger, count_scoring, count_tree, model_shape
from openrpt.costs.limits import model_rate
from openrpt.costs.meters import CountingEngine
from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.engine.branches import Branch, CompletionIndex
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine, bind
from openrpt.engine.loading import outline
from openrpt.engine.logprobs import selected_logprobs
from openrpt.engine.scorer import score_ids
from openrpt.engine.text_loss import TextTerms, text_loss

_SECONDS = 8.0
"""Seconds that generation and update together are sized to take."""
_USUAL_SHARE = 0.4
"""Share of the matrix products' rate by which the size is chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speeds:
    """The needed FLOPs a second of each phase."""

    score: float
    generate: float
    update: float

    @property
    def by_phase(self) -> dict[str, float]:
        """The speeds by the phases of a plan; an evaluation generates."""
        return asdict(self) | {"evaluate": self.generate}


def spread_positions(count: int, first: int, last: int) -> list[int]:
    """Returns `count` distinct indices from first to last, evenly; fewer where there is no room."""
    count = min(count, last - first + 1)
    if count == 1:
        return [last]
    return sorted({round(first + i * (last - first) / (count - 1)) for i in range(count)})


def measure_speeds(config: Config, layout: Layout, device: torch.device) -> Speeds:
    """Runs a little of each phase as the config asks for it."""
    engine = bind(config.engine.trainer, outline(config, device))
    measure = _Measurement(config=config, layout=layout, engine=engine)
    rate = model_rate(engine.model)
    window = config.prompt.window
    measure.run(window=min(window, 24), positions=1, rollouts=1)  # sets up threads and buffers
    positions = config.train.positions_per_document
    rollouts = config.train.group_size
    while positions > 1 and measure.flops(window, positions, rollouts) > (
        _SECONDS * _USUAL_SHARE * rate
    ):
        positions //= 2
    return measure.run(window=window, positions=positions, rollouts=rollouts)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Measurement:
    config: Config
    layout: Layout
    engine: Engine

    def flops(self, window: int, positions: int, rollouts: int) -> float:
        """Returns the FLOPs of generation and update, about."""
        tail = len(self.layout.tail_ids) + len(self.layout.close_ids)
        own = self._sampling().budget.drawn
        branch = Branch(
            prefix_length=window, tail_ids=(0,) * tail, completions=((0,) * own,) * rollouts
        )
        count = count_tree(window, [branch] * positions, positions * rollouts * own)
        shape = model_shape(self.engine.model)
        return count.forward(shape) + count.train(shape)

    def run(self, *, window: int, positions: int, rollouts: int) -> Speeds:
        policy, layout, config = self.engine.model, self.layout, self.config
        shape = model_shape(policy)
        generator = torch.Generator().manual_seed(0)
        vocabulary = len(policy.table.bytes)
        ids = layout.head_ids + tuple(
            torch.randint(vocabulary, (window,), generator=generator).tolist()
        )
        first = min(config.prompt.min_context, window)
        indices = spread_positions(positions, first, window)
        request = Request(
            prefix_ids=ids,
            prefix_lengths=tuple(len(layout.head_ids) + index for index in indices),
            keys=tuple(tuple(range(p * rollouts, (p + 1) * rollouts)) for p in range(len(indices))),
        )
        ledger = Ledger()
        engine = CountingEngine(engine=self.engine, ledger=ledger)
        spent = [time.perf_counter()]
        (generated,) = engine.generate_each([request], layout, self._sampling())
        spent.append(self._now())
        branches = [
            Branch(
                prefix_length=length,
                tail_ids=layout.tail_ids,
                completions=tuple(completion.token_ids for completion in outcome.completions),
            )
            for length, outcome in zip(request.prefix_lengths, generated, strict=True)
        ]
        engine.accumulate_gradients(
            ids,
            branches,
            prefix_loss=self._text_loss(ids) if config.train.ntp_weight else None,
            completion_loss=self._completion_loss,
            microbatch_tokens=config.memory.microbatch_tokens,
        )
        spent.append(self._now())
        policy.network.zero_grad(set_to_none=True)
        score_ids(engine, ids, window=len(ids), min_context=1)
        spent.append(self._now())
        generate, update, score = (after - before for before, after in pairwise(spent))
        drawn = sum(len(own) for branch in branches for own in branch.completions)
        text = len(ids) - 1 if config.train.ntp_weight else 0
        trained = count_tree(len(ids), branches, drawn + text)
        head = len(policy.bos_ids)
        scored = count_scoring(len(ids), head=head, window=len(ids), min_context=1)
        return Speeds(
            generate=ledger.shared.forward(shape) / generate,
            update=trained.train(shape) / update,
            score=scored.forward(shape) / score,
        )

    def _sampling(self) -> Sampling:
        together = self.config.memory.generation_rollouts
        return Sampling.of(self.config.prompt, temperature=1.0, generation_rollouts=together)

    def _now(self) -> float:
        if self.engine.model.device.type == "cuda":
            torch.cuda.synchronize(self.engine.model.device)
        return time.perf_counter()

    def _completion_loss(self, rows: list[CompletionIndex], hidden: Tensor) -> Tensor:
        states = hidden.flatten(0, 1)
        ids = torch.zeros(len(states), dtype=torch.long, device=hidden.device)
        return -selected_logprobs(states, self.engine.model.head, ids)[0].sum()

    def _text_loss(self, ids: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
        def loss(hidden: Tensor) -> Tensor:
            targets = torch.tensor(ids[1:], device=hidden.device)
            terms = TextTerms(targets=targets, ntp_scale=1.0)
            return text_loss(hidden[:-1], self.engine.model.head, terms)[0]

        return loss
