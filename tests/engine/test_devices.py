"""The tree on a GPU against the tree on the CPU: states, gradients, draws; in float64.

The same comparison runs on a device that only looks like one (`tests/helpers/other_device.py`), so
that it is itself known to run. `pytest -m gpu` runs it where a GPU is.
"""

from collections import Counter
from itertools import chain

import pytest
import torch

from openrpt.data.request import Request
from openrpt.engine.decoding import Sampling
from openrpt.engine.logprobs import selected_logprobs
from openrpt.engine.model import Model
from openrpt.engine.tree.engine import TreeEngine
from openrpt.seeding import keys_of
from tests.engine.test_generation import LAYOUT, LENGTHS, PREFIX
from tests.engine.test_tree import BRANCHES
from tests.helpers.byte_policy import policy_of
from tests.helpers.other_device import NAME, counted_waits, on_other_device, on_the_host

FAMILIES = ["llama", "gemma2", "gemma3", "gpt2"]
"""Plain, with a soft cap, with sliding windows, with learned positions."""


def outcomes(policy: Model) -> tuple[list[torch.Tensor], list[torch.Tensor], list[list[int]]]:
    """States of completions, gradients, and drawn tokens; on the CPU."""
    engine = TreeEngine(model=policy)

    def loss(rows, hidden):
        ids = torch.tensor([BRANCHES[b].completions[c][0] for b, c in rows], device=policy.device)
        logprobs, entropies = selected_logprobs(hidden[:, 0], policy.head, ids)
        return (logprobs - 0.3 * entropies).sum()

    states = [one.cpu() for each in engine.branch_states(PREFIX, BRANCHES) for one in each]
    engine.accumulate_gradients(PREFIX, BRANCHES, completion_loss=loss, microbatch_tokens=7)
    grads = [p.grad.cpu() for p in policy.network.parameters() if p.grad is not None]
    request = Request(
        prefix_ids=PREFIX,
        prefix_lengths=LENGTHS,
        keys=tuple(keys_of(3, 7, n) for n in LENGTHS),
    )
    sampling = Sampling(temperature=1.0, think_budget=4, prediction_budget=3, candidates=0)
    (found,) = engine.generate_each([request], LAYOUT, sampling)
    drawn = [list(one.token_ids) for outcome in found for one in outcome.completions]
    return states, grads, drawn


def compare(family: str, device: str) -> None:
    with on_the_host():
        expected = outcomes(policy_of(family))
    policy = policy_of(family)
    policy.network.to(device)
    found = outcomes(policy)
    for one, wanted, tolerance in zip(found[:2], expected[:2], (1e-9, 1e-8), strict=True):
        assert len(one) == len(wanted)
        for value, other in zip(one, wanted, strict=True):
            assert (value - other).abs().max() <= tolerance * other.abs().max().clamp_min(1.0)
    assert found[2] == expected[2]


ROLLOUTS = 3


def requests_of(documents: int) -> list[Request]:
    """Documents that are decoded together, each over its own prefix."""
    return [
        Request(
            prefix_ids=PREFIX[d:],
            prefix_lengths=LENGTHS[:3],
            keys=tuple(keys_of(ROLLOUTS, 7, d, n) for n in LENGTHS[:3]),
        )
        for d in range(documents)
    ]


def drawn(policy, documents: int, tokens: int):
    sampling = Sampling(temperature=1.0, think_budget=tokens, prediction_budget=3, candidates=0)
    return [*TreeEngine(model=policy).generate_each(requests_of(documents), LAYOUT, sampling)]


def count_waits() -> None:
    """Asserts how often the host waits for the device in the decode loop."""
    own, there = policy_of(), policy_of()
    there.network.to(NAME)
    for documents in (1, 2):
        waits: dict[int, Counter[str]] = {}
        for tokens in (2, 5):
            with counted_waits() as waits[tokens]:
                found = drawn(there, documents, tokens)
            with on_the_host():
                expected = drawn(own, documents, tokens)
            for one, wanted in zip(chain(*found), chain(*expected), strict=True):
                ids, wanted_ids = (
                    [c.token_ids for c in outcome.completions] for outcome in (one, wanted)
                )
                assert ids == wanted_ids
        # Three tokens more: for each, one copy of what was drawn.
        assert waits[5] - waits[2] == Counter({"aten._to_copy": 3}), waits


def check_there() -> None:
    for family in FAMILIES[:2]:
        compare(family, NAME)
    count_waits()


def test_a_device_that_only_looks_like_one_gives_the_cpus_outcomes_and_is_asked_once_a_token() -> (
    None
):
    """Both in one process, which takes longer to begin than they do."""
    on_other_device(check_there)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_gpu_gives_the_cpus_outcomes(family: str) -> None:
    compare(family, "cuda")
