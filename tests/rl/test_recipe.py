"""The one-file recipe runs, and agrees with the package: two writings of one method."""

import importlib.util
import math
import random
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from openrpt.config.model import ModelConfig
from openrpt.config.prompt import PromptConfig
from openrpt.data.prompts import build_layout
from openrpt.data.tokens import token_bytes, token_table
from openrpt.engine.branches import Branch, CompletionIndex, Passage
from openrpt.engine.engine import bind
from openrpt.engine.loading import load_model
from openrpt.engine.logprobs import selected_logprobs
from openrpt.engine.model import Model
from openrpt.engine.standard import standard_prediction
from openrpt.engine.tree.gradients import accumulate_gradients
from openrpt.engine.tree.levels import run_prefix
from openrpt.rl import completions
from openrpt.rl.advantages import group_advantages
from openrpt.rl.losses import LossConfig, LossInputs, StepTotals, policy_loss
from openrpt.rl.rewards import matching as rewards
from tests.helpers.examples import BOX, CONTINUATION, MATCHES
from tests.helpers.tiny import TEXT, think_tokenizer
from tests.helpers.tiny_model import tiny_model_folder

ARGS = SimpleNamespace(think=0, prediction=4)


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    path = Path(__file__).parents[2] / "recipes" / "rpt_loop.py"
    spec = importlib.util.spec_from_file_location("rpt_loop", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def policy(tmp_path: Path) -> Model:
    folder = tiny_model_folder(tmp_path / "model", family="gpt2", dtype=torch.float64)
    config = ModelConfig(path=str(folder), device="cpu", threads=1, dtype="float64")
    return bind("tree", load_model(config, trained=True)).model


def test_the_box_and_the_reward_agree_on_the_examples(recipe: ModuleType) -> None:
    for completion, prediction in BOX:
        assert recipe.extract_prediction(completion) == prediction, completion
        assert completions.extract_prediction(completion) == prediction, completion
    for prediction, k in MATCHES:
        for function in (recipe.prefix_match, rewards.prefix_match):
            assert function(prediction, CONTINUATION) == float(k > 0), prediction


def test_they_agree_on_random_bytes(recipe: ModuleType) -> None:
    rng = random.Random(0)
    pieces = [b"</think>", b"\\boxed{", b"{", b"}", b" ", b"a", b"\n", b"\\"]
    for _ in range(2000):
        text = b"".join(rng.choices(pieces, k=rng.randrange(8)))
        assert recipe.extract_prediction(text) == completions.extract_prediction(text), text
        cut = rng.choices([b"", b"a", b" ", b"aa"], k=4)
        prediction = b"".join(rng.choices([b"a", b" "], k=rng.randrange(4)))
        expected = rewards.prefix_match(prediction, cut)
        assert recipe.prefix_match(prediction, cut) == expected, (prediction, cut)


def test_bytes_prompt_and_candidates_agree(recipe: ModuleType, policy: Model) -> None:
    table, form = recipe.byte_table(policy.tokenizer), recipe.make_form(policy.tokenizer, ARGS)
    assert table == token_bytes(policy.tokenizer, range(len(table)))
    window = policy.tokenizer(TEXT[0])["input_ids"][:24]
    found = recipe.hard_positions(policy.network, window, 4, 0.0, 3, form.special)
    layout = build_layout(policy.tokenizer, PromptConfig())
    with torch.no_grad():
        hidden = run_prefix(policy, window).hidden[0]
        standard = standard_prediction(hidden, policy.head, policy.masked_ids(), k=3)
    for t, candidates in found.items():
        assert candidates == standard.candidate_ids[t - 1].tolist()
        expected = (*window[:t], *layout.tail_ids, *layout.seed(candidates))
        assert recipe.make_prompt(window[:t], candidates, form) == list(expected)
    assert form.close == list(layout.close_ids)
    assert form.special == sorted(policy.table.special_ids)
    without = recipe.hard_positions(policy.network, window, 4, 0.0, 3, [*form.special, found[9][0]])
    assert without[9][:2] == found[9][1:], "what is masked is no candidate"


def test_gradients_are_those_of_the_tree(recipe: ModuleType, policy: Model) -> None:
    """Two positions' groups, flat in the recipe and shared in the tree, in float64."""
    form = recipe.make_form(policy.tokenizer, ARGS)
    window = policy.tokenizer(TEXT[0])["input_ids"][:24]
    found = recipe.hard_positions(policy.network, window, 8, 0.0, 3, form.special)
    given = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    advantages = group_advantages(given)
    torch.manual_seed(0)
    branches, masks = [], []
    for row, t in enumerate((9, 16)):
        prompt = recipe.make_prompt(window[:t], found[t], form)
        ids, sampled = recipe.roll_out(policy.network, prompt, 4, form)
        logprobs = recipe.completion_logprobs(policy.network, prompt, ids)
        own = recipe.group_advantages(given[row])
        torch.testing.assert_close(own, advantages[row])
        (recipe.policy_loss(logprobs, own, sampled) / given.numel()).backward()
        rows = tuple(tuple(row) for row in ids.tolist())
        branches.append(Branch(prefix_length=t, tail_ids=tuple(prompt[t:]), completions=rows))
        masks.append(sampled)
    expected = [p.grad.clone() for p in policy.parameters()]
    policy.network.zero_grad()

    def loss(rows: list[CompletionIndex], hidden: torch.Tensor) -> torch.Tensor:
        ids = torch.tensor([branches[b].completions[c] for b, c in rows])
        mask = torch.stack([masks[b][c] for b, c in rows])
        found, _ = selected_logprobs(hidden[mask], policy.head, ids[mask], temperature=1.0)
        logprobs = torch.zeros(ids.shape, dtype=found.dtype).masked_scatter(mask, found)
        inputs = LossInputs(
            trainer_logprobs=logprobs,
            old_logprobs=logprobs.detach(),
            sampler_logprobs=logprobs.detach(),
            advantages=torch.stack([advantages[b, c] for b, c in rows]),
            loss_mask=mask,
        )
        totals = StepTotals(tokens=int(sum(m.sum() for m in masks)), rollouts=8, length=4)
        return policy_loss(inputs, LossConfig(aggregation="sequence_mean"), totals).loss

    passage = Passage(prefix_ids=window[:16], branches=branches, completion_loss=loss)
    accumulate_gradients(policy, [passage], microbatch_tokens=40)
    assert max(float(gradient.abs().max()) for gradient in expected) > 1e-6
    for parameter, gradient in zip(policy.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-12)


def test_it_runs_on_a_tiny_model(recipe: ModuleType, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXT * 3), encoding="utf-8")
    folder = tiny_model_folder(tmp_path / "model")
    sizes = ["--window", "40", "--positions", "3", "--group-size", "3", "--lr", "1e-2"]
    where = ["--model", str(folder), "--text", str(text)]
    history = recipe.main([*where, "--warmup", "4", "--steps", "2", "--think", "2", *sizes])
    assert [values["step"] for values in history] == [1, 2, 3, 4, 5, 6]
    assert history[3]["imitation"] < history[0]["imitation"], "the form is being learned"
    for values in history[4:]:
        assert 0 <= values["reward"] <= 1 and 0 <= values["flat"] <= 1
    assert all(math.isfinite(x) for values in history for x in values.values())


@pytest.mark.parametrize("special", [True, False])
def test_delimiters_of_one_token_are_masked(recipe: ModuleType, special: bool) -> None:
    tokenizer = think_tokenizer(special=special)
    layout = build_layout(tokenizer, PromptConfig())
    masked = token_table(tokenizer).special_ids | layout.delimiter_ids
    assert recipe.make_form(tokenizer, ARGS).special == sorted(masked)
