"""How often the host waits for the device in the decode loop: seen on one that is not the CPU."""

from collections import Counter
from itertools import chain

from openrpt.data.request import Request
from openrpt.engine.decoding import Sampling
from openrpt.engine.tree.engine import TreeEngine
from openrpt.seeding import keys_of
from tests.engine.test_generation import LAYOUT, LENGTHS, PREFIX
from tests.helpers.byte_policy import policy_of
from tests.helpers.other_device import NAME, counted_waits, on_other_device

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


def decode_there() -> None:
    own, there = policy_of(), policy_of()
    there.network.to(NAME)
    for documents in (1, 2):
        waits: dict[int, Counter[str]] = {}
        for tokens in (4, 12):
            with counted_waits() as waits[tokens]:
                found = drawn(there, documents, tokens)
            expected = drawn(own, documents, tokens)
            for one, wanted in zip(chain(*found), chain(*expected), strict=True):
                ids, wanted_ids = (
                    [c.token_ids for c in outcome.completions] for outcome in (one, wanted)
                )
                assert ids == wanted_ids
        # Eight tokens more: for each, one copy of what was drawn.
        assert waits[12] - waits[4] == Counter({"aten._to_copy": 8}), waits


def test_the_host_waits_once_a_token() -> None:
    on_other_device(decode_there)
