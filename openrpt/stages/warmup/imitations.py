"""The imitations of a warmup: completions to imitate, made at each position of a document."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from openrpt.config.sections import Config
from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.data.trace_places import PlacedTrace
from openrpt.data.work import Work
from openrpt.engine.branches import Branch
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine
from openrpt.engine.generation import Generated
from openrpt.seeding import generator, keys_of
from openrpt.stages.warmup.given import GivenThoughts

_WRONG_SEEDS = 0.5
"""Share of given thoughts whose seed has no candidate that is right, so that the box is learned
from the thought and the text: a policy that has only seen the box copy its seed copies a wrong
candidate, too, such as a space that the text does not have."""

_Target = tuple[tuple[int, ...], tuple[float, ...]]
"""Token ids and their probabilities: one id where the token is certain."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imitation:
    """A completion to imitate: after `opening` come `token_ids`."""

    opening: tuple[int, ...]
    token_ids: tuple[int, ...]
    targets: tuple[_Target, ...]
    """A target for each token."""
    weights: tuple[float, ...]
    """A weight for each token; 0 = not trained."""
    is_given: bool = False
    """Whether it was made from a trace."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImitationMaker:
    """Makes imitations: of the traces that are given, elsewhere of what the models say, or of the
    text where `warmup.target = truth`."""

    config: Config
    layout: Layout
    engine: Engine
    """The engine of the policy."""
    start: Engine
    """The engine of the frozen start model."""
    given: GivenThoughts

    def imitations(self, work: Work, step: int) -> list[Imitation]:
        """Makes one imitation a position, in the positions' order, with the draws of a step."""
        traces = self.given.at(work, step)
        if self.config.prompt.candidates:
            return self._seeded(work, step, traces)
        return self._drafted(work, step, traces)

    def _seeded(
        self, work: Work, step: int, traces: Sequence[PlacedTrace | None]
    ) -> list[Imitation]:
        """Makes imitations whose thought is the candidates, and what the policy thinks behind
        them (nothing, where other positions have given thoughts); the answer is one of them."""
        config, layout = self.config, self.layout
        generated = self._generate(work, step, traces)
        imitations = []
        for outcome, position, trace in zip(generated, work.positions, traces, strict=True):
            if trace is not None:
                seed = self._seed_of_trace(outcome, work, trace, step)
                imitations.append(self._of_trace(trace, layout.seed(seed)))
                continue
            truth = int(work.document.token_ids[position.index])
            target = self._answer_target(outcome, truth)
            rng = generator(config.seed, "warmup", position.document_id, position.index, step)
            answer = int(rng.choice(target[0], p=np.array(target[1]) / sum(target[1])))
            opening = layout.seed(outcome.candidate_ids)
            thought: tuple[int, ...] = ()
            weight = 0.0
            if not config.prompt.think_budget:
                opening += layout.close_ids
            elif (
                self.given.by_document
            ):  # thinks where a thought is given, and answers at once here
                thought = layout.thought_end_ids + layout.answer_start_ids
                weight = config.warmup.form_weight
            else:
                thought = self._free_thought(outcome, len(opening)) + layout.close_ids
            weights = (weight,) * len(thought)
            imitations.append(self._imitation(opening, thought, weights, answer, target))
        return imitations

    def _seed_of_trace(
        self, outcome: Generated, work: Work, trace: PlacedTrace, step: int
    ) -> tuple[int, ...]:
        """Returns the candidates that seed a given thought; for a share of the thoughts, by the
        draw, only such as the text does not go on with, where there are as many."""
        document = work.document
        rng = generator(self.config.seed, "seed", document.document_id, trace.index, step)
        if rng.random() >= _WRONG_SEEDS:
            return outcome.candidate_ids
        bytes_of = self.engine.model.table.bytes
        continuation = document.text.encode()[int(document.byte_offsets[trace.index]) :]
        known = dict.fromkeys((*outcome.candidate_ids, *(i for i, _ in outcome.standard_top)))
        wrong = [i for i in known if not continuation.startswith(bytes_of[i])]
        count = len(outcome.candidate_ids)
        return tuple(wrong[:count]) if len(wrong) >= count else outcome.candidate_ids

    def _answer_target(self, outcome: Generated, truth: int) -> _Target:
        """Returns what the box should hold: a distribution over the candidates, or the true
        token."""
        settings = self.config.warmup
        if settings.target == "truth":
            return (truth,), (1.0,)
        probabilities = np.exp(np.array(outcome.candidate_logprobs))
        probabilities *= (1 - settings.answer_sharpness) / probabilities.sum()
        probabilities[0] += settings.answer_sharpness
        return outcome.candidate_ids, tuple(probabilities.tolist())

    def _free_thought(self, outcome: Generated, opening: int) -> tuple[int, ...]:
        """Returns the policy's own free tokens: context for the answer, not trained on."""
        completion = outcome.completions[0]
        own = completion.token_ids[opening : opening + self.config.prompt.think_budget]
        stops = [i for i, token in enumerate(own) if token in self.engine.model.stop_ids]
        return own[: stops[0]] if stops else own

    def _drafted(
        self, work: Work, step: int, traces: Sequence[PlacedTrace | None]
    ) -> list[Imitation]:
        """Makes imitations whose thought looks ahead: what the frozen model (or the text) says
        next, then its first token in the box."""
        own = [p for p, trace in zip(work.positions, traces, strict=True) if trace is None]
        drafts = iter(self._drafts(replace(work, positions=tuple(own)), step) if own else ())
        return [
            self._of_draft(next(drafts)) if trace is None else self._of_trace(trace, ())
            for trace in traces
        ]

    def _of_draft(self, draft: tuple[int, ...]) -> Imitation:
        close, target = self.layout.close_ids, ((draft[0],), (1.0,))
        if not self.config.prompt.think_budget:
            return self._imitation(close, (), (), draft[0], target)
        weights = (self.config.warmup.draft_weight,) * len(draft) + (0.0,) * len(close)
        return self._imitation((), draft + close, weights, draft[0], target)

    def _drafts(self, work: Work, step: int) -> list[tuple[int, ...]]:
        """Returns what follows each position: at least one token, at most as many as a thought
        has."""
        settings, budget = self.config.warmup, self.config.prompt.think_budget
        size = max(1, min(settings.draft_tokens, budget))
        if settings.target == "truth":
            ids = work.document.token_ids
            return [tuple(ids[p.index : p.index + size].tolist()) for p in work.positions]
        plain = replace(self.layout, tail_ids=(), close_ids=())
        request = self._request(work, step, [1] * len(work.positions))
        (generated,) = self.start.generate_each([request], plain, Sampling.plain(size))
        stops = self.start.model.stop_ids
        drafts = []
        for outcome in generated:
            draft = [i for i in outcome.completions[0].token_ids if i not in stops]
            drafts.append(tuple(draft) or (outcome.standard_id,))
        return drafts

    def _imitation(
        self,
        opening: tuple[int, ...],
        thought: tuple[int, ...],
        thought_weights: tuple[float, ...],
        answer: int,
        target: _Target,
    ) -> Imitation:
        """Joins the thought, then the answer, the box's end and the end of turn."""
        form = self._form()
        certain = [((token,), (1.0,)) for token in thought]
        return Imitation(
            opening=opening,
            token_ids=(*thought, answer, *form),
            targets=(*certain, target, *[((token,), (1.0,)) for token in form]),
            weights=(*thought_weights, 1.0, *[self.config.warmup.form_weight] * len(form)),
        )

    def _of_trace(self, trace: PlacedTrace, seed: tuple[int, ...]) -> Imitation:
        """Joins the given thought behind the seed, its end and the box, then the given
        prediction."""
        layout, settings = self.layout, self.config.warmup
        budget, thought = self.config.prompt.think_budget, trace.thought_ids
        opening, close = seed, layout.thought_end_ids + layout.answer_start_ids
        close_weight = settings.form_weight
        if not budget:
            opening, close = seed + layout.close_ids, ()
        elif len(thought) == budget:  # closed by force
            close, close_weight = layout.close_ids, 0.0
        form = self._form()
        ids = (*thought, *close, *trace.prediction_ids, *form)
        weights = [settings.trace_weight] * len(thought) + [close_weight] * len(close)
        weights += [1.0] * len(trace.prediction_ids) + [settings.form_weight] * len(form)
        return Imitation(
            opening=opening,
            token_ids=ids,
            targets=tuple(((token,), (1.0,)) for token in ids),
            weights=tuple(weights),
            is_given=True,
        )

    def _form(self) -> tuple[int, ...]:
        """Returns the box's end and, where the tokenizer has one, the end of turn."""
        stop = self.engine.model.tokenizer.eos_token_id
        return self.layout.answer_end_ids + (() if stop is None else (stop,))

    def _generate(
        self, work: Work, step: int, traces: Sequence[PlacedTrace | None]
    ) -> list[Generated]:
        """Generates candidates at each position and, where a thought is free and none is given
        anywhere, one completion."""
        sampling = Sampling.of(self.config.prompt, temperature=1.0)
        sampling = replace(sampling, prediction_budget=2)
        free = sampling.think_budget > 0 and not self.given.by_document
        request = self._request(work, step, [int(free and trace is None) for trace in traces])
        (generated,) = self.engine.generate_each([request], self.layout, sampling)
        return generated

    def _request(self, work: Work, step: int, rollouts: Sequence[int]) -> Request:
        """Returns the request of `rollouts` at each position."""
        name = (self.config.seed, "warmup", step)
        keys = [
            keys_of(count, *name, p.document_id, p.index)
            for count, p in zip(rollouts, work.positions, strict=True)
        ]
        return work.request(self.layout, keys)


def imitation_branches(
    imitations: Sequence[Imitation] | None, lengths: Sequence[int], layout: Layout, *, thinks: bool
) -> list[Branch]:
    """Gives the branch of each position, which stands behind `lengths` tokens of the prefix: one
    completion, which the tail belongs to, since no other shares it. It is the imitation's; or where
    there are no imitations the tail and one token behind it, which is not run."""
    if imitations is None:
        tail_ids = layout.tail_ids + (() if thinks else layout.close_ids)
        own = [(*tail_ids, 0)] * len(lengths)
    else:
        own = [layout.tail_ids + one.opening + one.token_ids for one in imitations]
    return [
        Branch(prefix_length=length, tail_ids=(), completions=(ids,))
        for length, ids in zip(lengths, own, strict=True)
    ]
