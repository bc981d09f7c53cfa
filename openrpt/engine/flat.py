"""Without the tree: every sequence computed alone and from scratch, as transformers runs it.

Slow, and right for any causal LM. It must give the tree's results, and is what the tree is checked
against.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.engine.bound import BoundEngine
from openrpt.engine.branches import Branch, Passage
from openrpt.engine.decoding import Decoder, Sampling, Sequences
from openrpt.engine.generation import (
    STANDARD_TOP,
    Beginnings,
    Generated,
    StartRows,
    decode,
    decode_spans,
)
from openrpt.engine.model import Model
from openrpt.engine.placing import put
from openrpt.engine.standard import Standard, standard_prediction


def flat_hidden(model: Model, ids: Sequence[int]) -> Tensor:
    """Returns the states [n, d] of the backbone over one whole sequence, as transformers runs
    it."""
    return model.states(input_ids=torch.tensor([list(ids)], device=model.device))[0]


@dataclass(kw_only=True, eq=False)
class FlatEngine(BoundEngine):
    """An engine that computes every sequence alone: see `openrpt.engine.engine.Engine`."""

    @torch.no_grad()
    def generate_each(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> Iterator[list[Generated]]:
        """Yields the outcomes of one document after another: `Sampler.generate_each`."""
        for request in requests:
            yield self._generate(request, layout, sampling)

    def _generate(self, request: Request, layout: Layout, sampling: Sampling) -> list[Generated]:
        lengths, delimiters = request.prefix_lengths, layout.delimiter_ids
        k = max(sampling.candidates, STANDARD_TOP)
        standard = self.standard(request.prefix_ids, lengths, k=k, delimiter_ids=delimiters)
        seeds = standard
        if self.start is not None and sampling.candidates:
            seeds = self.start.standard(request.prefix_ids, lengths, k=k, delimiter_ids=delimiters)
        beginnings = Beginnings.of(request, standard, seeds, layout, sampling)
        prompts = [
            [*request.prefix_ids[:length], *layout.tail_ids, *opening]
            for length, opening in zip(lengths, beginnings.openings, strict=True)
        ]

        decoder = Decoder(policy=self.model, layout=layout, sampling=sampling)
        decoded = decode(decoder, request.keys, self._rows(prompts))
        spans = decode_spans(
            self.model,
            standard.argmax.tolist(),
            request.spans,
            self._rows([request.prefix_ids[:length] for length in lengths]),
            delimiter_ids=delimiters,
        )
        return beginnings.outcomes(decoded, spans)

    def _rows(self, sequences: Sequence[Sequence[int]]) -> StartRows:
        """Returns what begins rows behind these sequences, one a position."""

        def start_rows(index: Tensor, rollouts: int, capacity: int) -> Sequences:
            return _FlatSequences(self.model, [[*sequences[i]] for i in index.tolist()])

        return start_rows

    def states(
        self, sequences: Sequence[Sequence[int]], layers: Sequence[int] = (-1,)
    ) -> list[Tensor]:
        """Returns states [N, d] a layer, one sequence after another: `Engine.states`."""
        found = [
            self.model.layer_states(
                layers, input_ids=torch.tensor([list(ids)], device=self.model.device)
            )
            for ids in sequences
        ]
        return [torch.cat([states[0] for states in layer]) for layer in zip(*found, strict=True)]

    @torch.no_grad()
    def standard(
        self,
        prefix_ids: Sequence[int],
        lengths: Sequence[int],
        *,
        k: int = STANDARD_TOP,
        delimiter_ids: Collection[int] = (),
    ) -> Standard:
        """Returns standard prediction after each length: `Engine.standard`."""
        states = [flat_hidden(self.model, prefix_ids[:length])[-1] for length in lengths]
        masked = self.model.masked_ids(delimiter_ids)
        hidden = torch.stack(states)  # [N, d]
        return standard_prediction(hidden, self.model.head, masked, k=k)

    @torch.no_grad()
    def branch_states(
        self, prefix_ids: Sequence[int], branches: Sequence[Branch]
    ) -> list[list[Tensor]]:
        """Returns the states [T, d] of each completion: `Engine.branch_states`."""
        return [
            [self._completion_states(prefix_ids, branch, ids) for ids in branch.completions]
            for branch in branches
        ]

    def accumulate_each(
        self, passages: Sequence[Passage], *, microbatch_tokens: int = 1024
    ) -> None:
        """Adds the gradient of all passages, one whole sequence at a time, whatever
        `microbatch_tokens` is."""
        for one in passages:
            if one.prefix_loss is not None:
                one.prefix_loss(flat_hidden(self.model, one.prefix_ids)).backward()
            if one.completion_loss is None:
                continue
            for b, branch in enumerate(one.branches):
                for c, ids in enumerate(branch.completions):
                    hidden = self._completion_states(one.prefix_ids, branch, ids)
                    one.completion_loss([(b, c)], hidden[None]).backward()

    def _completion_states(
        self, prefix_ids: Sequence[int], branch: Branch, completion: Sequence[int]
    ) -> Tensor:
        """Returns the states [T, d] that predict each token of a completion."""
        prompt = [*prefix_ids[: branch.prefix_length], *branch.tail_ids]
        return flat_hidden(self.model, [*prompt, *completion[:-1]])[len(prompt) - 1 :]


class _FlatSequences:
    """Rollouts that are run one at a time, without any cache."""

    def __init__(self, model: Model, sequences: list[list[int]]) -> None:
        self.model = model
        self.sequences = sequences
        self._run()

    def _run(self) -> None:
        last = [flat_hidden(self.model, ids)[-1] for ids in self.sequences]
        self.hidden = torch.stack(last)  # [U, d]

    def advance(self, ids: Tensor) -> None:
        pairs = zip(self.sequences, ids.tolist(), strict=True)
        self.sequences = [sequence + new for sequence, new in pairs]
        self._run()

    def keep(self, index: Tensor) -> None:
        self.hidden = self.hidden[put(index, self.hidden.device)]
        self.sequences = [self.sequences[i] for i in index.tolist()]
