"""Mixed precision: what transformers computes under torch.autocast, float32 where sums are kept,
and never a copy of weights that have changed since."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from openrpt.config.loading import load_config
from openrpt.config.model import ModelConfig
from openrpt.data.request import Request
from openrpt.engine.branches import Branch, CompletionIndex
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import bind
from openrpt.engine.loading import load_model
from openrpt.engine.logprobs import selected_logprobs
from openrpt.engine.model import Model
from openrpt.engine.text_loss import TextTerms, text_loss
from openrpt.engine.tree.attention import NAME
from openrpt.errors import UserError
from tests.engine.test_engine import LAYOUT
from tests.helpers.byte_policy import policy_of
from tests.helpers.families import FAMILIES, tiny_policy
from tests.helpers.tiny_model import tiny_model_folder

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft

Kind = Literal["tree", "flat"]
PREFIX = [(11 * i + 5) % 97 for i in range(24)]
BRANCHES = [
    Branch(prefix_length=5, tail_ids=(90, 91), completions=((7, 8, 9, 11), (2, 3))),
    Branch(prefix_length=17, tail_ids=(90, 91, 92), completions=((7, 8, 9, 1), (40,), (6, 6, 6))),
]
NATS, MEAN_NATS = 0.5, 0.1
"""How far a log-probability may be from its like, and the mean of them: bfloat16 has 3 digits, and
the tests' random models have logits of up to 20 and attention that is far from uniform."""
COSINE = 0.98
"""How much alike gradients must be at least. Seen: 0.9896 to 0.9999 with these models, whose
attention magnifies each rounding; 0.9993 with SmolLM2-135M."""


def mixed(family: str, *, mixes: bool = True) -> Model:
    policy = tiny_policy(family, torch.float32)
    policy.attention = plain_attention(family)
    policy.compute_dtype = torch.bfloat16 if mixes else None
    return policy


def plain_attention(family: str) -> str:
    return "eager" if family == "gemma2" else "sdpa"  # sdpa has no soft cap


def engine_of(kind: Kind, policy: Model):
    policy.attention = NAME if kind == "tree" else plain_attention(policy.name)
    return bind(kind, policy)


def logprobs_of(hidden: Tensor, ids: tuple[int, ...], policy: Model) -> Tensor:
    return selected_logprobs(hidden[: len(ids)], policy.head, torch.tensor(ids))[0]


def completion_logprobs(kind: Kind, policy: Model) -> Tensor:
    found = engine_of(kind, policy).branch_states(PREFIX, BRANCHES)
    return torch.cat(
        [
            logprobs_of(hidden, ids, policy)
            for branch, of_branch in zip(BRANCHES, found, strict=True)
            for ids, hidden in zip(branch.completions, of_branch, strict=True)
        ]
    ).detach()


def losses(policy: Model) -> dict[str, Callable[..., Tensor]]:
    """A weighted sum of completion log-probabilities, and the next tokens of the prefix."""

    def completion_loss(rows: list[CompletionIndex], hidden: Tensor) -> Tensor:
        parts = [
            (b + 1) * (c - 0.7) * logprobs_of(states, BRANCHES[b].completions[c], policy).sum()
            for (b, c), states in zip(rows, hidden, strict=True)
        ]
        return torch.stack(parts).sum()

    def prefix_loss(hidden: Tensor) -> Tensor:
        terms = TextTerms(targets=torch.tensor(PREFIX[1:]), ntp_scale=0.1)
        return text_loss(hidden[:-1], policy.head, terms)[0]

    return {"completion_loss": completion_loss, "prefix_loss": prefix_loss}


def gradients(kind: Kind, policy: Model, microbatch_tokens: int = 8) -> Tensor:
    policy.network.zero_grad()
    engine = engine_of(kind, policy)
    engine.accumulate_gradients(
        PREFIX, BRANCHES, microbatch_tokens=microbatch_tokens, **losses(policy)
    )
    grads = [p.grad for p in policy.parameters() if p.grad is not None]
    assert grads and all(grad.dtype == torch.float32 for grad in grads)
    return torch.cat([grad.flatten() for grad in grads])


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers_under_autocast(family: str) -> None:
    """To the bit: the copies are what autocast rounds. Gemma 2's cap is taken in float32 here."""
    policy, ids = mixed(family), torch.tensor([PREFIX])
    with torch.no_grad():
        found = policy.head.logits(policy.states(input_ids=ids)[0])
        with torch.autocast("cpu", torch.bfloat16):
            expected = policy.causal_lm(ids, use_cache=False).logits[0]
        exact = policy.causal_lm(ids, use_cache=False).logits[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=0.1 * (family == "gemma2"))
    assert not torch.equal(found, exact)


@pytest.mark.parametrize("family", FAMILIES)
def test_tree_and_flat_agree_with_each_other_and_with_float32(family: str) -> None:
    plain = mixed(family, mixes=False)
    exact, exact_gradient = completion_logprobs("flat", plain), gradients("flat", plain)
    policy = mixed(family)
    flat, flat_gradient = completion_logprobs("flat", policy), gradients("flat", policy)
    tree, tree_gradient = completion_logprobs("tree", policy), gradients("tree", policy)
    for one, other in ((flat, exact), (tree, exact), (tree, flat)):
        differences = (one - other).abs()
        assert 0 < float(differences.max()) < NATS
        assert float(differences.mean()) < MEAN_NATS
    for one, other in (
        (flat_gradient, exact_gradient),
        (tree_gradient, exact_gradient),
        (tree_gradient, flat_gradient),
    ):
        assert COSINE < cosine(one, other) < 1
    assert all(p.dtype == torch.float32 for p in policy.parameters())


