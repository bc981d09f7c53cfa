"""How fast a machine can be: measured by the model's own matrix products, or as a GPU's vendor
states it; and what share of that a step reaches."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from openrpt.engine.head import wide_product
from openrpt.errors import UserError, nearest

if TYPE_CHECKING:
    from openrpt.engine.model import Model


_Product = tuple[int, int, int]
"""A matrix product's sizes: [rows, inner] × [inner, columns]."""

_REPETITIONS = 5
_SECONDS = 0.5
"""Seconds that measuring a model's rate may take, about: a run pays it once a start, after a
step."""
_WIDE_COLUMNS = 4096
"""Columns from which on a product is the head's."""
_CPU_ROWS = 256
_GPU_ROWS = 4096
"""Rows of the products that a rate is measured with: enough for a CPU's and for a GPU's full
rate, few enough that the head's product takes no second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """A run of the model over so many tokens at once, and of its head over so many of them."""

    rows: int
    logits: int = 0
    times: int = 1
    backward: bool = False
    """Whether the gradients are computed, too."""


def products_of(policy: "Model", passes: Iterable[Pass]) -> Counter[_Product]:
    """Returns the products with the model's own matrices, and how often each shape is computed.

    A matrix of [out, inner] is [rows, inner] × [inner, out] forward. Backward there are [rows, out]
    × [out, inner] for what goes in, and [out, rows] × [rows, inner] for a matrix that is trained.
    Products of queries, keys and values are not among them.
    """
    from openrpt.costs.flops import matrices_of

    matrices = Counter((tuple(m.shape), m.requires_grad) for m in matrices_of(policy))
    head = policy.head.weight
    found: Counter[_Product] = Counter()
    for one in passes:
        of_rows = [(one.rows, *shape, count) for shape, count in matrices.items()]
        of_rows.append((one.logits, tuple(head.shape), head.requires_grad, 1))
        for rows, (out, inner), trained, count in of_rows:
            if not rows:
                continue
            found[rows, inner, out] += count * one.times
            if one.backward:
                found[rows, out, inner] += count * one.times
            if one.backward and trained:
                found[out, rows, inner] += count * one.times
    return found


def matrix_product_rate(
    products: Sequence[_Product] | Mapping[_Product, int],
    dtype: torch.dtype,
    *,
    device: torch.device | str = "cpu",
    seconds: float = _SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Measures the FLOP/s of matrix products, in this process and with its threads, by seconds of
    `clock`.

    Each distinct shape takes the median of _REPETITIONS, after one that sets things up; where its
    part of the `seconds` is over before, what there is by then (at least one). A shape that stands
    there twice counts twice: the rate is all FLOPs over all seconds that the products would take
    one after another.
    """
    flops, total = 0.0, 0.0
    shapes = Counter(products)
    for (rows, inner, columns), times in shapes.items():
        limit = seconds / len(shapes)
        spent = _product_seconds((rows, inner, columns), dtype, device, limit, clock)
        flops += times * 2.0 * rows * inner * columns
        total += times * spent
    return flops / total


def _product_seconds(
    product: _Product,
    dtype: torch.dtype,
    device: torch.device | str,
    limit: float,
    clock: Callable[[], float],
) -> float:
    rows, inner, columns = product
    left = torch.rand(rows, inner, device=device).to(dtype)
    right = torch.rand(inner, columns, device=device).to(dtype)
    out = torch.empty(rows, columns, dtype=dtype, device=device)
    spent: list[float] = []
    while not spent or (len(spent) <= _REPETITIONS and sum(spent) < limit):
        start = clock()
        if columns >= _WIDE_COLUMNS:  # as the head takes it: at once it is slower, and no limit
            wide_product(left, right, out)
        else:
            torch.mm(left, right, out=out)
        if left.is_cuda:
            torch.cuda.synchronize(left.device)
        spent.append(clock() - start)
    return statistics.median(spent[1:] or spent)


def model_rate(policy: "Model") -> float:
    """Measures the FLOP/s of the products of one forward pass: every matrix of the backbone, and
    the head."""
    rows = _GPU_ROWS if policy.device.type == "cuda" else _CPU_ROWS
    return rate_of_passes(policy, [Pass(rows=rows, logits=rows)])


