"""Short documents side by side give the gradients that each gives alone, in float64."""

import pytest
import torch
from torch import Tensor

from openrpt.config.model import ModelConfig
from openrpt.engine.branches import Branch, CompletionIndex, Passage
from openrpt.engine.flat import FlatEngine
from openrpt.engine.head import selected_logprobs
from openrpt.engine.loading import load_model
from openrpt.engine.model import Model
from openrpt.engine.tree import forest, levels
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
                ids = torch.tensor(completions[c])
                logps, _ = selected_logprobs(states[: len(ids)], policy.head, ids, temperature=1.0)
                weights = torch.arange(1.0, len(ids) + 1, dtype=logps.dtype)
                total = total + (logps * weights).sum() * (1 + number + 0.1 * c)
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

    def gradients(accumulate) -> list[Tensor]:
        for weight in policy.parameters():
            weight.grad = None
        accumulate(passages, microbatch_tokens=microbatch_tokens)
        return [weight.grad.clone() for weight in policy.parameters() if weight.grad is not None]

    together = gradients(TreeEngine(model=policy).accumulate_each)
    every = [[(0, c) for c in range(len(completions))] for *_, completions in DOCUMENTS]
    assert [sorted(rows) for rows in seen] == every
    alone = gradients(FlatEngine(model=policy).accumulate_each)
    # Of these families GPT-2 alone has no norm that rounds to float32 inside.
    exact = policy.causal_lm.config.model_type == "gpt2"
    bounds = {"rtol": 1e-9, "atol": 1e-11} if exact else {"rtol": 1e-3, "atol": 1e-4}
    for got, wanted in zip(together, alone, strict=True):
        torch.testing.assert_close(got, wanted, **bounds)


def test_passes_are_few_and_long_documents_run_alone(policy: Model, monkeypatch) -> None:
    passages = passages_of(policy, [[] for _ in DOCUMENTS])
    alone: list[int] = []
    monkeypatch.setattr(
        TreeEngine, "accumulate_gradients", lambda _, ids, *rest, **kw: alone.append(len(ids))
    )
    passes: list[int] = []
    run_level = levels.run_level

    def counted(policy, ids, *rest):
        passes.append(len(ids))
        return run_level(policy, ids, *rest)

    monkeypatch.setattr(forest, "run_level", counted)
    TreeEngine(model=policy).accumulate_each(passages, microbatch_tokens=1000)
    assert alone == [3, 1]  # no completion of the fourth is read; the fifth has no neighbour
    assert passes == [3, 3, 6]  # prefixes, tails, completions of the first three
