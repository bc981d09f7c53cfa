"""Decoding: the tree against transformers' `generate` and against flat sequences; sampling."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from openrpt.data.prompts import Layout
from openrpt.data.request import Request
from openrpt.engine.branches import Branch
from openrpt.engine.decoding import Sampling, split_rows
from openrpt.engine.engine import Sampler
from openrpt.engine.flat import FlatEngine
from openrpt.engine.generation import Generated, side_by_side
from openrpt.engine.logprobs import selected_logprobs
from openrpt.engine.model import Model
from openrpt.engine.sampling import CDF_BLOCK, NEAR_BOUNDARY, sample, uniforms
from openrpt.engine.tree.attention import NAME
from openrpt.engine.tree.engine import TreeEngine
from openrpt.engine.tree.levels import branch_states
from openrpt.seeding import generator, key_of
from openrpt.types import Completion
from tests.helpers.byte_policy import policy_of

FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "gemma3", "gpt2", "gpt_neox"]
PREFIX = tuple((11 * i + 5) % 97 for i in range(24))
LENGTHS = (3, 11, 12, 24)
LAYOUT = Layout(
    head_ids=(),
    tail_ids=(90, 91),
    plain_head_ids=(),
    separator_ids=(92,),
    close_ids=(93, 94, 95, 96),
    answer_start_ids=(95, 96),
    answer_end_ids=(89,),
    thought_end_ids=(93, 94),
    thought_end=b"</think>",
    literal={},
)
NO_TAIL = replace(LAYOUT, tail_ids=())


def request_of(rollouts: int = 1, lengths: tuple[int, ...] = LENGTHS) -> Request:
    keys = tuple(tuple(key_of(7, n, r) for r in range(rollouts)) for n in lengths)
    return Request(prefix_ids=PREFIX, prefix_lengths=lengths, keys=keys)


def sampling_of(temperature: float = 0.0, think: int = 0, predict: int = 5, **more) -> Sampling:
    values = {"candidates": 0} | more
    return Sampling(
        temperature=temperature, think_budget=think, prediction_budget=predict, **values
    )


def run(policy: Model, sampling: Sampling, layout: Layout = LAYOUT, request=None, flat=False):
    request = request or request_of()
    if not flat:
        return alone(TreeEngine(model=policy), request, layout, sampling)
    policy.attention = "sdpa"
    try:
        return alone(FlatEngine(model=policy), request, layout, sampling)
    finally:
        policy.attention = NAME


def alone(engine: Sampler, request, layout: Layout, sampling: Sampling) -> list[Generated]:
    (found,) = engine.generate_each([request], layout, sampling)
    return found


@torch.no_grad()
def greedy(policy: Model, ids: list[int], count: int) -> list[int]:
    """transformers' own generate: what it adds to `ids`, a stop token included."""
    policy.network.set_attn_implementation("sdpa")
    tokens = torch.tensor([ids])
    stops = sorted(policy.stop_ids)
    out = policy.network.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=stops,
        pad_token_id=0,
    )
    policy.network.set_attn_implementation(NAME)
    return out[0, len(ids) :].tolist()


def in_pieces(
    policy: Model, prompt: list[int], sampling: Sampling, layout: Layout
) -> tuple[list[int], list[bool], bool]:
    """ids, loss mask and whether it stopped, by `generate`: the thought, then the prediction."""
    ids: list[int] = []
    forced: set[int] = set()
    room = sampling.prediction_budget
    if sampling.think_budget:
        thought = greedy(policy, prompt, sampling.think_budget)
        end, closed = list(layout.thought_end_ids), False
        for n in range(len(end), len(thought) + 1):
            if thought[n - len(end) : n] == end:
                thought, closed = thought[:n], True
                break
        ids += thought
        if thought[-1] in policy.stop_ids:
            return ids, [True] * len(ids), True
        if closed:
            room += len(layout.answer_start_ids)
        else:
            forced = set(range(len(ids), len(ids) + len(layout.close_ids)))
            ids += layout.close_ids
    ids += greedy(policy, prompt + ids, room)
    return ids, [n not in forced for n in range(len(ids))], ids[-1] in policy.stop_ids


