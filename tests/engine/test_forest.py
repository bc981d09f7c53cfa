"""Documents side by side give the gradients that each gives alone, in float64."""

import pytest
import torch
from torch import Tensor

from openrpt.config.model import ModelConfig
from openrpt.engine.branches import Branch, CompletionIndex, Passage
from openrpt.engine.engine import Engine
from openrpt.engine.flat import FlatEngine
from openrpt.engine.loading import load_model
from openrpt.engine.logprobs import selected_logprobs
from openrpt.engine.model import Model
from openrpt.engine.tree import forest, level, levels
from openrpt.engine.tree.engine import TreeEngine
from tests.helpers.tiny_model import tiny_model_folder

# Prefix, where the position is in it, tail, completions: lengths differ everywhere.
DOCUMENTS = [
    ((5, 6, 7, 8), 3, (9, 2), ((4, 2, 6, 7, 1), (7, 2), (3,))),
    ((11, 6), 2, (9, 2, 3), ((4, 2, 2), (8, 8, 8, 8))),
    ((21, 3, 5, 6, 9), 5, (9,), ((1, 2, 3, 4, 5, 6),)),
    ((8, 8, 1), 2, (9, 2), ()),
    ((9,), 1, (9, 2), ((4, 1),)),
]


@pytest.fixture(scope="module", params=["llama", "gpt2", "mistral"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp(request.param)
    options = {"sliding_window": 6} if request.param == "mistral" else {}
    tiny_model_folder(path, family=request.param, dtype=torch.float64, **options)
    return load_model(ModelConfig(path=str(path), dtype="float64", threads=1), trained=True)


def weighted(policy: Model, states: Tensor, completion: tuple[int, ...]) -> Tensor:
    """A completion's log-probabilities, each place with another weight, added up: states [T, d]."""
    ids = torch.tensor(completion)
    logps, _ = selected_logprobs(states[: len(ids)], policy.head, ids, temperature=1.0)
    return (logps * torch.arange(1.0, len(ids) + 1, dtype=logps.dtype)).sum()


def passages_of(policy: Model, seen: list[list[CompletionIndex]]) -> list[Passage]:
    """Losses that weigh each document, completion and place differently."""
    passages = []
    for number, (prefix, length, tail, completions) in enumerate(DOCUMENTS):

        def prefix_loss(hidden: Tensor, number: int = number) -> Tensor:
            return (number + 1) * hidden[:, ::3].sum() / 100

        def completion_loss(
            rows: list[CompletionIndex],
            hidden: Tensor,
            number: int = number,
            completions: tuple[tuple[int, ...], ...] = completions,
        ) -> Tensor:
            seen[number] += rows
            total = hidden.new_zeros(())
            for states, (_, c) in zip(hidden, rows, strict=True):
                total = total + weighted(policy, states, completions[c]) * (1 + number + 0.1 * c)
            return total

        branch = Branch(prefix_length=length, tail_ids=tail, completions=completions)
        passages.append(
            Passage(
                prefix_ids=prefix,
                branches=[branch],
                prefix_loss=prefix_loss if number != 1 else None,
                completion_loss=completion_loss,
            )
        )
    return passages


@pytest.mark.parametrize("microbatch_tokens", [7, 16, 1000])
def test_gradients_are_those_of_each_alone(policy: Model, microbatch_tokens: int) -> None:
    seen: list[list[CompletionIndex]] = [[] for _ in DOCUMENTS]
    passages = passages_of(policy, seen)
    assert sum(forest.is_short(one) for one in passages) == 4

    together = gradients_of(policy, TreeEngine(model=policy), passages, microbatch_tokens)
    every = [[(0, c) for c in range(len(completions))] for *_, completions in DOCUMENTS]
    assert [sorted(rows) for rows in seen] == every
    alone = gradients_of(policy, FlatEngine(model=policy), passages, microbatch_tokens)
    # Of these families GPT-2 alone has no norm that rounds to float32 inside.
    exact = policy.causal_lm.config.model_type == "gpt2"
    bounds = {"rtol": 1e-9, "atol": 1e-11} if exact else {"rtol": 1e-3, "atol": 1e-4}
    for got, wanted in zip(together, alone, strict=True):
        torch.testing.assert_close(got, wanted, **bounds)


LONG = [
    (tuple(range(40, 70)), (4, 30, 11), (9, 2), ((4, 2, 6, 7, 1), (7, 2), (3,))),
    (tuple(range(20, 43)), (23,), (9, 2, 3), ((4, 2, 2), (8, 8, 8, 8))),
    (tuple(range(80, 97)), (5, 9), (), ((1, 2, 3, 4, 5, 6), (5,))),
    (tuple(range(9)), (), (), ()),
]
"""Prefix, positions in it, tail and completions: one has no tails, one no branch."""


def long_passages(policy: Model) -> list[Passage]:
    """Losses that weigh each document, position, completion and place differently."""
    passages = []
    for number, (prefix, lengths, tail, completions) in enumerate(LONG):

        def completion_loss(
            rows: list[CompletionIndex],
            hidden: Tensor,
            number: int = number,
            completions: tuple[tuple[int, ...], ...] = completions,
        ) -> Tensor:
            total = hidden.new_zeros(())
            for states, (b, c) in zip(hidden, rows, strict=True):
                weight = 1 + number + 0.1 * c - 0.3 * b
                total = total + weighted(policy, states, completions[c]) * weight
            return total

        passages.append(
            Passage(
                prefix_ids=prefix,
                branches=[
                    Branch(prefix_length=length, tail_ids=tail, completions=completions)
                    for length in lengths
                ],
                prefix_loss=lambda hidden, n=number: (n + 1) * hidden[:, ::3].sum() / 100,
                completion_loss=completion_loss,
            )
        )
    return passages


@pytest.mark.parametrize("microbatch_tokens", [7, 60, 1000])
def test_long_documents_share_passes_and_no_keys(policy: Model, microbatch_tokens: int) -> None:
    passages = long_passages(policy)
    assert not any(forest.is_short(one) for one in passages)
    together = gradients_of(policy, TreeEngine(model=policy), passages, microbatch_tokens)
    alone = gradients_of(policy, FlatEngine(model=policy), passages, microbatch_tokens)
    exact = policy.causal_lm.config.model_type == "gpt2"
    bounds = {"rtol": 1e-9, "atol": 1e-11} if exact else {"rtol": 1e-3, "atol": 1e-4}
    for got, wanted in zip(together, alone, strict=True):
        torch.testing.assert_close(got, wanted, **bounds)


def gradients_of(
    policy: Model, engine: Engine, passages: list[Passage], microbatch_tokens: int
) -> list[Tensor]:
    for weight in policy.parameters():
        weight.grad = None
    engine.accumulate_each(passages, microbatch_tokens=microbatch_tokens)
    return [weight.grad.clone() for weight in policy.parameters() if weight.grad is not None]


def test_passes_are_few(policy: Model, monkeypatch) -> None:
    passes: list[tuple[int, ...]] = []
    run_level = level.run_level

    def counted(policy, ids, *rest):
        passes.append(tuple(ids.shape))
        return run_level(policy, ids, *rest)

    for module in (forest, levels):
        monkeypatch.setattr(module, "run_level", counted)
    engine = TreeEngine(model=policy)
    engine.accumulate_each(long_passages(policy)[:2], microbatch_tokens=1000)
    assert passes == [(1, 53), (4, 3), (11, 4)]  # all prefixes, tails and completions
    passes.clear()
    engine.accumulate_each(passages_of(policy, [[] for _ in DOCUMENTS]), microbatch_tokens=1000)
    # Of the first three, which are short; the fourth has no completion, the fifth no neighbour.
    assert passes == [(3, 5), (3, 3), (6, 5), (1, 3), (1, 2), (1, 1), (1, 2), (1, 1)]
