"""A processor's counters as Linux shows them, the estimate, the machine's rate and its shares."""

import time
from pathlib import Path

import pytest
import torch

from openrpt.config.model import ModelConfig
from openrpt.costs import limits
from openrpt.costs.energy import EnergyMeter, money, rapl_counters
from openrpt.costs.flops import model_shape
from openrpt.costs.limits import (
    Pass,
    gpu_named,
    matrix_product_rate,
    products_of,
    rate_of_passes,
    shares_of_limit,
)
from openrpt.engine.loading import load_model
from openrpt.errors import UserError
from openrpt.runs.metrics import read_metrics
from openrpt.stages.train import train
from tests.helpers.tiny_model import tiny_model_folder, tiny_run

CPU = torch.device("cpu")


def zone(root: Path, folder: str, name: str, microjoules: int, greatest: int = 10_000_000) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{greatest}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    return path / "energy_uj"


def test_packages_and_memory_are_added_and_wrap(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 9_000_000)
    memory = zone(tmp_path, "intel-rapl:0:0", "dram", 0)
    cores = zone(tmp_path, "intel-rapl:0:1", "core", 0)  # in the package already
    whole = zone(tmp_path, "intel-rapl:2", "psys", 0)  # holds the packages
    meter = EnergyMeter(CPU, powercap=tmp_path)
    first.write_text("3500000")
    second.write_text("500000")  # from 9 J over the end at 10 J to 0.5 J
    memory.write_text("250000")
    cores.write_text("999999")
    whole.write_text("999999")
    assert meter.metrics() == {"energy/joules": 2.5 + 1.5 + 0.25, "energy/measured": 1.0}


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0).unlink()
    assert rapl_counters(tmp_path) == []


def test_an_estimate_is_labelled(tmp_path: Path) -> None:
    before = time.perf_counter()
    meter = EnergyMeter(CPU, watts=50.0, powercap=tmp_path)
    start = time.perf_counter()
    time.sleep(0.02)
    stop = time.perf_counter()
    found = meter.metrics()
    after = time.perf_counter()
    assert found["energy/measured"] == 0.0
    assert 50 * (stop - start) <= found["energy/joules"] <= 50 * (after - before)
    assert EnergyMeter(CPU, powercap=tmp_path).watts == 65.0


def test_money() -> None:
    assert money(1800, 0.5) == 0.25


def test_a_rate_is_measured_even_where_one_product_takes_too_long() -> None:
    assert 0 < matrix_product_rate([(64, 64, 64)], torch.float32, seconds=0.0) < 1e14


def test_the_rate_is_of_all_shapes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape that takes longer by the FLOP weighs by its time, not by its number."""
    narrow, wide = (256, 8, 8), (256, 256, 256)
    seconds = {narrow: 0.5, wide: 0.25}
    monkeypatch.setattr(limits, "_product_seconds", lambda shape, *rest: seconds[shape])
    flops = 2.0 * 256 * (8 * 8 + 256 * 256)
    assert matrix_product_rate([narrow, wide], torch.float32) == flops / 0.75
    assert matrix_product_rate({narrow: 2, wide: 1}, torch.float32) == pytest.approx(
        2.0 * 256 * (2 * 8 * 8 + 256 * 256) / 1.25
    )


def test_the_products_are_those_of_the_model(tmp_path: Path) -> None:
    """Their FLOPs are the formula's, forward and backward, but for attention's own."""
    folder = tiny_model_folder(tmp_path / "model")
    policy = load_model(ModelConfig(path=str(folder), device="cpu", threads=1), trained=True)
    shape = model_shape(policy)

    def flops(**more: int | bool) -> float:
        products = products_of(policy, [Pass(rows=48, logits=16, **more)])
        return sum(times * 2.0 * m * k * n for (m, k, n), times in products.items())

    assert flops() == shape.forward(48, 0, 16)
    assert flops(times=3) == 3 * flops()
    assert flops(backward=True) == shape.forward(48, 0, 16) + shape.backward(48, 0, 16)
    assert rate_of_passes(policy, [Pass(rows=48)], seconds=0.0) > 0


def test_frozen_matrices_have_no_gradient_to_multiply(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    policy = load_model(ModelConfig(path=str(folder), device="cpu", threads=1))
    products = products_of(policy, [Pass(rows=48, logits=16, backward=True)])
    flops = sum(times * 2.0 * m * k * n for (m, k, n), times in products.items())
    shape = model_shape(policy)
    assert flops == shape.forward(48, 0, 16) + shape.backward(48, 0, 16)


def test_a_gpu_that_is_not_there_names_the_nearest() -> None:
    assert gpu_named("H100-SXM").rate("bfloat16") == 989e12
    with pytest.raises(UserError, match="nearest: 'rtx-4090'"):
        gpu_named("rtx4090")
    with pytest.raises(UserError, match="bfloat16, float32 only"):
        gpu_named("l4").rate("float16")


def test_shares_add_up() -> None:
    found = shares_of_limit(
        100.0, {"generate": 50.0, "update": 300.0}, {"generate": 1.0, "update": 4.0, "store": 0.5}
    )
    assert found["efficiency/generate"] == 0.5 and found["efficiency/update"] == 0.75
    lost = [found[f"efficiency/lost_{phase}"] for phase in ("generate", "update", "store")]
    assert lost == pytest.approx([0.5 / 5.5, 1 / 5.5, 0.5 / 5.5])
    assert found["efficiency/step"] + sum(lost) == pytest.approx(1)


def test_a_step_says_its_cost(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, corpus__development_fraction=0.2, train__steps=2, train__eval_every=2)
    train(run)
    first, last = read_metrics(run.metrics)
    share = first["flops/generate"] / first["time/generate"] / first["efficiency/limit"]
    assert first["efficiency/generate"] == pytest.approx(share)
    assert first["sharing/flops_alone"] > first["flops/generate"] + first["flops/update"]
    assert first["energy/joules"] > 0
    assert "development/flops" not in first and last["development/flops"] > 0
    easy = last["development/reasoning_accuracy/easy"]
    assert easy == last["development/reasoning_accuracy"]  # all of a random model's are easy