def prompts_of(outcomes: list[Generated], layout: Layout, sampling: Sampling):
    """Each position's prompt and forced opening, put together here."""
    for length, outcome in zip(LENGTHS, outcomes, strict=True):
        opening: list[int] = []
        for c in outcome.candidate_ids:
            opening += [*(layout.separator_ids if opening else ()), c]
        if sampling.think_budget == 0:
            opening += layout.close_ids
        yield [*PREFIX[:length], *layout.tail_ids], opening


def assert_greedy(policy: Model, sampling: Sampling, layout: Layout) -> list[Completion]:
    outcomes = run(policy, sampling, layout)
    found = []
    for (prompt, opening), outcome in zip(
        prompts_of(outcomes, layout, sampling), outcomes, strict=True
    ):
        (completion,) = outcome.completions
        ids, mask, stopped = in_pieces(policy, prompt + opening, sampling, layout)
        assert completion.token_ids == (*opening, *ids)
        assert completion.loss_mask == (*[False] * len(opening), *mask)
        assert completion.finish_reason == ("stop" if stopped else "length")
        found.append(completion)
    return found


@pytest.mark.parametrize("think", [0, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_generate(family, think):
    policy = policy_of(family)
    sampling = sampling_of(think=think, candidates=2)
    plain = assert_greedy(policy, sampling, LAYOUT)
    assert all(c.finish_reason == "length" for c in plain)
    # Stop at a token that one of them writes in its prediction, and at one inside a thought.
    for at in (-3, -5 - len(LAYOUT.close_ids) - 1) if think else (-3,):
        policy.network.generation_config.eos_token_id = plain[1].token_ids[at]
        stopped = assert_greedy(policy, sampling, LAYOUT)
        assert stopped[1].finish_reason == "stop"
        assert len(stopped[1].token_ids) < len(plain[1].token_ids)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_a_policy_that_closes_its_thought_itself(family):
    """It then writes the box, too, and gets the tokens for it; others are closed by force."""
    policy, sampling = policy_of(family), sampling_of(think=6, predict=3, candidates=2)
    for layout in (LAYOUT, NO_TAIL):
        plain = assert_greedy(policy, sampling, layout)
        opening = 3
        own = plain[0].token_ids[opening : opening + 6]
        for start, width in ((0, 1), (1, 2), (4, 2)):
            closing = replace(layout, thought_end_ids=own[start : start + width])
            first = assert_greedy(policy, sampling, closing)[0]
            assert all(first.loss_mask[opening:])
            assert len(first.token_ids) <= opening + start + width + 3 + 2


@pytest.mark.parametrize("think", [0, 4])
def test_given_openings_take_the_candidates_place(think):
    """Openings of several lengths, also empty, and several at one position; against `generate`."""
    policy, sampling = policy_of(), sampling_of(think=think, candidates=3)
    lengths, openings = (11, 11, 3, 24), ((5, 6, 7), (), (8,), (9, 10))
    request = replace(request_of(lengths=lengths), openings=openings)
    flat = run(policy, sampling, request=request, flat=True)
    for i, outcome in enumerate(run(policy, sampling, request=request)):
        (completion,) = outcome.completions
        forced = [*openings[i], *([] if think else LAYOUT.close_ids)]
        prompt = [*PREFIX[: lengths[i]], *LAYOUT.tail_ids, *forced]
        ids, _, _ = in_pieces(policy, prompt, sampling, LAYOUT)
        assert completion.token_ids == (*forced, *ids)
        assert not any(completion.loss_mask[: len(forced)])
        assert flat[i].completions[0].token_ids == completion.token_ids


def test_greedy_without_a_tail_and_seed():
    """The prefix's own last state predicts the first token."""
    layout = replace(NO_TAIL, close_ids=())
    assert_greedy(policy_of(), sampling_of(think=0, predict=6), layout)


def test_all_rows_close_by_force_while_others_have_finished():
    """Rows inside the forced close, and no other row left that samples."""
    policy, sampling = policy_of(), sampling_of(think=2, predict=2)
    first = run(policy, sampling)[0].completions[0].token_ids
    layout = replace(LAYOUT, thought_end_ids=first[:1], answer_start_ids=(), close_ids=(93,) * 9)
    found = assert_greedy(policy, sampling, layout)
    assert {len(completion.token_ids) for completion in found} == {3, 13}
    cold = run(
        policy, replace(sampling, temperature=1e-4), layout
    )  # sampled, but as good as greedy
    assert [outcome.completions[0].token_ids for outcome in cold] == [c.token_ids for c in found]


def trainer_logprobs(policy: Model, outcomes, layout: Layout, temperature: float):
    """As the update computes them: on the tree, from the completions' ids."""
    branches = [
        Branch(
            prefix_length=length,
            tail_ids=layout.tail_ids,
            completions=tuple(c.token_ids for c in outcome.completions),
        )
        for length, outcome in zip(LENGTHS, outcomes, strict=True)
    ]
    for branch, states in zip(branches, branch_states(policy, PREFIX, branches), strict=True):
        for ids, hidden in zip(branch.completions, states, strict=True):
            yield selected_logprobs(
                hidden, policy.head, torch.tensor(ids), temperature=temperature
            )[0].tolist()


@pytest.mark.parametrize("think", [0, 3])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_tree_equals_flat(family, temperature, think):
    policy = policy_of(family, stop=120)
    sampling = sampling_of(temperature, think, 3, candidates=2)
    request = request_of(rollouts=2)
    tree = run(policy, sampling, request=request)
    flat = run(policy, sampling, request=request, flat=True)
    for ours, theirs in zip(tree, flat, strict=True):
        assert ours.standard_id == theirs.standard_id
        assert ours.candidate_ids == theirs.candidate_ids
        assert ours.candidate_logprobs == pytest.approx(theirs.candidate_logprobs, abs=1e-9)
        assert ours.near_boundary == theirs.near_boundary
        for a, b in zip(ours.completions, theirs.completions, strict=True):
            assert (a.token_ids, a.loss_mask) == (b.token_ids, b.loss_mask)
            assert a.finish_reason == b.finish_reason
            assert a.sampler_logprobs == pytest.approx(b.sampler_logprobs, abs=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("layout", [LAYOUT, NO_TAIL], ids=["tail", "no tail"])
@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_sampler_logprobs_are_the_trainers(temperature, layout, dtype, tolerance):
    """So the ratio before the first update is 1 to rounding; forced tokens have 0."""
    policy = policy_of(dtype=dtype)
    sampling = sampling_of(temperature, 3, 3, candidates=2)
    outcomes = run(policy, sampling, layout, request=request_of(rollouts=3))
    expected = trainer_logprobs(policy, outcomes, layout, temperature)
    for outcome in outcomes:
        for completion in outcome.completions:
            trained = zip(
                completion.sampler_logprobs, next(expected), completion.loss_mask, strict=True
            )
            for sampler, trainer, mask in trained:
                assert sampler == pytest.approx(trainer, abs=tolerance) if mask else sampler == 0
            assert completion.num_trained_tokens >= 6 or completion.finish_reason == "stop"
            assert completion.loss_mask[:3] == (False,) * 3  # c1 | c2


def test_draws_do_not_depend_on_what_else_is_in_the_batch():
    """Bit-identical over repetition; identical ids in any order, subset and chunk (float64)."""
    policy = policy_of(stop=120)
    sampling = sampling_of(1.0, 4, 4, candidates=1)
    request = request_of(rollouts=3)
    whole = run(policy, sampling, request=request)
    assert run(policy, sampling, request=request) == whole
    texts = {c.token_ids for outcome in whole for c in outcome.completions}
    assert len(texts) > 8  # they do differ among themselves

    def same(a: Generated, b: Generated) -> None:
        assert a.candidate_ids == b.candidate_ids
        for one, other in zip(a.completions, b.completions, strict=True):
            assert (one.token_ids, one.loss_mask) == (other.token_ids, other.loss_mask)
            assert one.sampler_logprobs == pytest.approx(other.sampler_logprobs, abs=1e-12)

    for rollouts in (1, 2, 5, 7):
        chunked = replace(sampling, generation_rollouts=rollouts)
        for a, b in zip(run(policy, chunked, request=request), whole, strict=True):
            same(a, b)
    order = [2, 0, 3, 1]
    shuffled = replace(
        request,
        prefix_lengths=tuple(LENGTHS[i] for i in order),
        keys=tuple(request.keys[i] for i in order),
    )
    for i, outcome in zip(order, run(policy, sampling, request=shuffled), strict=True):
        same(outcome, whole[i])
    for i in range(len(LENGTHS)):
        alone = replace(request, prefix_lengths=(LENGTHS[i],), keys=(request.keys[i],))
        same(run(policy, sampling, request=alone)[0], whole[i])
    reversed_keys = replace(request, keys=tuple(keys[::-1] for keys in request.keys))
    for outcome, expected in zip(run(policy, sampling, request=reversed_keys), whole, strict=True):
        assert [c.token_ids for c in outcome.completions] == [
            c.token_ids for c in expected.completions[::-1]
        ]


def test_candidates_come_from_the_prefix_alone_and_never_are_special():
    policy = policy_of()
    special = sorted(policy.table.special_ids)
    outcomes = run(policy, sampling_of(candidates=5, predict=1))
    without = run(policy, sampling_of(predict=1))
    policy.network.set_attn_implementation("sdpa")
    for length, outcome in zip(LENGTHS, outcomes, strict=True):
        with torch.no_grad():
            logits = policy.network(torch.tensor([PREFIX[:length]])).logits[0, -1]
        logp = logits.log_softmax(-1)
        logits[special] = -torch.inf
        logits[len(policy.tokenizer) :] = -torch.inf
        expected = logits.topk(5).indices
        assert outcome.candidate_ids == tuple(expected.tolist())
        assert outcome.standard_id == expected[0]
        assert outcome.candidate_logprobs == pytest.approx(logp[expected].tolist(), abs=1e-9)
        assert [token for token, _ in outcome.standard_top] == expected.tolist()
        assert [logprob for _, logprob in outcome.standard_top] == list(outcome.candidate_logprobs)
    for unseeded, outcome in zip(without, outcomes, strict=True):
        assert unseeded.candidate_ids == ()
        assert unseeded.standard_top == outcome.standard_top


def test_candidates_of_a_frozen_start_model():
    policy, start = policy_of(), policy_of()
    with torch.no_grad():
        start.head.weight.mul_(-1)
    sampling = sampling_of(candidates=2)
    theirs_alone = TreeEngine(model=start)
    own = alone(TreeEngine(model=policy), request_of(), LAYOUT, sampling)
    seeded = TreeEngine(model=policy, start=theirs_alone)
    mixed = alone(seeded, request_of(), LAYOUT, sampling)
    theirs = alone(theirs_alone, request_of(), LAYOUT, sampling)
    for ours, both, other in zip(own, mixed, theirs, strict=True):
        assert both.candidate_ids == other.candidate_ids != ours.candidate_ids
        assert both.standard_id == ours.standard_id
        assert both.standard_top == ours.standard_top
        assert both.completions[0].token_ids[:3] == other.completions[0].token_ids[:3]


# ---- sampling -----------------------------------------------------------------------------------


def splitmix64(seed: int, index: int) -> int:
    """Output number `index` of SplitMix64 (Steele, Lea and Flood 2014), in Python's integers."""
    mask = 2**64 - 1
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_uniforms_are_splitmix64():
    assert splitmix64(1234567, 0) == 6457827717110365317  # the published test vector
    assert splitmix64(1234567, 1) == 3203168211198807973
    keys = [0, 1, -1, 1234567, key_of(0, "a"), 2**63 - 1, -(2**63)]
    for token in (0, 1, 2, 77, 4095):
        found = uniforms(torch.tensor(keys), token)
        expected = [(splitmix64(key % 2**64, token) >> 11) * 2.0**-53 for key in keys]
        assert found.tolist() == expected
        assert found.dtype == torch.float64


def test_keys_tell_their_parts_apart():
    parts = [(1, 23), (12, 3), ("1", 23), (1, "23"), (1, 2, 3), (123,), ("1", "2", "3")]
    assert len({key_of(*p) for p in parts}) == len(parts)
    assert key_of(0, "step", 3) == key_of(0, "step", 3)
    assert all(-(2**63) <= key_of(i) < 2**63 for i in range(100))
    assert generator(1, "a").integers(1 << 60) == generator(1, "a").integers(1 << 60)
    assert generator(1, "a").integers(1 << 60) != generator(1, "b").integers(1 << 60)


def draw(logits, draws, temperature):
    """One draw a row."""
    return sample(logits, draws, temperature, torch.arange(len(draws)))


def test_rows_split_where_rollouts_draw_different_tokens():
    row_of, ids = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([7, 5, 7, 4, 4, 9])
    parents, new_ids, new_rows = split_rows(row_of, ids)
    assert parents.tolist() == [0, 1, 2, 0]  # first children in place, the split one behind
    assert new_ids.tolist() == [5, 4, 9, 7]
    assert new_rows.tolist() == [3, 0, 3, 1, 1, 2]
    parents, new_ids, new_rows = split_rows(torch.tensor([1, 2, 2, 4, 5]), torch.tensor(5 * [4]))
    assert parents.tolist() == [4, 1, 2, 5]  # there are four places: those beyond take others
    assert new_rows.tolist() == [1, 2, 2, 0, 3]
    parents, new_ids, new_rows = split_rows(torch.tensor([2, 2]), torch.tensor([1, 1]))
    assert (parents.tolist(), new_ids.tolist(), new_rows.tolist()) == ([2], [1], [0, 0])


@pytest.mark.parametrize("vocabulary", [1, 5, 255, 256, 257, 700, 1024])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_sample_is_the_inverse_cdf(vocabulary, temperature):
    torch.manual_seed(vocabulary)
    logits = 3 * torch.randn(200, vocabulary, dtype=torch.float64)
    draws = torch.rand(200, dtype=torch.float64)
    draws[:3] = torch.tensor([0.0, 1 - 2.0**-53, 0.5])
    found = draw(logits, draws, temperature)
    p = np.exp(logits.numpy() / temperature)
    p /= p.sum(1, keepdims=True)
    cdf = p.cumsum(1)
    for row in range(200):
        target = draws[row].item() * cdf[row, -1]
        expected = min(int(np.searchsorted(cdf[row], target, side="right")), vocabulary - 1)
        gap = np.abs(np.append(0, cdf[row]) - target).min()
        if gap > 1e-12:
            assert found.ids[row] == expected
        if abs(gap - NEAR_BOUNDARY) > 1e-9:
            assert found.near[row].item() == (gap < NEAR_BOUNDARY)
        chosen = int(found.ids[row])
        assert found.logprobs[row].item() == pytest.approx(np.log(p[row, chosen]), abs=1e-9)


def test_tokens_without_probability_are_never_drawn():
    logits = torch.full((3, 600), -torch.inf, dtype=torch.float64)
    logits[:, [3, 255, 256, 511]] = 0.0
    draws = torch.tensor([0.0, 0.5, 1 - 2.0**-53], dtype=torch.float64)
    assert draw(logits, draws, 1.0).ids.tolist() == [3, 256, 511]


def test_near_boundary_draws_are_counted():
    logits = torch.zeros(4, CDF_BLOCK + 44, dtype=torch.float64)  # 300 equal parts
    draws = torch.tensor([10, 10, 256, 10.5], dtype=torch.float64) / 300
    draws += torch.tensor([9e-6, 2e-5, -5e-6, 0.0], dtype=torch.float64)
    found = draw(logits, draws, 1.0)
    assert found.near.tolist() == [True, False, True, False]
    assert found.ids.tolist() == [10, 10, 255, 10]
    assert not draw(logits, draws, 0.0).near.any()


def test_sampling_an_empty_batch():
    found = draw(torch.zeros(3, 5)[:0], torch.zeros(0, dtype=torch.float64), 0.0)
    assert found.ids.shape == (0,)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_distribution_of_draws_is_right(temperature):
    """Chi-square over keyed uniforms, as rollouts draw them: one key a rollout, one token each."""
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, 0.5, -3.0], dtype=torch.float64)
    rollouts, tokens = 4000, 5
    keys = torch.tensor([key_of("chi", r) for r in range(rollouts)])
    counts = torch.zeros(6)
    for token in range(tokens):
        shared = torch.zeros(rollouts, dtype=torch.long)  # all draw from one row of logits
        found = sample(logits[None], uniforms(keys, token), temperature, shared)
        counts += torch.bincount(found.ids, minlength=6)
    expected = (logits / temperature).softmax(-1) * rollouts * tokens
    chi_square = ((counts - expected).square() / expected).sum()
    assert chi_square < 20.5  # 99.9 % of 5 degrees of freedom; the draws are fixed by their keys


def test_uniforms_of_one_key_and_of_neighbours_are_independent():
    keys = torch.tensor([key_of("pair", r) for r in range(20_000)])
    a, b = uniforms(keys, 0), uniforms(keys, 1)
    consecutive = uniforms(torch.arange(20_000), 0)
    for values in (a, b, consecutive):
        assert abs(values.mean() - 0.5) < 0.01
        assert values.min() >= 0 and values.max() < 1
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.03
    assert abs(torch.corrcoef(torch.stack([consecutive[:-1], consecutive[1:]]))[0, 1]) < 0.03


# ---- documents side by side


def requests_of(*shapes: tuple[int, tuple[int, ...], int]) -> list[Request]:
    """Documents of their own: (first token, lengths of the prefixes, rollouts a position)."""
    return [
        Request(
            prefix_ids=tuple((7 * i + first) % 97 for i in range(max(lengths))),
            prefix_lengths=lengths,
            keys=tuple(tuple(key_of(first, n, r) for r in range(rollouts)) for n in lengths),
        )
        for first, lengths, rollouts in shapes
    ]


DOCUMENTS = requests_of((1, (9,), 1), (2, (23,), 1), (3, (5, 17), 2), (4, (40,), 12), (5, (3,), 3))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("layout", "candidates"), [(LAYOUT, 0), (NO_TAIL, 0), (LAYOUT, 2)])
def test_documents_side_by_side_say_what_each_says_alone(family, layout, candidates):
    policy = policy_of(family, stop=17)
    sampling = sampling_of(1.0, think=4, candidates=candidates)
    tree = TreeEngine(model=policy)
    each = [alone(tree, request, layout, sampling) for request in DOCUMENTS]
    together = list(tree.generate_each(DOCUMENTS, layout, sampling))
    assert len(together) == len(each)
    for one, other in zip(each, together, strict=True):
        for at, there in zip(one, other, strict=True):
            assert_same_outcome(at, there)


