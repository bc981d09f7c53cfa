"""How fast this machine runs each phase with a model: a measurement of about ten seconds, on random
weights and random text, so nothing is downloaded but the model's configuration and tokenizer."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from openrpt.attention import NAME as TREE_ATTENTION
from openrpt.compute import Ledger, count_scoring, count_tree, model_shape
from openrpt.config import Config
from openrpt.cpu import keep_memory, set_threads
from openrpt.decoding import Sampling
from openrpt.engine import make_engine
from openrpt.errors import foreign
from openrpt.generation import Request
from openrpt.limits import model_rate
from openrpt.logprobs import selected_logprobs
from openrpt.lora import add_lora
from openrpt.meters import counting_engine
from openrpt.model_files import built_within, find_files
from openrpt.models import DTYPES, Policy, quiet_transformers, resolve_model
from openrpt.prompts import Layout
from openrpt.scorer import score_ids
from openrpt.text_loss import TextTerms, text_loss
from openrpt.tree import Branch, Row

SECONDS = 8.0
"""What generation and update together are sized to take."""
USUAL_SHARE = 0.4
"""Of the matrix products' rate: what the size is chosen by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speeds:
    """Needed FLOPs a second of each phase."""

    score: float
    generate: float
    update: float


def outline(config: Config, device: str | torch.device = "meta") -> Policy:
    """The policy with random weights; on the "meta" device with shapes alone, no memory.

    Raises UserError where the model's configuration or tokenizer can't be loaded.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = resolve_model(config.model.path)
    remote = {"trust_remote_code": config.model.trust_remote_code}
    with foreign(f"model '{config.model.path}' can't be outlined"):
        # A Hub id's weights are not downloaded for an outline.
        within = built_within(find_files(folder)) if Path(folder).is_dir() else nullcontext()
        tokenizer = AutoTokenizer.from_pretrained(folder, **remote)
        settings = AutoConfig.from_pretrained(folder, **remote)
        with torch.device(device), quiet_transformers(), within:
            model = AutoModelForCausalLM.from_config(
                settings, dtype=DTYPES[config.model.dtype], **remote
            )
    if config.model.generator == "tree":
        model.set_attn_implementation(TREE_ATTENTION)
    policy = Policy(model=model, tokenizer=tokenizer, name=config.model.path)
    if config.model.lora_rank:
        with torch.device(device):
            policy.model = add_lora(
                model, rank=config.model.lora_rank, alpha=config.model.lora_alpha
            )
    policy.model.eval()
    return policy


def spread_positions(count: int, first: int, last: int) -> list[int]:
    """`count` distinct indices from first to last, evenly; fewer where there is no room."""
    count = min(count, last - first + 1)
    if count == 1:
        return [last]
    return sorted({round(first + i * (last - first) / (count - 1)) for i in range(count)})


def measure_speeds(config: Config, layout: Layout, device: torch.device) -> Speeds:
    """Runs a little of each phase as the config asks for it."""
    set_threads(config.model.threads)
    keep_memory()
    policy = outline(config, device)
    measure = _Measurement(config=config, layout=layout, policy=policy)
    rate = model_rate(policy)
    window = config.prompt.window
    measure.run(window=min(window, 24), positions=1, rollouts=1)  # sets up threads and buffers
    positions = config.train.positions_per_document
    rollouts = config.train.group_size
    while positions > 1 and measure.flops(window, positions, rollouts) > (
        SECONDS * USUAL_SHARE * rate
    ):
        positions //= 2
    return measure.run(window=window, positions=positions, rollouts=rollouts)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Measurement:
    config: Config
    layout: Layout
    policy: Policy

    def flops(self, window: int, positions: int, rollouts: int) -> float:
        """Of generation and update, about."""
        tail = len(self.layout.tail_ids) + len(self.layout.close_ids)
        own = self._sampling().think_budget + self._sampling().prediction_budget
        branch = Branch(
            prefix_length=window, tail_ids=(0,) * tail, completions=((0,) * own,) * rollouts
        )
        count = count_tree(window, [branch] * positions, positions * rollouts * own)
        shape = model_shape(self.policy)
        return count.forward(shape) + count.train(shape)

    def run(self, *, window: int, positions: int, rollouts: int) -> Speeds:
        policy, layout, config = self.policy, self.layout, self.config
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
        engine = counting_engine(make_engine(config.model.generator, policy), ledger)
        spent = [time.perf_counter()]
        generated = engine.generator.generate(request, layout, self._sampling())
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
            policy,
            ids,
            branches,
            prefix_loss=self._text_loss(ids) if config.train.ntp_weight else None,
            completion_loss=self._completion_loss,
            microbatch_tokens=config.train.microbatch_tokens,
        )
        spent.append(self._now())
        policy.model.zero_grad(set_to_none=True)
        score_ids(policy, ids, window=len(ids), min_context=1)
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
        prompt = self.config.prompt
        return Sampling(
            temperature=1.0,
            think_budget=prompt.think_budget,
            prediction_budget=prompt.prediction_budget,
            candidates=prompt.candidates,
            generation_rollouts=self.config.train.generation_rollouts,
        )

    def _now(self) -> float:
        if self.policy.device.type == "cuda":
            torch.cuda.synchronize(self.policy.device)
        return time.perf_counter()

    def _completion_loss(self, rows: list[Row], hidden: Tensor) -> Tensor:
        states = hidden.flatten(0, 1)
        ids = torch.zeros(len(states), dtype=torch.long, device=hidden.device)
        return -selected_logprobs(states, self.policy.head, ids)[0].sum()

    def _text_loss(self, ids: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
        def loss(hidden: Tensor) -> Tensor:
            targets = torch.tensor(ids[1:], device=hidden.device)
            terms = TextTerms(targets=targets, ntp_scale=1.0)
            return text_loss(hidden[:-1], self.policy.head, terms)[0]

        return loss
