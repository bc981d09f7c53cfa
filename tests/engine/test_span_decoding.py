"""Standard prediction decoded to its span's end, against transformers' greedy generation."""

from dataclasses import replace

import pytest
import torch

from openrpt.config.model import ModelConfig
from openrpt.config.prompt import PromptConfig
from openrpt.config.sections import Config
from openrpt.costs.meters import WorkMeter
from openrpt.data.request import Request
from openrpt.data.spans import is_whole, may_be_span, span_length
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import bind
from openrpt.engine.generation import SPAN_TOKENS
from openrpt.engine.loading import load_model
from openrpt.engine.model import Model
from openrpt.engine.tree.attention import NAME
from tests.helpers.tiny import TEXT
from tests.helpers.tiny_model import tiny_model_folder

PROMPT = PromptConfig(window=64, candidates=2, prediction_budget=3)
SAMPLING = Sampling.of(PROMPT, temperature=0.0)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Sure enough that rounding decides nothing, and says letters, digits and signs."""
    folder = tiny_model_folder(tmp_path_factory.mktemp("m") / "model", initializer_range=0.4)
    return load_model(ModelConfig(path=str(folder), threads=1))


def generated_by_transformers(policy: Model, ids: list[int], delimiters: frozenset[int]) -> list:
    """The tokens of greedy generation, special tokens suppressed."""
    suppressed = policy.masked_ids(delimiters).nonzero()[:, 0].tolist()
    policy.network.set_attn_implementation("sdpa")
    try:
        found = policy.network.generate(
            torch.tensor([ids]),
            max_new_tokens=SPAN_TOKENS,
            do_sample=False,
            suppress_tokens=suppressed,
            eos_token_id=None,
            pad_token_id=0,
        )
    finally:
        policy.network.set_attn_implementation(NAME)
    return found[0, len(ids) :].tolist()


def documents(policy: Model) -> list[list[int]]:
    return [policy.tokenizer.encode(text, add_special_tokens=False)[:40] for text in TEXT]


@pytest.mark.parametrize("kind", ["tree", "flat"])
@pytest.mark.parametrize("rollouts", [0, 1, 2])
def test_spans_are_those_of_greedy_generation(policy: Model, kind: str, rollouts: int) -> None:
    """One document alone, and several side by side; a token that greedy generation would say
    second is a delimiter, so never said."""
    layout, table = policy.layout(PROMPT), policy.table.bytes
    lengths = (3, 11, 14, 19) if rollouts == 2 else (11,)
    firsts = [generated_by_transformers(policy, ids[:11], frozenset()) for ids in documents(policy)]
    liked = next(ids[1] for ids in firsts if not is_whole(table[ids[0]]) and ids[1] != ids[0])
    layout = replace(layout, delimiter_ids=frozenset({liked}))
    requests, expected = [], []
    for ids in documents(policy):
        spans = []
        for length in lengths:
            greedy = generated_by_transformers(policy, ids[:length], layout.delimiter_ids)
            text = b"".join(table[i] for i in greedy)
            span, said = text[: span_length(text)], 1
            while said < SPAN_TOKENS and may_be_span(
                b"".join(table[i] for i in greedy[:said]), span
            ):
                said += 1
            spans.append(span)
            expected.append(tuple(greedy[:said]))
        requests.append(
            Request(
                prefix_ids=tuple(ids),
                prefix_lengths=lengths,
                keys=tuple(tuple(range(rollouts)) for _ in lengths),
                spans=tuple(spans),
            )
        )
    meter = WorkMeter(bind(kind, policy), Config())
    each = list(meter.engine.generate_each(requests, layout, SAMPLING))
    found = [outcome.standard_ids for outcomes in each for outcome in outcomes]
    assert found == expected
    assert len({len(ids) for ids in found}) > 1 and max(map(len, found)) > 2
    # Nothing else changes; where no span is asked for, one token is all.
    unasked = [
        Request(prefix_ids=one.prefix_ids, prefix_lengths=one.prefix_lengths, keys=one.keys)
        for one in requests
    ]
    plain = WorkMeter(bind(kind, policy), Config())
    for others, own in zip(
        plain.engine.generate_each(unasked, layout, SAMPLING), each, strict=True
    ):
        for other, outcome in zip(others, own, strict=True):
            assert other.standard_ids == (other.standard_id,) == outcome.standard_ids[:1]
            assert other.completions == outcome.completions
            assert other.standard_top == outcome.standard_top
    behind = sum(len(ids) - 1 for ids in found)
    more, less = meter.ledger.shared, plain.ledger.shared
    assert more.tokens - less.tokens == more.logits - less.logits == behind