def assert_same_outcome(one: Generated, other: Generated) -> None:
    assert other.standard_id == one.standard_id
    assert other.candidate_ids == one.candidate_ids
    for a, b in zip(one.completions, other.completions, strict=True):
        assert b.token_ids == a.token_ids
        assert b.loss_mask == a.loss_mask
        assert b.finish_reason == a.finish_reason
        assert b.sampler_logprobs == pytest.approx(a.sampler_logprobs, abs=1e-9)


def test_documents_with_few_rollouts_and_with_many_run_apart():
    batches = side_by_side(DOCUMENTS, LAYOUT, sampling_of())
    assert [[DOCUMENTS.index(request) for request in batch] for batch in batches] == [
        [0, 1, 2],
        [3],
        [4],
    ]


SHARING = requests_of((1, (30, 7, 64), 4), (2, (200,), 9), (3, (3, 24), 8), (4, (19, 41), 6))


@pytest.mark.parametrize(
    ("family", "layout", "think", "candidates"),
    [
        ("llama", LAYOUT, 5, 2),
        ("llama", NO_TAIL, 0, 0),  # nothing hangs off the prefix but what is drawn
        ("gemma3", LAYOUT, 5, 0),  # layers that see a sliding window
        ("gpt2", LAYOUT, 0, 2),
    ],
)
def test_documents_that_share_their_prefixes_run_together(family, layout, think, candidates):
    """Of very different lengths; rollouts end early, and a whole document's before the others'."""
    policy, passes = policy_of(family), []
    sampling = sampling_of(1.0, think, 6, candidates=candidates)
    requests = [*SHARING]
    if candidates:  # forced beginnings of other lengths, one of them empty
        requests[2] = replace(requests[2], openings=((), (5, 6, 7, 8, 9, 10, 11)))
    tree = TreeEngine(model=policy)
    said = alone(tree, requests[1], layout, sampling)[0].completions[0].token_ids
    policy.network.generation_config.eos_token_id = said[-3]
    each = [alone(tree, request, layout, sampling) for request in requests]
    assert [len(batch) for batch in side_by_side(requests, layout, sampling)] == [4]
    policy.backbone.register_forward_hook(lambda module, inputs, output: passes.append(1))
    together = list(tree.generate_each(requests, layout, sampling))
    longest = max(len(c.token_ids) for one in together for at in one for c in at.completions)
    assert len(passes) <= 4 + 1 + longest
    ends = {c.finish_reason for one in together for at in one for c in at.completions}
    assert ends == {"stop", "length"}
    for one, other in zip(each, together, strict=True):
        for at, there in zip(one, other, strict=True):
            assert_same_outcome(at, there)
    flat = FlatEngine(model=policy)
    policy.attention = "sdpa"
    for at, there in zip(alone(flat, requests[2], layout, sampling), together[2], strict=True):
        assert_same_outcome(at, there)


