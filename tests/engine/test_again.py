"""Outputs that are computed again in the backward pass: to the same gradient, and not kept."""

import weakref
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from openrpt.engine.again import recomputed_outputs
from openrpt.engine.model import Model
from tests.engine.test_mixed_precision import PREFIX, mixed


def gradient(policy: Model, *, again: bool) -> tuple[torch.Tensor, int]:
    """The gradient of a pass, and how many outputs of norms and activations lived until then."""
    policy.network.zero_grad()
    outputs: list[weakref.ref[torch.Tensor]] = []

    def remember(module: Any, inputs: Any, output: torch.Tensor) -> None:
        outputs.append(weakref.ref(output))

    modules = [m for n, m in policy.backbone.layers.named_modules() if n.endswith(NAMES)]
    hooks = [module.register_forward_hook(remember) for module in modules]
    with recomputed_outputs(policy) if again else nullcontext():
        hidden = policy.states(input_ids=torch.tensor([PREFIX]))
    for hook in hooks:
        hook.remove()
    alive = sum(output() is not None for output in outputs)
    hidden.square().sum().backward()
    found = [p.grad.flatten() for p in policy.parameters() if p.grad is not None]
    return torch.cat(found), alive


NAMES = ("input_layernorm", "post_attention_layernorm", "act_fn")


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_the_gradient_is_the_same_and_less_is_kept(family: str, mixes: bool) -> None:
    policy = mixed(family, mixes=mixes)
    expected, kept = gradient(policy, again=False)
    found, left = gradient(policy, again=True)
    assert torch.equal(found, expected)
    assert left < kept