@pytest.mark.parametrize("kind", ["tree", "flat"])
def test_the_sampler_says_what_the_trainer_reads(kind: Kind) -> None:
    policy = policy_of("llama", dtype=torch.float32)
    policy.compute_dtype = torch.bfloat16
    engine = engine_of(kind, policy)
    request = Request.at_end(PREFIX, range(12))
    ((found,),) = engine.generate_each([request], LAYOUT, Sampling.plain(6, temperature=1.0))
    differences = []
    for completion in found.completions:
        ids = tuple(completion.token_ids)
        branch = Branch(prefix_length=24, tail_ids=LAYOUT.tail_ids, completions=(ids,))
        ((states,),) = engine.branch_states(PREFIX, [branch])
        said = torch.tensor(completion.sampler_logprobs)
        read = logprobs_of(states, ids, policy)
        differences += (said - read)[torch.tensor(completion.loss_mask)].abs().tolist()
    assert len(differences) > 50
    assert max(differences) < NATS and sum(differences) / len(differences) < 0.05


def test_sums_over_micro_batches_are_kept_in_float32() -> None:
    """Many small micro-batches add to the same keys: what they differ by is their own rounding."""
    policy = mixed("llama")
    assert cosine(gradients("tree", policy, 1), gradients("tree", policy, 1000)) > 0.9995


def changes(policy: Model) -> Iterator[tuple[str, Callable[[], Any]]]:
    """All ways in which weights change."""
    parameters = policy.parameters()
    generator = torch.Generator().manual_seed(1)

    def step(optimizer: torch.optim.Optimizer) -> None:
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()

    for fused, foreach in ((True, False), (False, True), (False, False)):
        optimizer = torch.optim.AdamW(parameters, lr=0.1, fused=fused, foreach=foreach)
        yield f"AdamW {fused=} {foreach=}", lambda optimizer=optimizer: step(optimizer)
    yield "SGD", lambda: step(torch.optim.SGD(parameters, lr=0.1))
    values = {name: torch.randn(p.shape) / 9 for name, p in policy.trained().items()}
    yield "load", lambda: policy.load(values)


@pytest.mark.parametrize("kind", ["tree", "flat"])
def test_copies_are_never_older_than_the_weights(kind: Kind) -> None:
    """torch's fused AdamW does not say that it has changed the weights."""
    policy = mixed("llama")
    last = completion_logprobs(kind, policy)
    for what, change in changes(policy):
        change()
        found = completion_logprobs(kind, policy)
        anew = mixed("llama")
        anew.load(policy.trained())
        assert torch.equal(found, completion_logprobs(kind, anew)), what
        assert not torch.equal(found, last), what
        last = found


def test_a_copy_is_made_once_a_change() -> None:
    policy = mixed("llama")
    ids = torch.tensor([PREFIX])
    weight = policy.causal_lm.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        policy.states(input_ids=ids)
        first = policy._rounded.of(weight)
        policy.states(input_ids=ids)
        assert policy._rounded.of(weight) is first
        weight.mul_(1.5)
        policy.states(input_ids=ids)
    assert policy._rounded.of(weight) is not first


def test_small_updates_add_up() -> None:
    """Each moves a weight by less than bfloat16 resolves, in which hardly one would move."""
    policy = mixed("llama")
    before = policy.causal_lm.model.layers[0].mlp.up_proj.weight.detach().clone()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6, weight_decay=0.0, fused=True)
    gradients("tree", policy)
    for _ in range(20):  # the same direction each time: 20 steps of 1e-6
        optimizer.step()
    weight = policy.causal_lm.model.layers[0].mlp.up_proj.weight.detach()
    moved = (weight - before).abs()
    assert float(moved.median()) == pytest.approx(2e-5, rel=0.05)
    rounded = before.bfloat16()
    assert float(((rounded + 1e-6) == rounded).double().mean()) > 0.99


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("model") / "m", initializer_range=0.2)


def loaded(folder: Path, *, recompute: bool = False, **settings: Any) -> Model:
    config = ModelConfig(path=str(folder), threads=1, compute_dtype="bfloat16", **settings)
    return load_model(config, trained=True, recompute=recompute)


def test_recomputed_activations_give_the_same_gradient(folder: Path) -> None:
    once, again = loaded(folder), loaded(folder, recompute=True)
    assert torch.equal(gradients("tree", once), gradients("tree", again))


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_adapters_are_trained(family: str, tmp_path: Path) -> None:
    path = tiny_model_folder(
        tmp_path / "m", family=family, **({"num_local_experts": 4} if family == "mixtral" else {})
    )
    found = []
    for compute_dtype in ("same", "bfloat16"):
        config = ModelConfig(path=str(path), threads=1, lora_rank=4, compute_dtype=compute_dtype)
        policy = load_model(config, trained=True)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(0))
        policy.name = "llama"
        found.append(gradients("tree", policy))
    assert COSINE < cosine(*found) < 1


def test_mixed_precision_is_for_float32_weights() -> None:
    overrides = {"model.compute_dtype": "bfloat16", "model.dtype": "bfloat16"}
    with pytest.raises(UserError, match=r"compute_dtype = 'bfloat16' is for float32 weights"):
        load_config(overrides=overrides)
