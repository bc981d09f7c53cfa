"""FlexAttention over the shared keys against the tree's own whole products: the same numbers, and
which takes less time. Run by `gpu.py`, in its own process.

    python flex_shared.py JOB.json FOUND.json

Compiled on a GPU, as written on a CPU, where only the numbers are of use. The tree attends by whole
products on a GPU until this has measured otherwise there.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

from openrpt.engine.tree.kernel import branch_attention
from openrpt.engine.tree.key_set import KeyMask, SharedKeys

HEADS, KV_HEADS, SIZE = 9, 3, 64
"""SmolLM2's."""
REPETITIONS = 20
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def attention(compiled: bool) -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Rows of one new token (decoding) and of a whole completion (the update's micro-batch)."""
    torch.set_num_threads(job["threads"])
    lengths = [length for length in job["prefix_lengths"] for _ in range(job["group_size"])]
    found = {
        f"{name}, {dtype}".replace("torch.", ""): compare(job["device"], lengths, new, dtype)
        for name, new in (("decoding", 1), ("update", job["new_tokens"]))
        for dtype in TOLERANCE
        if dtype != torch.float64 or job["device"] == "cpu"  # its compiled kernel has none
    }
    return {"flex_shared": found}


def compare(device: str, counts: list[int], new: int, dtype: torch.dtype) -> dict[str, float]:
    """Raises RuntimeError where the numbers differ."""
    torch.manual_seed(0)
    rows, longest, groups = len(counts), max(counts), HEADS // KV_HEADS
    lengths = torch.tensor(counts, device=device)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype, device=device)

    query, own_key, own_value = draw(rows, HEADS, new, SIZE), *draw(2, rows, KV_HEADS, new, SIZE)
    key, value = draw(2, KV_HEADS, longest, SIZE)
    own = torch.ones(new, new, dtype=torch.bool, device=device).tril().expand(rows, -1, -1)
    shared = (torch.arange(longest, device=device) < lengths[:, None])[:, None]
    own_mask = KeyMask.of(own, groups, dtype)
    shared_mask = KeyMask.of(shared.expand(-1, new, -1), groups, dtype)

    def sees_shared(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return k < lengths[q // new]

    flex = attention(compiled=device != "cpu")
    blocks = create_block_mask(sees_shared, None, None, rows * new, longest, device=device)
    causal = create_block_mask(lambda b, h, q, k: k <= q, None, None, new, new, device=device)
    more = {"scale": 0.125, "enable_gqa": True, "return_aux": AuxRequest(lse=True)}

    def by_flex() -> Tensor:
        joined = query.transpose(0, 1).reshape(1, HEADS, rows * new, SIZE)
        of_shared, aux = flex(joined, key[None], value[None], block_mask=blocks, **more)
        of_own, own_aux = flex(query, own_key, own_value, block_mask=causal, **more)
        parted = of_shared.view(HEADS, rows, new, SIZE).transpose(0, 1)
        normaliser = aux.lse.view(HEADS, rows, new).transpose(0, 1)
        share = torch.sigmoid(own_aux.lse - normaliser)[..., None].to(dtype)
        return of_own * share + parted * (1 - share)

    def by_products() -> Tensor:
        return branch_attention(
            query,
            own_key,
            own_value,
            own_mask,
            documents=[SharedKeys(rows=None, key=key, value=value, mask=shared_mask)],
            scaling=0.125,
            softcap=None,
        )

    difference = float((by_flex() - by_products()).abs().max())
    if difference > TOLERANCE[dtype]:
        raise RuntimeError(f"FlexAttention differs by {difference:.2g} ({new} new, {dtype})")
    return {
        "largest_difference": difference,
        "flex_seconds": seconds(by_flex, device),
        "own_seconds": seconds(by_products, device),
    }


def seconds(run: Callable[[], Tensor], device: str) -> float:
    spent = []
    for _ in range(REPETITIONS if device == "cuda" else 1):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
