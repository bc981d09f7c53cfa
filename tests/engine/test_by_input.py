"""Weights that lie input by input while a call decodes."""

import pytest
import torch
from torch import nn

from openrpt.data.request import Request
from openrpt.engine.by_input import ByInput
from openrpt.engine.flat import FlatEngine
from openrpt.engine.tree import engine
from openrpt.engine.tree.attention import NAME
from openrpt.engine.tree.engine import TreeEngine
from openrpt.seeding import key_of
from tests.engine.test_generation import LAYOUT, LENGTHS, PREFIX, sampling_of
from tests.helpers.byte_policy import policy_of


def layers_of(dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, 80, dtype=dtype), nn.Linear(80, 48, dtype=dtype))


@torch.no_grad()
def test_the_parameters_lie_otherwise_and_come_back_as_they_were() -> None:
    layers = layers_of(torch.float32)
    before = [(p, p.data_ptr(), p._version, p.stride()) for p in layers.parameters()]
    ids = torch.randn(16, 48)
    expected = layers(ids)
    with pytest.raises(ZeroDivisionError), ByInput(module=layers).used():
        assert [layer.weight.stride() for layer in layers] == [(1, 80), (1, 48)]
        assert torch.equal(layers(ids), expected)  # from 16 rows on, to the bit
        assert torch.allclose(layers(ids[:3]), expected[:3], rtol=0, atol=1e-6)
        _ = 1 / 0
    assert [(p, p.data_ptr(), p._version, p.stride()) for p in layers.parameters()] == before


@torch.no_grad()
def test_a_changed_weight_is_copied_again_and_no_other() -> None:
    layers = layers_of(torch.float64)
    copies = ByInput(module=layers)
    with copies.used():
        first = [layer.weight.data_ptr() for layer in layers]
    layers[0].weight.mul_(-2)
    with copies.used():
        second = [layer.weight.data_ptr() for layer in layers]
        ids = torch.randn(4, 48, dtype=torch.float64)
        whole = (ids @ layers[0].weight.T + layers[0].bias) @ layers[1].weight.T + layers[1].bias
        assert torch.allclose(layers(ids), whole, rtol=0, atol=1e-12)
    assert (first[0] == second[0], first[1] == second[1]) == (False, True)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_long_completions_are_those_of_flat_sequences(family: str, monkeypatch) -> None:
    """Documents one after the other, whose weights are changed between them."""
    monkeypatch.setattr(engine, "WORTHWHILE_PASSES", 16)
    one_document = len(LENGTHS) * 9
    sampling = sampling_of(1.0, 4, 12, candidates=1, generation_rollouts=one_document)
    keys = tuple(tuple(key_of(3, n, r) for r in range(9)) for n in LENGTHS)
    request = Request(prefix_ids=PREFIX, prefix_lengths=LENGTHS, keys=keys)
    found = []
    for bind in (TreeEngine, FlatEngine):
        policy = policy_of(family, stop=120)
        policy.attention = "sdpa" if bind is FlatEngine else NAME
        documents = bind(model=policy).generate_each([request, request], LAYOUT, sampling)
        first = next(documents)
        with torch.no_grad():
            for weight in policy.network.parameters():
                weight.mul_(1.25)
        found.append([*first, *next(documents)])
    ours, theirs = found
    assert [o.completions for o in ours[:4]] != [o.completions for o in ours[4:]]
    for one, other in zip(ours, theirs, strict=True):
        for a, b in zip(one.completions, other.completions, strict=True):
            assert (a.token_ids, a.finish_reason) == (b.token_ids, b.finish_reason)
            assert a.sampler_logprobs == pytest.approx(b.sampler_logprobs, abs=1e-9)