def test_documents_together_flip_no_draw_but_near_a_boundary():
    """In float32, whose last bit is another's in another pass."""
    policy = policy_of(stop=17, dtype=torch.float32)
    sampling = sampling_of(1.0, 5, 6)
    tree = TreeEngine(model=policy)
    together = tree.generate_each(SHARING, LAYOUT, sampling)
    for request, other in zip(SHARING, together, strict=True):
        for at, there in zip(alone(tree, request, LAYOUT, sampling), other, strict=True):
            flips = [
                a.token_ids != b.token_ids
                for a, b in zip(at.completions, there.completions, strict=True)
            ]
            assert sum(flips) <= at.near_boundary


def test_as_many_documents_share_a_pass_as_have_room():
    many = requests_of(*[(i, (50,), 16) for i in range(6)])
    wide = replace(sampling_of(), generation_rollouts=40)
    assert [len(batch) for batch in side_by_side(many, LAYOUT, wide)] == [2, 2, 2]
    long = sampling_of(think=1000)
    longer = requests_of(*[(i, (1500,), 16) for i in range(3)])
    assert [len(b) for b in side_by_side(longer, LAYOUT, long)] == [1, 1, 1]


def test_positions_without_rollouts_take_room_too():
    """Standard prediction alone once ran a whole split's documents in one pass: 20 GB."""
    plain = [
        replace(request, keys=((),) * len(request.keys))
        for request in requests_of(*[(i, tuple(range(40, 48)), 1) for i in range(12)])
    ]
    batches = [len(batch) for batch in side_by_side(plain, LAYOUT, sampling_of())]
    assert batches == [4, 4, 4]  # 32 rows


