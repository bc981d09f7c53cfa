"""What a stage asks of a model that runs: completions, states, standard prediction, gradients.

An engine is bound to its model. `tree` shares what the sequences of a document have in common,
`flat` computes each one alone; both give the same.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from torch import Tensor

from openrpt.config.engine import Trainer
from openrpt.config.sections import Config
from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.data.tokens import tokenizer_fingerprint
from openrpt.data.work import Work
from openrpt.engine.branches import Branch, CompletionLoss, Passage, PrefixLoss
from openrpt.engine.decoding import Sampling
from openrpt.engine.flat import FlatEngine
from openrpt.engine.generation import STANDARD_TOP, Generated, standard_tops
from openrpt.engine.loading import load_model
from openrpt.engine.model import Model, Weights
from openrpt.engine.standard import Standard
from openrpt.engine.tree.engine import TreeEngine
from openrpt.errors import UserError


class Sampler(Protocol):
    """A protocol: what makes completions with a model."""

    @property
    def exact_draws(self) -> bool:
        """Whether each token is drawn by its key, so that the same request gives the same bits."""

    @property
    def version(self) -> int:
        """How often weights were loaded; the steps of an optimizer on the sampler's own model are
        not counted."""

    def load(self, weights: Weights) -> None:
        """Copies weights over the model's, in place; the version rises by one.

        Their names are those of the model's parameters; for a sampler that holds a copy of the
        model, those of a checkpoint (`engine.exported.checkpoint_weights`). Raises ValueError for a
        parameter that the model does not have, or of another shape; such a sampler UserError.
        """

    def generate_each(
        self, requests: Sequence[Request], layout: Layout, sampling: Sampling
    ) -> Iterator[list[Generated]]:
        """Yields, for one document after another, an outcome a position, as they come out."""


class Engine(Sampler, Protocol):
    """A protocol: a sampler that also reads and trains its model."""

    @property
    def model(self) -> Model:
        """The model that the engine is bound to."""

    def states(
        self, sequences: Sequence[Sequence[int]], layers: Sequence[int] = (-1,)
    ) -> list[Tensor]:
        """Returns, for each of the layers, the states [N, d] over the sequences, each alone from
        its first token, joined; N tokens in all. With gradient where that is recorded.

        A layer's number counts from the embeddings, 0; the last one, or -1, is what the head reads.
        """

    def standard(
        self,
        prefix_ids: Sequence[int],
        lengths: Sequence[int],
        *,
        k: int = STANDARD_TOP,
        delimiter_ids: Collection[int] = (),
    ) -> Standard:
        """Returns standard prediction and its `k` candidates after the first n tokens of a plain
        prefix, for each n of `lengths`. The thought's delimiters are no prediction."""

    def branch_states(
        self, prefix_ids: Sequence[int], branches: Sequence[Branch]
    ) -> list[list[Tensor]]:
        """Returns, for each branch and completion, the states [T, d] that predict it, without
        gradient."""

    def accumulate_gradients(
        self,
        prefix_ids: Sequence[int],
        branches: Sequence[Branch],
        *,
        prefix_loss: PrefixLoss | None = None,
        completion_loss: CompletionLoss | None = None,
        microbatch_tokens: int = 1024,
    ) -> None:
        """Adds the gradient of the two losses' sum to the parameters' `.grad`.

        Losses are sums or are divided by the step's totals by the caller, so that nothing depends
        on micro-batches.
        """

    def accumulate_each(
        self, passages: Sequence[Passage], *, microbatch_tokens: int = 1024
    ) -> None:
        """Adds the gradient of all passages' losses, as `accumulate_gradients` of one after
        another; several may run side by side."""


OpenModel = Callable[[Config, str], Engine]
"""A function that opens the model of a path, under a configuration."""


def open_engine(
    config: Config,
    *,
    path: str | None = None,
    trained: bool = False,
    recompute: bool = False,
    start: Engine | None = None,
) -> Engine:
    """Loads a model and its tokenizer, checks that they can be run, and binds an engine to them.

    `path` takes the place of model.path. `trained`: with gradients, and with LoRA adapters where
    the configuration asks for them; otherwise the model is only read. `recompute`: the backward
    pass runs each layer again (`memory.gradient_checkpointing`). `start`: whose candidates seed the
    thought, where not the model's own. Raises UserError as `load_model`, and for a start model with
    another tokenizer: its candidates would be other tokens of the model.
    """
    kind = config.engine.trainer
    model = load_model(config.model, path=path, trained=trained, recompute=recompute, trainer=kind)
    if start is not None and _tokens_of(start.model) != _tokens_of(model):
        raise UserError(
            f"prompt.candidate_source = 'start': model '{model.name}' has another tokenizer than"
            " the start model; give --prompt.candidate_source policy"
        )
    return bind(kind, model, start)


def _tokens_of(model: Model) -> str:
    return tokenizer_fingerprint(model.tokenizer)


def open_seeding_start(config: Config) -> Engine | None:
    """Opens the start model where its candidates seed the thought; None where they are the policy's
    own, or there are none. Raises UserError as `open_engine`."""
    return open_engine(config) if config.prompt.is_seeded_by_start else None


def bind(kind: Trainer, model: Model, start: Engine | None = None) -> Engine:
    """Returns the engine of this kind for a model that is loaded already; see `open_engine`."""
    if kind == "flat":
        return FlatEngine(model=model, start=start)
    return TreeEngine(model=model, start=start)


def with_plain_standard(
    engine: Engine, work: Work, layout: Layout, generated: Sequence[Generated]
) -> list[Generated]:
    """Returns the outcomes with standard prediction as the text alone gives it, whatever the
    prompt.

    Where instructions stand before the text, that takes a pass of its own; otherwise the
    generation's own pass has read nothing but the text.
    """
    if not layout.has_instructions:
        return list(generated)
    plain = layout.plain
    prefix_ids, lengths = work.prefix_ids(plain, whole=False), work.prefix_lengths(plain)
    return with_standard(engine, prefix_ids, lengths, layout, generated)


def with_standard(
    engine: Engine,
    prefix_ids: Sequence[int],
    lengths: Sequence[int],
    layout: Layout,
    generated: Sequence[Generated],
) -> list[Generated]:
    """Returns the outcomes with standard prediction on this plain prefix."""
    found = engine.standard(prefix_ids, lengths, delimiter_ids=layout.delimiter_ids)
    said = zip(found.argmax.tolist(), standard_tops(found), strict=True)  # a position each
    return [
        replace(outcome, standard_id=token, standard_top=top)
        for outcome, (token, top) in zip(generated, said, strict=True)
    ]
