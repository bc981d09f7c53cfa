"""A user's own sampler: `engine.sampler` by import path, held to what training reads of it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from openrpt.config.engine import EngineConfig
from openrpt.config.sections import Config
from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine, Sampler
from openrpt.engine.generation import Generated
from openrpt.engine.model import Weights
from openrpt.errors import UserError
from openrpt.types import Completion
from openrpt.user_code import UserFunction, is_import_path, load_function, shown, users_code

_KEY = "engine.sampler"
_READABLE = ("engine", "config", "layout")
_METHODS = ("load", "generate_each")
_MEMBERS = ("exact_draws", "version", *_METHODS)
"""The members of the protocol `Sampler`."""

_T = TypeVar("_T")


def load_sampler(config: EngineConfig) -> UserFunction | None:
    """Returns the user's factory of a sampler; None where the sampler is one of OpenRPT's. Raises
    UserError for one that can't be had or asks for what there is not."""
    path = config.sampler
    return load_function(path, key=_KEY, known=_READABLE) if is_import_path(path) else None


def open_own(factory: UserFunction, engine: Engine, config: Config, layout: Layout) -> Sampler:
    """Returns the sampler that a user's factory makes; where that is the engine, the engine.

    Raises UserError where it raises, or gives what is no sampler: the member that is missing is
    named.
    """
    values = {"engine": engine, "config": config, "layout": layout}
    found = factory.result(values, where=f"({_KEY})")
    if found is engine:
        return engine
    for name in _MEMBERS:
        if not _has(found, name):
            what = "method" if name in _METHODS else "attribute"
            raise factory.error(
                f"gave {shown(found)}, which is no sampler: it has no {what} '{name}'",
                where=f"({_KEY}; docs/own_parts.md)",
            )
    return OwnSampler(factory=factory, sampler=found, engine=engine)


def _has(found: object, name: str) -> bool:
    """Returns whether an object has this member of the protocol."""
    with users_code():
        value = getattr(found, name)
        return name not in _METHODS or callable(value)
    return False


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnSampler:
    """A user's sampler (`openrpt.engine.engine.Sampler`): what it raises, and outcomes that do not
    fit their request, are one line each."""

    factory: UserFunction
    sampler: Sampler
    engine: Engine
    """The policy's."""

    @property
    def exact_draws(self) -> bool:
        """Whether the user's sampler says that each token is drawn by its key."""
        return self.sampler.exact_draws

    @property
    def version(self) -> int:
        """How often the user's sampler says that weights were loaded."""
        return self.sampler.version

    def load(self, weights: Weights) -> None:
        """Hands over weights by the names of a checkpoint. Raises UserError for whatever the user's
        sampler raises."""
        self._called("load", self.sampler.load, weights)

    def generate_each(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> Iterator[list[Generated]]:
        """Yields what the user's sampler generates. Raises UserError for whatever that raises, and
        for outcomes that do not fit their request."""
        name, generate = "generate_each", self.sampler.generate_each
        each = self._called(name, lambda: iter(generate(requests, layout, sampling)))
        most = sampling.budget.opening(layout) + sampling.budget.new(layout)
        for number, request in enumerate(requests):
            outcomes = self._called(name, next, each, None)
            if outcomes is None:
                raise self._wrong(f"ended after {number} of {len(requests)} requests,")
            self._called(name, self._require_fit, outcomes, request, f"request {number}", most)
            yield outcomes
        if self._called(name, next, each, None) is not None:
            raise self._wrong(f"goes on after all {len(requests)} requests,")

    def _require_fit(self, outcomes: Any, request: Request, place: str, most: int) -> None:
        """Checks the outcomes of a request, whose completions have at most so many tokens. Raises
        UserError that says which one is wrong."""
        positions = len(request.keys)
        if not isinstance(outcomes, list | tuple) or len(outcomes) != positions:
            raise self._wrong(
                f"gave {shown(outcomes)}, not a list of {positions} Generated,", place
            )
        vocabulary = self.engine.model.head.weight.shape[0]
        for p, (outcome, keys) in enumerate(zip(outcomes, request.keys, strict=True)):
            at = f"{place}, position {p}"
            if not isinstance(outcome, Generated) or len(outcome.completions) != len(keys):
                needed = f"a Generated with {len(keys)} completions"
                raise self._wrong(f"gave {shown(outcome)}, not {needed},", at)
            for r, completion in enumerate(outcome.completions):
                if problem := _problem(completion, most=most, vocabulary=vocabulary):
                    raise self._wrong(f"gave a completion {problem},", f"{at}, rollout {r}")
            shared = min(map(_forced, outcome.completions), default=0)
            if len({completion.token_ids[:shared] for completion in outcome.completions}) > 1:
                problem = "gave completions that do not begin with the same forced tokens,"
                raise self._wrong(problem, at)

    def _called(self, method: str, function: Callable[..., _T], *arguments: Any) -> _T:
        """Returns what a function of the user's gives; an error that OpenRPT's own code makes in it
        is raised as it is."""
        with users_code() as failure:
            return function(*arguments)
        if isinstance(failure.error, UserError):
            raise failure.error
        where = f"in {method} ({_KEY})"
        raise self.factory.error(failure.reason, where=where) from failure.error

    def _wrong(self, problem: str, place: str = "") -> UserError:
        where = f"in generate_each, {place}" if place else "in generate_each"
        return self.factory.error(problem, where=f"{where} ({_KEY}; docs/own_parts.md)")


def _problem(completion: object, *, most: int, vocabulary: int) -> str:
    """Returns what is wrong with a completion, of at most so many tokens; empty where it can be
    trained on."""
    if not isinstance(completion, Completion):
        return f"that is {shown(completion)}"
    ids, logprobs, mask = completion.token_ids, completion.sampler_logprobs, completion.loss_mask
    if not all(isinstance(part, tuple) for part in (ids, logprobs, mask)):
        return "whose token_ids, sampler_logprobs and loss_mask are no tuples"
    if not 0 < len(ids) == len(logprobs) == len(mask):
        return f"of {len(ids)} tokens, {len(logprobs)} log-probabilities, {len(mask)} of loss_mask"
    if len(ids) > most:
        return f"of {len(ids)} tokens, where the prompt's budgets allow {most}"
    if not all(isinstance(token, int) and 0 <= token < vocabulary for token in ids):
        return f"with a token that is none of the model's {vocabulary}"
    if not all(isinstance(logprob, float) and math.isfinite(logprob) for logprob in logprobs):
        return "with a log-probability that is no finite float"
    if not all(isinstance(flag, bool) for flag in mask):
        return "with a loss_mask that is not of bools"
    if completion.finish_reason not in ("stop", "length"):
        return f"whose finish_reason is {shown(completion.finish_reason)}, not 'stop' or 'length'"
    return ""


def _forced(completion: Completion) -> int:
    """Returns the number of forced tokens that a completion begins with."""
    mask = completion.loss_mask
    return mask.index(True) if True in mask else len(mask)