def test_short_documents_with_many_rollouts_run_together():
    """Those whose rollouts may become as long as their prefix, tail and close included."""
    sampling = replace(sampling_of(), generation_rollouts=40)
    new_tokens = len(LAYOUT.tail_ids) + sampling.budget.new(LAYOUT)
    short = requests_of(*[(i, (new_tokens,), 16) for i in range(3)])
    longer = requests_of((7, (new_tokens + 1,), 16), (8, (2, new_tokens), 16))
    batches = side_by_side([*short, *longer], LAYOUT, sampling)
    assert [len(batch) for batch in batches] == [2, 2, 1]  # with a longer one prefixes are shared
    policy = policy_of(stop=17)
    tree = TreeEngine(model=policy)
    drawn = replace(sampling, temperature=1.0, think_budget=3)
    apart = [alone(tree, request, LAYOUT, drawn) for request in short]
    together = tree.generate_each(short, LAYOUT, drawn)
    for (one,), (other,) in zip(apart, together, strict=True):
        assert_same_outcome(one, other)


def test_as_many_documents_run_together_as_their_keys_have_room():
    long = requests_of(*[(i, (4000,), 1) for i in range(6)])
    short = requests_of(*[(i, (10,), 1) for i in range(40)])
    sizes = [len(batch) for batch in side_by_side([*long, *short], LAYOUT, sampling_of())]
    assert sizes == [4, 4, 38]
    assert list(side_by_side([], LAYOUT, sampling_of())) == []


def test_a_token_of_many_documents_is_one_pass():
    policy, passes = policy_of(), []
    policy.backbone.register_forward_hook(lambda module, inputs, output: passes.append(1))
    documents = requests_of(*[(i, (8 + i,), 1) for i in range(10)])
    found = list(TreeEngine(model=policy).generate_each(documents, LAYOUT, sampling_of()))
    assert {len(c.token_ids) for one in found for at in one for c in at.completions} == {9}
    assert len(passes) == 1 + 1 + 4  # prefixes, tails with the forced close, then four of five
