"""What passes save for their backward pass: less, and the gradient is the same to the bit."""

import gc
import weakref
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from openrpt.engine.lora import add_lora
from openrpt.engine.model import Model
from openrpt.engine.saved import saved_sparingly
from tests.engine.test_mixed_precision import Kind, gradients, mixed
from tests.helpers.families import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft


def both(policy: Model, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    found = gradients(kind, policy)
    monkeypatch.setattr("openrpt.engine.model.saved_sparingly", nullcontext)
    return [found, gradients(kind, policy)]


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_same(family: str, mixes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found, expected = both(mixed(family, mixes=mixes), "tree", monkeypatch)
    assert torch.equal(found, expected)


def test_gradients_of_the_flat_engine_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    found, expected = both(mixed("llama", mixes=False), "flat", monkeypatch)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("mixes", [False, True])
def test_gradients_of_adapters_are_the_same(mixes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = mixed("llama", mixes=mixes)
    policy.network = add_lora(policy.network, rank=2, alpha=4.0)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    found, expected = both(policy, "tree", monkeypatch)
    assert torch.equal(found, expected)


def inputs_that_live(family: str, *, mixes: bool) -> dict[str, bool]:
    """Of each linear layer of a pass: whether what it read is there until the backward pass."""
    policy = mixed(family, mixes=mixes)
    read: dict[str, weakref.ref[Any]] = {}

    def remember(name: str) -> Any:
        return lambda module, inputs: read.update({name: weakref.ref(inputs[0])})

    for name, module in policy.backbone.layers[0].named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(remember(name.rpartition(".")[2]))
    hidden = policy.states(input_ids=torch.arange(10)[None])
    found = {name: tensor() is not None for name, tensor in read.items()}
    assert hidden.requires_grad
    return found


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_what_products_read_is_not_kept(family: str, mixes: bool) -> None:
    found = inputs_that_live(family, mixes=mixes)
    assert len(found) == 7
    assert not any(found[name] for name in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"))
    assert not found["down_proj"]


def test_an_output_is_made_once_for_all_who_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, up, weight = (torch.randn(3, 4, requires_grad=True) for _ in range(3))
    made = []
    with saved_sparingly():
        product = F.silu(gate) * up
        loss = (product * weight).sum() + (product * weight.square()).sum()
    real = F.silu
    monkeypatch.setattr(F, "silu", lambda x: made.append(x) or real(x))
    loss.backward()
    assert len(made) == 1
    (expected,) = torch.autograd.grad((real(gate) * up * (weight + weight.square())).sum(), [up])
    torch.testing.assert_close(up.grad, expected)


def test_a_graph_without_a_backward_pass_is_freed() -> None:
    def alive() -> int:
        gc.collect()
        shape = (7, 43)
        return sum(type(one) is torch.Tensor and one.shape == shape for one in gc.get_objects())

    before = alive()
    gate, up = (torch.randn(7, 43, requires_grad=True) for _ in range(2))
    with saved_sparingly():
        loss = (F.silu(gate) * up).square().exp().sum()
    assert alive() > before + 2
    del gate, up, loss
    assert alive() == before


def test_a_part_of_an_output_is_saved_as_it_is() -> None:
    gate, up = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    with saved_sparingly():
        product = gate * up
        found = product[:, 1:].square() + product.T[1:].T.exp() + product.T.contiguous().T[:, 1:]
    found.sum().backward()
    whole = (gate * up)[:, 1:]
    expected = torch.autograd.grad((whole.square() + whole.exp() + whole).sum(), [gate, up])
    torch.testing.assert_close((gate.grad, up.grad), expected)
