"""The chunked head against plain autograd in float64: values and gradients."""

import pytest
import torch

from openrpt.engine.head import Head, in_cache
from openrpt.engine.logprobs import selected_logprobs
from openrpt.engine.sampling import sample
from openrpt.engine.standard import standard_prediction, top_k
from openrpt.engine.text_loss import TextTerms, distillation_kl, target_cross_entropy, text_loss

N, D, V = 7, 5, 11
OPTIONS = pytest.mark.parametrize(
    ("bias", "softcap"), [(False, None), (True, None), (False, 3.0), (True, 3.0)]
)
CHUNKS = pytest.mark.parametrize("rows", [1, 3, 100])


@pytest.fixture(autouse=True)
def seeded(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr("openrpt.engine.head._HEAD_COLUMNS", 4)  # so that the last block is shorter
    monkeypatch.setattr("openrpt.engine.head._CACHED_ROWS", 2)
    monkeypatch.setattr("openrpt.engine.head._CACHED_LOGITS", 2 * V)
    monkeypatch.setattr("openrpt.engine.standard._TOP_COLUMNS", 2)


def parts(bias: bool, softcap: float | None) -> tuple[torch.Tensor, Head, list[torch.Tensor]]:
    """Hidden states, a head, and the leaves whose gradients are compared."""
    hidden = torch.randn(N, D, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(V, D, dtype=torch.float64, requires_grad=True)
    shift = torch.randn(V, dtype=torch.float64, requires_grad=True) if bias else None
    leaves = [hidden, weight] if shift is None else [hidden, weight, shift]
    return hidden, Head(weight=weight, bias=shift, softcap=softcap), leaves


def plain_logits(hidden: torch.Tensor, head: Head) -> torch.Tensor:
    logits = hidden @ head.weight.T
    if head.bias is not None:
        logits = logits + head.bias
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def use_chunks(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr("openrpt.engine.head.CHUNK_ELEMENTS", rows * V)


def assert_same_gradients(found: torch.Tensor, expected: torch.Tensor, leaves: list) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    pairs = zip(
        torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True
    )
    for got, wanted in pairs:
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("vocabulary", [11, 260])
def test_blocks_of_rows_change_no_bit(vocabulary, monkeypatch):
    hidden = torch.randn(40, D, requires_grad=True)
    weight = torch.randn(vocabulary, D, requires_grad=True)
    head, ids = Head(weight=weight, bias=None, softcap=None), torch.randint(vocabulary, (40,))
    draws = torch.rand(40, dtype=torch.float64)

    def found() -> list[torch.Tensor]:
        logps, entropies = selected_logprobs(hidden, head, ids, temperature=0.7)
        gradients = torch.autograd.grad(logps.sum() + entropies.sum(), [hidden, weight])
        with torch.no_grad():
            said = standard_prediction(hidden, head, torch.zeros(vocabulary, dtype=torch.bool), k=3)
            drawn = sample(head.logits(hidden), draws, 0.7, torch.arange(40))
        return [logps, entropies, *gradients, said.candidate_logprobs, drawn.ids, drawn.logprobs]

    blocks = len(in_cache(hidden, vocabulary=vocabulary))
    by_two = found()
    monkeypatch.setattr("openrpt.engine.head._CACHED_LOGITS", 40 * vocabulary)
    assert len(in_cache(hidden, vocabulary=vocabulary)) == 1 < blocks
    assert all(torch.equal(a, b) for a, b in zip(by_two, found(), strict=True))


@pytest.mark.parametrize("vocabulary", [11, 12, 41])
@pytest.mark.parametrize("k", [1, 3, 5, 11])
def test_top_k_is_topk(vocabulary, k):
    logits = torch.randn(50, vocabulary)
    logits[:, ::4] = float("-inf")  # as masked ids have it
    logits[:, -1] += 2.0 * (torch.rand(50) < 0.3)  # what stands in no whole block may be the best
    values, ids = top_k(logits, k)
    finite = values.isfinite()
    assert torch.equal(values, logits.topk(k, dim=-1).values)
    assert torch.equal(ids[finite], logits.topk(k, dim=-1).indices[finite])


@CHUNKS
@OPTIONS
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("reads", ["logprobs", "entropies", "both"])
def test_selected_logprobs(monkeypatch, rows, bias, softcap, temperature, reads):
    use_chunks(monkeypatch, rows)
    hidden, head, leaves = parts(bias, softcap)
    ids = torch.randint(V, (N,))
    a = torch.randn(N, dtype=torch.float64) * (reads != "entropies")
    b = torch.randn(N, dtype=torch.float64) * (reads != "logprobs")
    found, entropies = selected_logprobs(hidden, head, ids, temperature=temperature)
    logp = (plain_logits(hidden, head) / temperature).log_softmax(-1)
    expected = logp[torch.arange(N), ids]
    expected_entropies = -(logp.exp() * logp).sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(entropies, expected_entropies, rtol=1e-12, atol=1e-12)
    assert_same_gradients(
        (a * found + b * entropies).sum(), (a * expected + b * expected_entropies).sum(), leaves
    )


@OPTIONS
def test_selected_logprobs_gradcheck(monkeypatch, bias, softcap):
    use_chunks(monkeypatch, 3)
    _, _, leaves = parts(bias, softcap)
    ids = torch.randint(V, (N,))

    def function(*leaves):
        head = Head(weight=leaves[1], bias=leaves[2] if bias else None, softcap=softcap)
        return selected_logprobs(leaves[0], head, ids, temperature=1.3)

    assert torch.autograd.gradcheck(function, leaves)


def test_no_tokens_give_no_gradient():
    hidden, head, _ = parts(False, None)
    found, entropies = selected_logprobs(hidden[:0], head, torch.zeros(0, dtype=torch.long))
    assert found.shape == entropies.shape == (0,)
    (found.sum() + entropies.sum()).backward()
    assert not hidden.grad.any()


def test_a_frozen_head_gets_no_gradient():
    hidden, head, _ = parts(True, None)
    frozen = Head(weight=head.weight.detach(), bias=head.bias.detach(), softcap=None)
    found, _ = selected_logprobs(hidden, frozen, torch.arange(N))
    expected = plain_logits(hidden, frozen).log_softmax(-1)[torch.arange(N), torch.arange(N)]
    assert_same_gradients(found.sum(), expected.sum(), [hidden])


@CHUNKS
@OPTIONS
@pytest.mark.parametrize(("ntp", "kl"), [(0.3, 0.0), (0.0, 0.7), (0.3, 0.7)])
@pytest.mark.parametrize("outer", [1.0, 2.5])
def test_text_loss(monkeypatch, rows, bias, softcap, ntp, kl, outer):
    use_chunks(monkeypatch, rows)
    hidden, head, leaves = parts(bias, softcap)
    teacher_hidden, teacher, _ = parts(bias, softcap)
    targets = torch.randint(V, (N,))
    terms = TextTerms(
        targets=targets,
        ntp_scale=ntp,
        teacher_hidden=teacher_hidden.detach() if kl else None,
        teacher=teacher if kl else None,
        kl_scale=kl,
    )
    loss, ntp_sum, kl_sum = text_loss(hidden, head, terms)
    logp = plain_logits(hidden, head).log_softmax(-1)
    teacher_logp = plain_logits(teacher_hidden, teacher).log_softmax(-1).detach()
    expected_ntp = -logp[torch.arange(N), targets].sum()
    expected_kl = (teacher_logp.exp() * (teacher_logp - logp)).sum()
    assert ntp_sum == pytest.approx(expected_ntp.item(), rel=1e-12)
    assert kl_sum == pytest.approx(expected_kl.item() if kl else 0.0, rel=1e-12)
    assert_same_gradients(outer * loss, outer * (ntp * expected_ntp + kl * expected_kl), leaves)


@CHUNKS
@OPTIONS
def test_target_cross_entropy(monkeypatch, rows, bias, softcap):
    use_chunks(monkeypatch, rows)
    hidden, head, leaves = parts(bias, softcap)
    ids, weights = torch.randint(V, (N, 3)), torch.rand(N, 3, dtype=torch.float64)
    found = target_cross_entropy(hidden, head, ids, weights)
    dense = torch.zeros(N, V, dtype=torch.float64).scatter_add_(1, ids, weights)  # ids may repeat
    expected = -(dense * plain_logits(hidden, head).log_softmax(-1)).sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    a = torch.randn(N, dtype=torch.float64)
    assert_same_gradients((a * found).sum(), (a * expected).sum(), leaves)


@CHUNKS
@OPTIONS
def test_distillation_kl(monkeypatch, rows, bias, softcap):
    use_chunks(monkeypatch, rows)
    hidden, head, leaves = parts(bias, softcap)
    teacher_hidden, teacher, teacher_leaves = parts(bias, softcap)
    found = distillation_kl(hidden, head, teacher_hidden, teacher)
    p = plain_logits(teacher_hidden, teacher).softmax(-1).detach()
    expected = (p * (p.log() - plain_logits(hidden, head).log_softmax(-1))).sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    found.sum().backward(retain_graph=True)
    assert all(leaf.grad is None for leaf in teacher_leaves)
    a = torch.randn(N, dtype=torch.float64)
    assert_same_gradients((a * found).sum(), (a * expected).sum(), leaves)


@CHUNKS
def test_standard_prediction(monkeypatch, rows):
    use_chunks(monkeypatch, rows)
    hidden, head, _ = parts(True, 3.0)
    masked = torch.zeros(V, dtype=torch.bool)
    masked[[0, 4, 9]] = True
    found = standard_prediction(hidden, head, masked, k=3)
    logp = plain_logits(hidden, head).log_softmax(-1)  # of the unmasked distribution
    for n in range(N):
        order = sorted((i for i in range(V) if not masked[i]), key=lambda i: -logp[n, i].item())
        assert found.candidate_ids[n].tolist() == order[:3]
        assert found.argmax[n] == order[0]
        torch.testing.assert_close(found.candidate_logprobs[n], logp[n, order[:3]].detach())
    none = standard_prediction(hidden, head, masked, k=0)
    assert none.candidate_ids.shape == (N, 0) and (none.argmax == found.argmax).all()


@pytest.mark.parametrize("rows", [3, 100])
def test_kept_and_recomputed_logits_give_the_same_gradients(
    rows: int, monkeypatch: pytest.MonkeyPatch
):
    """Few logits wait for the backward pass, many are computed again; nobody can tell which."""
    use_chunks(monkeypatch, rows)
    hidden, head, leaves = parts(bias=True, softcap=None)
    ids = torch.randint(V, (N,))
    weights = torch.randn(2, N, dtype=torch.float64)
    found = []
    for kept in (N * V, N * V - 1):
        monkeypatch.setattr("openrpt.engine.logprobs._KEPT_ELEMENTS", kept)
        products = 0

        def counted(self: Head, states: torch.Tensor) -> torch.Tensor:
            nonlocal products
            products += 1
            return plain_logits(states, self)

        monkeypatch.setattr(Head, "logits", counted)
        read = selected_logprobs(hidden, head, ids, temperature=0.7)
        loss = sum((part * weight).sum() for part, weight in zip(read, weights, strict=True))
        found.append((torch.autograd.grad(loss, leaves), products))
    (kept_gradients, kept_products), (again, products) = found
    assert products == 2 * kept_products
    for one, other in zip(kept_gradients, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
