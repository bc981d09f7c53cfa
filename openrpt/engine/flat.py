"""Without the tree: every sequence computed alone and from scratch, as transformers runs it.

Slow, and right for any causal LM. It has the tree's interfaces, must give the tree's results,
and is what the tree is checked against.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openrpt.data.prompts import Layout
from openrpt.engine.branches import Branch, CompletionLoss, Passage, PrefixLoss, TailLoss
from openrpt.engine.decoding import Decoder, Sampling, Sequences
from openrpt.engine.generation import STANDARD_TOP, Beginnings, Generated, Request, decode
from openrpt.engine.head import Standard, standard_prediction
from openrpt.engine.model import Policy


def flat_hidden(policy: Policy, ids: Sequence[int]) -> Tensor:
    """[n, d]: the backbone over one whole sequence, as transformers runs it."""
    tokens = torch.tensor([list(ids)], device=policy.device)
    return policy.states(input_ids=tokens)[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class FlatGenerator:
    """As TreeGenerator, but every sequence is computed alone, from scratch, for every token:
    slow, and right for any causal LM."""

    policy: Policy
    start: Policy | None = None

    @torch.no_grad()
    def generate(self, request: Request, layout: Layout, sampling: Sampling) -> list[Generated]:
        standard = self._standard(self.policy, request, layout, sampling)
        seeds = standard
        if self.start is not None and sampling.candidates:
            seeds = self._standard(self.start, request, layout, sampling)
        beginnings = Beginnings.of(request, standard, seeds, layout, sampling)
        prompts = [
            [*request.prefix_ids[:length], *layout.tail_ids, *opening]
            for length, opening in zip(request.prefix_lengths, beginnings.openings, strict=True)
        ]

        def start_rows(index: Tensor, rollouts: int, capacity: int) -> Sequences:
            return FlatSequences(self.policy, [prompts[i] for i in index.tolist()])

        decoder = Decoder(policy=self.policy, layout=layout, sampling=sampling)
        return beginnings.outcomes(decode(decoder, request.keys, start_rows))

    def generate_each(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> Iterator[list[Generated]]:
        for request in requests:
            yield self.generate(request, layout, sampling)

    @staticmethod
    def _standard(policy: Policy, request: Request, layout: Layout, sampling: Sampling) -> Standard:
        states = [flat_hidden(policy, request.prefix_ids[:n])[-1] for n in request.prefix_lengths]
        return standard_prediction(
            torch.stack(states),
            policy.head,
            policy.masked_ids(layout.delimiter_ids),
            k=max(sampling.candidates, STANDARD_TOP),
        )


class FlatSequences:
    """Rollouts one at a time, without any cache."""

    def __init__(self, policy: Policy, sequences: list[list[int]]) -> None:
        self.policy = policy
        self.sequences = sequences
        self._run()

    def _run(self) -> None:
        self.hidden = torch.stack([flat_hidden(self.policy, ids)[-1] for ids in self.sequences])

    def advance(self, ids: Tensor) -> None:
        pairs = zip(self.sequences, ids.tolist(), strict=True)
        self.sequences = [sequence + new for sequence, new in pairs]
        self._run()

    def keep(self, index: Tensor) -> None:
        self.hidden = self.hidden[index]
        self.sequences = [self.sequences[i] for i in index.tolist()]


def accumulate_gradients(
    policy: Policy,
    prefix_ids: Sequence[int],
    branches: Sequence[Branch],
    *,
    prefix_loss: PrefixLoss | None = None,
    tail_loss: TailLoss | None = None,
    completion_loss: CompletionLoss | None = None,
    microbatch_tokens: int = 1024,
) -> None:
    """As `tree.accumulate_gradients`, one whole sequence at a time."""
    if prefix_loss is not None:
        prefix_loss(flat_hidden(policy, prefix_ids)).backward()
    if tail_loss is not None and branches:
        prompts = [[*prefix_ids[: b.prefix_length], *b.tail_ids] for b in branches]
        tail_loss(torch.stack([flat_hidden(policy, ids)[-1] for ids in prompts])).backward()
    if completion_loss is None:
        return
    for b, branch in enumerate(branches):
        prompt = [*prefix_ids[: branch.prefix_length], *branch.tail_ids]
        for c, completion in enumerate(branch.completions):
            hidden = flat_hidden(policy, [*prompt, *completion[:-1]])[len(prompt) - 1 :]
            completion_loss([(b, c)], hidden[None]).backward()


def accumulate_each(
    policy: Policy, passages: Sequence[Passage], *, microbatch_tokens: int = 1024
) -> None:
    """As `forest.accumulate_each`, one whole sequence at a time."""
    for one in passages:
        accumulate_gradients(
            policy,
            one.prefix_ids,
            one.branches,
            prefix_loss=one.prefix_loss,
            completion_loss=one.completion_loss,
            microbatch_tokens=microbatch_tokens,
        )


@torch.no_grad()
def branch_hidden(
    policy: Policy, prefix_ids: Sequence[int], branches: Sequence[Branch]
) -> list[list[Tensor]]:
    """As `tree.branch_hidden`, one whole sequence at a time."""
    found = []
    for branch in branches:
        prompt = [*prefix_ids[: branch.prefix_length], *branch.tail_ids]
        found.append(
            [
                flat_hidden(policy, [*prompt, *completion[:-1]])[len(prompt) - 1 :]
                for completion in branch.completions
            ]
        )
    return found
