"""The tree's attention against one plain softmax over all keys, in float64, with autograd's own
gradients."""

import os
import subprocess
import sys

import pytest
import torch

from openrpt.engine.tree.flash import flash_kernel
from openrpt.engine.tree.kernel import branch_attention
from openrpt.engine.tree.key_set import KeyMask, SharedKeys


def plain(query, key, value, shared_key, shared_value, own_mask, shared_mask, scaling, softcap):
    rows, heads = query.shape[:2]
    if shared_key is not None:
        key = torch.cat([shared_key[None].expand(rows, -1, -1, -1), key], dim=2)
        value = torch.cat([shared_value[None].expand(rows, -1, -1, -1), value], dim=2)
        own_mask = torch.cat([shared_mask, own_mask], dim=-1)
    groups = heads // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = scaling * query @ key.transpose(2, 3)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return scores.masked_fill(~own_mask[:, None], float("-inf")).softmax(-1) @ value


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("shares", [True, False])
def test_values_and_gradients_are_those_of_a_plain_softmax(shares: bool, softcap) -> None:
    compare_with_plain(shares, softcap)


def compare_with_plain(shares: bool, softcap: float | None) -> None:
    torch.manual_seed(0)
    rows, heads, kv_heads, new, length, own, size = 3, 6, 2, 4, 7, 5, 8

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    tensors = [draw(rows, heads, new, size), *(draw(rows, kv_heads, own, size) for _ in range(2))]
    tensors += [draw(kv_heads, length, size) for _ in range(2)] if shares else []
    own_mask = torch.rand(rows, new, own) < 0.6
    own_mask[:, :, 0] = True
    shared_mask = torch.rand(rows, new, length) < 0.6 if shares else None
    if shared_mask is not None:
        shared_mask[0] = False  # a row that sees nothing of the prefix
    shared = tensors[3:] if shares else [None, None]
    expected = plain(*tensors[:3], *shared, own_mask, shared_mask, 0.3, softcap)
    documents = []
    if shared_mask is not None:
        mask = KeyMask.of(shared_mask, heads // kv_heads, torch.float64)
        documents = [SharedKeys(rows=None, key=shared[0], value=shared[1], mask=mask)]
    found = branch_attention(
        *tensors[:3],
        KeyMask.of(own_mask, heads // kv_heads, torch.float64),
        documents=documents,
        scaling=0.3,
        softcap=softcap,
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(expected)
    of_found = torch.autograd.grad((found * weight).sum(), tensors)
    of_plain = torch.autograd.grad((expected * weight).sum(), tensors)
    for one, other in zip(of_found, of_plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("new", [1, 5])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_rows_of_several_documents_attend_to_their_own(softcap, new: int) -> None:
    """Documents of other lengths, whose rows stand among each other's; one has a single row."""
    torch.manual_seed(0)
    heads, kv_heads, own, size = 6, 2, 5, 8
    document_of, lengths = torch.tensor([1, 0, 2, 1, 0, 1, 1]), [7, 31, 3]
    rows = len(document_of)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    query, key, value = (draw(rows, n, m, size) for n, m in ((heads, new), *[(kv_heads, own)] * 2))
    tensors = [query, key, value]
    own_mask = torch.rand(rows, new, own) < 0.6
    own_mask[:, :, 0] = True
    groups = heads // kv_heads
    documents, expected = [], torch.zeros_like(query)
    for number, length in enumerate(lengths):
        chosen = (document_of == number).nonzero()[:, 0]
        shared = draw(kv_heads, length, size), draw(kv_heads, length, size)
        tensors += shared
        seen = torch.rand(len(chosen), new, length) < 0.6
        mask = KeyMask.of(seen, groups, torch.float64)
        documents.append(SharedKeys(rows=chosen, key=shared[0], value=shared[1], mask=mask))
        mine = (query[chosen], key[chosen], value[chosen])
        expected[chosen] = plain(*mine, *shared, own_mask[chosen], seen, 0.3, softcap)
    found = branch_attention(
        query,
        key,
        value,
        KeyMask.of(own_mask, groups, torch.float64),
        documents=documents,
        scaling=0.3,
        softcap=softcap,
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(expected)
    of_found = torch.autograd.grad((found * weight).sum(), tensors)
    of_plain = torch.autograd.grad((expected * weight).sum(), tensors)
    for one, other in zip(of_found, of_plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_this_torch_has_the_kernel() -> None:
    """Else attention on a CPU is 2.5 times slower: the new name belongs into `flash_kernel`."""
    assert flash_kernel() is not None


HIDE = """
import torch
from torch._ops import _OpNamespace
for name in [name for name in vars(torch.ops.aten) if "flash_attention_for_cpu" in name]:
    delattr(torch.ops.aten, name)
plain = _OpNamespace.__getattr__
def renamed(self, name):
    if "flash_attention_for_cpu" in name:
        raise AttributeError(name)
    return plain(self, name)
_OpNamespace.__getattr__ = renamed
"""


def test_without_the_kernel_products_give_the_same() -> None:
    """In a process whose torch has no such operations, as after a renaming."""
    check = (
        "import openrpt\n"
        "from openrpt.engine.tree.flash import flash_kernel\n"
        "from tests.engine.test_branch_attention import compare_with_plain\n"
        "assert flash_kernel() is None\n"
        "compare_with_plain(True, None)\n"
        "compare_with_plain(False, None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", HIDE + check],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