def rate_of_passes(policy: "Model", passes: Iterable[Pass], *, seconds: float = _SECONDS) -> float:
    """Measures the FLOP/s of the model's own products at the shapes of these passes: what a phase
    that makes them could reach if it did nothing else."""
    products = products_of(policy, passes)
    dtype = policy.product_dtype
    return matrix_product_rate(products, dtype, device=policy.device, seconds=seconds)


def shares_of_limit(
    rate: float, flops: Mapping[str, float], seconds: Mapping[str, float]
) -> dict[str, float]:
    """Returns the shares of a step's time by phase; flops and seconds by phase, `rate` in FLOP/s.

    `efficiency/PHASE` = FLOPs ÷ (seconds · rate) of a phase that computes; `efficiency/step` the
    same of the whole step; `efficiency/lost_PHASE` the share of the step's time in which a phase
    was below the limit. `efficiency/step` and what is lost add up to 1.
    """
    whole = sum(seconds.values())
    needed = {phase: count / rate for phase, count in flops.items()}
    found = {"efficiency/limit": rate}
    for phase, count in needed.items():
        found[f"efficiency/{phase}"] = count / seconds[phase]
    found["efficiency/step"] = sum(needed.values()) / whole
    for phase, spent in seconds.items():
        found[f"efficiency/lost_{phase}"] = (spent - needed.get(phase, 0.0)) / whole
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A GPU's limits as its vendor states them, without sparsity. For estimates only."""

    bfloat16: float
    """Dense matrix rate with float32 sums, in TFLOP/s."""
    float32: float
    """Full float32 (not TF32), as PyTorch multiplies by default, in TFLOP/s."""
    memory: float
    """Memory in GB."""
    watts: float
    """Board power at its limit, in watts."""
    source: str

    def rate(self, dtype: str) -> float:
        """Returns the rate in FLOP/s. Raises UserError for a precision that the table does not
        have."""
        rates = {"bfloat16": self.bfloat16, "float32": self.float32}
        if dtype not in rates:
            known = ", ".join(rates)
            raise UserError(f"products in {dtype}: the table of GPUs has {known} only")
        return rates[dtype] * 1e12


def _gpu(bfloat16: float, float32: float, memory: float, watts: float, source: str) -> Gpu:
    return Gpu(bfloat16=bfloat16, float32=float32, memory=memory, watts=watts, source=source)


_GPUS = {
    "a100-40gb": _gpu(312, 19.5, 40, 400, "NVIDIA A100 data sheet, SXM"),
    "a100-80gb": _gpu(312, 19.5, 80, 400, "NVIDIA A100 data sheet, SXM"),
    "h100-pcie": _gpu(756, 51, 80, 350, "NVIDIA H100 data sheet, PCIe, halved: no sparsity"),
    "h100-sxm": _gpu(989, 67, 80, 700, "NVIDIA H100 data sheet, SXM, halved: no sparsity"),
    "h200": _gpu(989, 67, 141, 700, "NVIDIA H200 data sheet, SXM, halved: no sparsity"),
    "b200": _gpu(2250, 75, 180, 1000, "NVIDIA HGX B200 data sheet, an eighth, no sparsity"),
    "l4": _gpu(121, 30.3, 24, 72, "NVIDIA L4 data sheet, halved: no sparsity"),
    "l40s": _gpu(362, 91.6, 48, 350, "NVIDIA L40S data sheet"),
    "rtx-3090": _gpu(71, 35.6, 24, 350, "NVIDIA Ampere GA102 white paper"),
    "rtx-4090": _gpu(165.2, 82.6, 24, 450, "NVIDIA Ada white paper"),
    "mi300x": _gpu(1307, 163.4, 192, 750, "AMD Instinct MI300X data sheet"),
}


def gpu_named(name: str) -> Gpu:
    """Returns the GPU of that name in the table. Raises UserError that names the nearest."""
    found = _GPUS.get(name.lower())
    if found is None:
        variants = [known for known in _GPUS if known.startswith(f"{name.lower()}-")]
        listed = ", ".join(f"'{known}'" for known in variants or _GPUS)
        hint = nearest(name.lower(), _GPUS, otherwise=f"known: {listed}", cutoff=0.3)
        hint = f"; nearest: {listed}" if variants else hint
        raise UserError(f"--gpu {name}: no such GPU in the table{hint}")
    return found
