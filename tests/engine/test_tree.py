"""The tree equals flat sequences run one at a time: log-probabilities and gradients."""

from functools import cache

import pytest
import torch

from openrpt.engine.branches import Branch, Passage
from openrpt.engine.check import require_tree_support
from openrpt.engine.logprobs import selected_logprobs
from openrpt.engine.tree.attention import NAME
from openrpt.engine.tree.gradients import accumulate_gradients
from openrpt.engine.tree.levels import branch_states
from tests.helpers.families import FAMILIES, tiny_policy

PREFIX = [(11 * i + 5) % 97 for i in range(24)]
BRANCHES = [
    Branch(prefix_length=3, tail_ids=(90, 91), completions=((4, 8, 15), (16, 23, 42, 7))),
    Branch(prefix_length=17, tail_ids=(90, 91, 92), completions=((1,), (2, 3), (5, 5, 5, 5, 5))),
    Branch(prefix_length=24, tail_ids=(90,), completions=((9, 9), (10, 11, 12))),
]
WITHOUT_TAILS = [
    Branch(prefix_length=b.prefix_length, tail_ids=(), completions=b.completions) for b in BRANCHES
]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
GRADIENT_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}


def plain_logits(policy, ids):
    """transformers' own forward: SDPA, which keeps float64; eager where only that has a soft cap
    (its softmax goes through float32, unless told not to)."""
    capped = policy.name == "gemma2"
    policy.network.set_attn_implementation("eager" if capped else "sdpa")
    softmax = torch.nn.functional.softmax
    if capped:
        torch.nn.functional.softmax = lambda x, dim=-1, dtype=None: softmax(x, dim=dim)
    try:
        return policy.network(torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        torch.nn.functional.softmax = softmax
        policy.network.set_attn_implementation(NAME)


def flat_logits(policy, branch, completion):
    """The logits that predict the completion, from the whole sequence run alone."""
    ids = PREFIX[: branch.prefix_length] + list(branch.tail_ids) + list(completion)
    logits = plain_logits(policy, ids)
    start = branch.prefix_length + len(branch.tail_ids) - 1
    return logits[start : start + len(completion)]


def flat_loss(policy, branches):
    """A weighted sum of completion log-probabilities, tail entropies and prefix losses."""
    total = torch.zeros((), dtype=policy.network.dtype)
    for b, branch in enumerate(branches):
        for c, completion in enumerate(branch.completions):
            logp = flat_logits(policy, branch, completion).log_softmax(-1)
            total = total + (b + 1) * (c - 0.7) * logp[range(len(completion)), completion].sum()
        first = flat_logits(policy, branch, branch.completions[0])[0].log_softmax(-1)
        total = total + 0.3 * (first.exp() * first).sum()
    logits = plain_logits(policy, PREFIX).log_softmax(-1)
    return total - 0.5 * logits[range(len(PREFIX) - 1), PREFIX[1:]].sum()


def tree_gradients(policy, branches, microbatch_tokens):
    def completion_loss(rows, hidden):
        total = hidden.sum() * 0
        for (b, c), states in zip(rows, hidden, strict=True):
            ids = torch.tensor(branches[b].completions[c])
            logp, _ = selected_logprobs(states[: len(ids)], policy.head, ids)
            total = total + (b + 1) * (c - 0.7) * logp.sum()
            if c == 0:  # its first state is the tail's last
                _, entropy = selected_logprobs(states[:1], policy.head, torch.zeros(1).long())
                total = total - 0.3 * entropy.sum()
        return total

    def prefix_loss(states):
        logp, _ = selected_logprobs(states[:-1], policy.head, torch.tensor(PREFIX[1:]))
        return -0.5 * logp.sum()

    policy.network.zero_grad()
    passage = Passage(
        prefix_ids=PREFIX,
        branches=branches,
        prefix_loss=prefix_loss,
        completion_loss=completion_loss,
    )
    accumulate_gradients(policy, [passage], microbatch_tokens=microbatch_tokens)
    return {n: p.grad.clone() for n, p in policy.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("branches", [BRANCHES, WITHOUT_TAILS], ids=["tails", "no tails"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_equal_flat_sequences(family, dtype, branches):
    policy = tiny_policy(family, dtype)
    with torch.no_grad():
        found = branch_states(policy, PREFIX, branches, microbatch_tokens=7)
        for b, branch in enumerate(branches):
            for c, completion in enumerate(branch.completions):
                expected = flat_logits(policy, branch, completion).double().log_softmax(-1)
                logits = policy.head.logits(found[b][c]).double().log_softmax(-1)
                assert (logits - expected).abs().max() <= TOLERANCE[dtype]


@cache
def flat_gradients(family, dtype):
    policy = tiny_policy(family, dtype)
    flat_loss(policy, BRANCHES).backward()
    return {n: p.grad for n, p in policy.network.named_parameters()}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["stored", "recomputed"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_flat_sequences(family, dtype, checkpointing):
    expected = flat_gradients(family, dtype)
    policy = tiny_policy(family, dtype)
    if checkpointing:
        policy.network.activation_checkpointing_enable({"use_reentrant": False})
        policy.network.train()
    for microbatch in (1, 8, 100):
        found = tree_gradients(policy, BRANCHES, microbatch)
        for name, gradient in expected.items():
            scale = gradient.abs().max().clamp_min(1e-3)
            error = (found[name] - gradient).abs().max() / scale
            assert error <= GRADIENT_TOLERANCE[dtype], (name, microbatch)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_gradients_without_tails(family):
    policy = tiny_policy(family)
    flat_loss(policy, WITHOUT_TAILS).backward()
    expected = {n: p.grad.clone() for n, p in policy.network.named_parameters()}
    found = tree_gradients(policy, WITHOUT_TAILS, 7)
    for name, gradient in expected.items():
        scale = gradient.abs().max().clamp_min(1e-3)
        assert (found[name] - gradient).abs().max() / scale <= 1e-8, name


@pytest.mark.parametrize("family", FAMILIES)
def test_self_check_accepts_the_family(family):
    require_tree_support(tiny_policy(family, torch.float32))
