"""What both engines promise beside generation and gradients: states, standard prediction, weights
that are loaded in place."""

from typing import Literal

import pytest
import torch

from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.engine.branches import Branch
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine, bind
from openrpt.engine.tree.attention import NAME
from tests.helpers.byte_policy import policy_of
from tests.helpers.families import FAMILIES

Kind = Literal["tree", "flat"]
KINDS: tuple[Kind, ...] = ("tree", "flat")
IDS = [(5 * i + 3) % 97 for i in range(12)]
LAYOUT = Layout(
    head_ids=(),
    tail_ids=(8, 9),
    plain_head_ids=(),
    separator_ids=(4,),
    close_ids=(5, 6),
    answer_start_ids=(6,),
    answer_end_ids=(7,),
    thought_end_ids=(5,),
    thought_end=b"",
    literal={},
)


def engine_of(kind: Kind, family: str = "llama") -> Engine:
    policy = policy_of(family)
    policy.attention = NAME if kind == "tree" else "eager"
    return bind(kind, policy)


def said(engine: Engine, seed: int = 0) -> tuple[int, ...]:
    request = Request.at_end(IDS, [seed])
    ((found,),) = engine.generate_each([request], LAYOUT, Sampling.plain(6, temperature=1.0))
    return found.completions[0].token_ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_transformers(family: str, kind: Kind) -> None:
    """The states of several sequences of other lengths are those of each alone, at every layer."""
    engine, model = engine_of(kind, family), policy_of(family).causal_lm
    model.set_attn_implementation("eager")
    sequences = [IDS, IDS[3:8], [40]]
    with torch.no_grad():
        found = engine.states(sequences, layers=range(model.config.num_hidden_layers + 1))
        (last,) = engine.states(sequences)
        expected = [
            model(torch.tensor([ids]), output_hidden_states=True, use_cache=False).hidden_states
            for ids in sequences
        ]
    assert len(found) == len(expected[0])
    for layer, states in enumerate(found):
        wanted = torch.cat([one[layer][0] for one in expected])
        torch.testing.assert_close(states, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[-1], last, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_standard_prediction_is_the_generations_own(kind: Kind) -> None:
    engine, lengths = engine_of(kind), (4, 12)
    request = Request(prefix_ids=tuple(IDS), prefix_lengths=lengths, keys=((), ()))
    (generated,) = engine.generate_each([request], LAYOUT, Sampling.plain(1))
    found = engine.standard(IDS, lengths, k=3)
    assert found.argmax.tolist() == [outcome.standard_id for outcome in generated]
    assert found.candidate_ids.shape == (2, 3)
    best = found.candidate_ids[0, 0].item()
    held_back = engine.standard(IDS, lengths, delimiter_ids=[best])
    assert best not in held_back.candidate_ids[0].tolist()
    assert held_back.argmax[0] == found.candidate_ids[0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_weights_are_run_in_place(kind: Kind) -> None:
    """An engine that gets another's weights says what the other says, to the bit, wherever the
    first engine's model is known."""
    engine, other = engine_of(kind), engine_of(kind)
    with torch.no_grad():
        for parameter in other.model.network.parameters():
            parameter.add_(0.3 * torch.sin(torch.arange(parameter.numel())).view_as(parameter))
    draws = range(8)
    before = [said(engine, n) for n in draws]
    assert before != [said(other, n) for n in draws] and engine.version == 0
    own = dict(engine.model.network.named_parameters())
    engine.load(dict(other.model.network.named_parameters()))
    assert engine.version == 1 and engine.exact_draws
    assert (
        dict(engine.model.network.named_parameters()) == own
    )  # the same tensors, for an optimizer
    assert [said(engine, n) for n in draws] == [said(other, n) for n in draws]
    branches = [Branch(prefix_length=5, tail_ids=(8,), completions=((3, 4, 2),))]
    mine, theirs = (one.branch_states(IDS, branches)[0][0] for one in (engine, other))
    assert torch.equal(mine, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_do_not_fit_change_nothing(kind: Kind) -> None:
    engine = engine_of(kind)
    before = {n: p.detach().clone() for n, p in engine.model.network.named_parameters()}
    name = next(iter(before))
    zeros = torch.zeros_like(before[name])
    with pytest.raises(ValueError, match="no parameter nowhere"):
        engine.load({name: zeros, "nowhere": zeros})
    with pytest.raises(ValueError, match="has the shape"):
        engine.load({name: zeros[1:]})
    assert engine.version == 0
    for key, parameter in engine.model.network.named_parameters():
        assert torch.equal(parameter, before[key])
    engine.load({name: zeros})  # the rest stays
    assert engine.version == 1 and not dict(engine.model.network.named_parameters())[name].any()
