"""vLLM as the sampler: completions by token ids, everything else by the trainer's own engine.

The trainer's engine runs each prefix once: standard prediction, its span and the candidates are its
own. vLLM then draws the thoughts, and the predictions behind them: two calls, since the close of a
thought whose budget is spent is forced, and every token behind it depends on it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.engine.course import Rules
from openrpt.engine.decoded import Said
from openrpt.engine.decoding import Sampling
from openrpt.engine.drawn import Drawn, Rest, rest_of
from openrpt.engine.engine import Engine
from openrpt.engine.generation import Generated, openings_of
from openrpt.engine.model import Weights
from openrpt.engine.replay import replay

_CALLS = (0, 0x9E3779B97F4A7C15)
"""What is added to a rollout's key for its first and its second call: with the same seed the
prediction would be drawn from the uniforms of the thought."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A text that vLLM is to go on with."""

    prompt_ids: tuple[int, ...]
    tokens: int
    """Most tokens to draw, at least 1."""
    stop_ids: tuple[int, ...]
    """Tokens behind which it ends before that; they are drawn, too."""
    seed: int
    """From 0 to 2⁶³ − 1."""


class Backend(Protocol):
    """A protocol: a vLLM that holds a model like the policy's."""

    def complete(self, asked: Sequence[Asked], *, temperature: float) -> list[Drawn]:
        """Returns what is drawn for each, `Asked.tokens` or up to a stop token, with
        log-probabilities at the temperature (at 1 where it is 0, which is greedy).

        Raises UserError where vLLM fails.
        """

    def load(self, weights: Weights) -> None:
        """Takes these weights, by the names of a checkpoint, in place of its own, and forgets what
        it has cached with those. Raises UserError where they do not fit."""

    def rest(self) -> None:
        """Gives back the memory that the trainer needs now, where it can; the next call takes it
        again."""


@dataclass(kw_only=True, eq=False)
class VLLMSampler:
    """A sampler with vLLM's completions: see `openrpt.engine.engine.Sampler`.

    Draws are not exact: vLLM rounds otherwise than the trainer, so the same request may give other
    tokens, and `train.importance_correction` weighs what it gives.
    """

    engine: Engine
    """The trainer's own, which predicts and gives the candidates."""
    backend: Backend
    version: int = 0
    """How often weights were loaded."""
    exact_draws: ClassVar[bool] = False

    def load(self, weights: Weights) -> None:
        """Hands over weights by the names of a checkpoint: `Backend.load`."""
        self.backend.load(weights)
        self.version += 1

    def generate_each(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> Iterator[list[Generated]]:
        """Yields the outcomes of one document after another, once all are drawn:
        `Sampler.generate_each`. Raises UserError as `Backend.complete`."""
        begun = [self._beginning(request, layout, sampling) for request in requests]
        openings = [
            openings_of(request, [one.candidate_ids for one in positions], layout, sampling)
            for request, positions in zip(requests, begun, strict=True)
        ]
        prompts: list[tuple[int, ...]] = []
        keys: list[int] = []
        for request, forced in zip(requests, openings, strict=True):
            for length, opening, of_position in zip(
                request.prefix_lengths, forced, request.keys, strict=True
            ):
                prompt = request.prefix_ids[:length] + layout.tail_ids + opening
                prompts += [prompt] * len(of_position)
                keys += of_position
        model = self.engine.model
        rules = Rules.of(
            layout,
            model.stop_ids,
            think_budget=sampling.think_budget,
            prediction_budget=sampling.prediction_budget,
        )
        drawn = self._draw(prompts, keys, rules, temperature=sampling.temperature)
        said = Said.of(model.table, layout, sampling.until, rollouts=len(drawn))
        decoded = iter(replay(drawn, rules, said))
        for request, forced, positions in zip(requests, openings, begun, strict=True):
            yield [
                replace(
                    one,
                    completions=tuple(next(decoded).completion(opening) for _ in of_position),
                )
                for one, opening, of_position in zip(positions, forced, request.keys, strict=True)
            ]

    def _beginning(self, request: Request, layout: Layout, sampling: Sampling) -> list[Generated]:
        """Returns the outcomes without completions: one pass over the prefix."""
        none = replace(request, keys=((),) * len(request.keys))
        (found,) = self.engine.generate_each([none], layout, sampling)
        return found

    def _draw(
        self,
        prompts: Sequence[tuple[int, ...]],
        keys: Sequence[int],
        rules: Rules,
        *,
        temperature: float,
    ) -> list[Drawn]:
        """Returns the drawn tokens of each rollout: its thought's, then its prediction's."""
        stops = tuple(rules.stops.tolist())
        thoughts = [Drawn(token_ids=[], logprobs=[])] * len(prompts)
        if rules.think_budget:
            # A thought's own end of one token ends the call, too: nothing is drawn in vain.
            ends = tuple(rules.end.tolist()) if len(rules.end) == 1 else ()
            asked = [
                Asked(
                    prompt_ids=prompt,
                    tokens=rules.think_budget,
                    stop_ids=stops + ends,
                    seed=_seed(key, call=0),
                )
                for prompt, key in zip(prompts, keys, strict=True)
            ]
            thoughts = self.backend.complete(asked, temperature=temperature)
            end, close = rules.end.tolist(), rules.close.tolist()
            rests = [
                rest_of(
                    thought.token_ids,
                    end=end,
                    stops=stops,
                    close=close,
                    prediction_budget=rules.prediction_budget,
                    box_tokens=rules.box_tokens,
                )
                for thought in thoughts
            ]
        else:
            rests = [Rest(forced=(), budget=rules.prediction_budget)] * len(prompts)
        open_ones = [n for n, rest in enumerate(rests) if rest.budget]
        asked = [
            Asked(
                prompt_ids=prompts[n] + tuple(thoughts[n].token_ids) + tuple(rests[n].forced),
                tokens=rests[n].budget,
                stop_ids=stops,
                seed=_seed(keys[n], call=1),
            )
            for n in open_ones
        ]
        drawn = list(thoughts)
        for n, prediction in zip(
            open_ones, self.backend.complete(asked, temperature=temperature), strict=True
        ):
            drawn[n] = thoughts[n] + prediction
        self.backend.rest()
        return drawn


def _seed(key: int, *, call: int) -> int:
    """Returns the seed of a rollout's first or second call."""
    return (key + _CALLS[call]) & (2**63 - 1)
