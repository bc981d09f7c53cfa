"""Rows of the head's gradient that wait for one another, against each loss's own gradient."""

import pytest
import torch
from torch import Tensor

from openrpt.engine.head import Head
from openrpt.engine.head_gradient import WaitingRows
from openrpt.engine.logprobs import selected_logprobs
from openrpt.engine.model import Model
from openrpt.engine.text_loss import TextTerms, distillation_kl, target_cross_entropy, text_loss
from tests.helpers.families import tiny_policy

N, V = 7, 11
LOSSES = ("logprobs", "text", "targets", "kl")


def loss_of(name: str, hidden: Tensor, head: Head) -> Tensor:
    """A loss that the stages have, scaled by rows where it may be: hidden [N, d] → a sum."""
    torch.manual_seed(3)
    ids, rows = torch.randint(V, (N,)), torch.rand(N, dtype=hidden.dtype)
    if name == "text":
        return text_loss(hidden, head, TextTerms(targets=ids, ntp_scale=0.3))[0]
    if name == "logprobs":
        logprobs, entropies = selected_logprobs(hidden, head, ids, temperature=0.7)
        return (rows * (logprobs + 0.1 * entropies)).sum()
    if name == "targets":
        weights = torch.rand(N, 2, dtype=hidden.dtype)
        return (rows * target_cross_entropy(hidden, head, torch.randint(V, (N, 2)), weights)).sum()
    teacher = Head(weight=torch.randn_like(head.weight), bias=None, softcap=None)
    return (rows * distillation_kl(hidden, head, torch.randn_like(hidden), teacher)).sum()


def together(policy: Model, states: list[Tensor], names: tuple[str, ...]) -> None:
    with policy.head_rows_together():
        for name, hidden in zip(names, states, strict=True):
            loss_of(name, hidden, policy.head).backward()


@pytest.mark.parametrize("rows", [1, 10, 1000])
@pytest.mark.parametrize("begun", [False, True], ids=["first", "added"])
def test_the_gradient_is_that_of_each_loss_alone(rows, begun, monkeypatch):
    policy = tiny_policy("llama", torch.float64)
    weight = policy.head.weight
    monkeypatch.setattr("openrpt.engine.head_gradient.CHUNK_ELEMENTS", rows * len(weight))
    d = weight.shape[1]
    states = [torch.randn(N, d, dtype=torch.float64, requires_grad=True) for _ in LOSSES]
    expected = torch.zeros_like(weight)
    of_states = []
    for name, hidden in zip(LOSSES, states, strict=True):
        of_weight, of_hidden = torch.autograd.grad(
            loss_of(name, hidden, policy.head), [weight, hidden]
        )
        expected += of_weight
        of_states.append(of_hidden)
    policy.network.zero_grad()
    if begun:
        weight.grad = torch.ones_like(weight)
    together(policy, states, LOSSES)
    torch.testing.assert_close(weight.grad, expected + float(begun), rtol=1e-10, atol=1e-12)
    for hidden, wanted in zip(states, of_states, strict=True):
        torch.testing.assert_close(hidden.grad, wanted, rtol=1e-10, atol=1e-12)
    assert policy.waiting is None and policy.head.waiting is None


def test_as_many_products_as_the_rows_need(monkeypatch):
    """Four losses of 7 rows: all at once, or a product each where two of them are too many."""
    policy, sent = tiny_policy("llama", torch.float64), []
    vocabulary, d = policy.head.weight.shape
    send = WaitingRows.send

    def counted(self: WaitingRows) -> None:
        sent.append(sum(map(len, self._gradients)))
        send(self)

    monkeypatch.setattr(WaitingRows, "send", counted)
    for rows, expected in ((28, [28]), (14, [14, 14]), (13, [7, 7, 7, 7])):
        sent.clear()
        monkeypatch.setattr("openrpt.engine.head_gradient.CHUNK_ELEMENTS", rows * vocabulary)
        states = [torch.randn(N, d, dtype=torch.float64, requires_grad=True) for _ in LOSSES]
        together(policy, states, LOSSES)
        assert [count for count in sent if count] == expected


def test_a_text_loss_that_is_scaled_is_refused():
    policy = tiny_policy("llama", torch.float64)
    hidden = torch.randn(N, policy.head.weight.shape[1], dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="not scaled"), policy.head_rows_together():
        (2 * loss_of("text", hidden, policy.head)).backward()
    assert policy.waiting is None


def test_a_frozen_head_waits_for_nothing():
    policy = tiny_policy("llama", torch.float64)
    policy.head.weight.requires_grad_(False)
    hidden = torch.randn(N, policy.head.weight.shape[1], dtype=torch.float64, requires_grad=True)
    with policy.head_rows_together():
        assert policy.head.waiting is None
        loss_of("text", hidden, policy.head).backward()
    assert policy.head.weight.grad is None
    assert hidden.grad is not None
