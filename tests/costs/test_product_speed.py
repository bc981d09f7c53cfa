"""Which precision products are made in: measured once, kept, and stated by the run that has it."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from openrpt.cli.main import main
from openrpt.costs.product_speed import ProductSpeed, product_speed
from openrpt.runs.run import stored_config
from tests.helpers.tiny_model import periodic_corpus, tiny_model_folder

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_products: None) -> Path:
    monkeypatch.setenv("OPENRPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def keep(cache: Path, *, bfloat16: float) -> None:
    """Puts rates in the place of the ones that were measured."""
    (file,) = (cache / "speed").iterdir()
    file.write_text(json.dumps({"float32": 100.0, "bfloat16": bfloat16}))


@pytest.mark.parametrize(
    ("bfloat16", "dtype"), [(0.3, "same"), (199.0, "same"), (200.0, "bfloat16")]
)
def test_bfloat16_must_be_clearly_faster(bfloat16: float, dtype: str) -> None:
    assert ProductSpeed(float32=100.0, bfloat16=bfloat16).compute_dtype == dtype


def test_a_round_that_others_slow_down_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: bfloat16 at 0.79 of float32's rate beside another program, and alone at 5 times it."""
    rates = iter([100e9, 80e9, 90e9, 500e9, 20e9, 480e9, 95e9, 30e9, 99e9, 450e9])
    monkeypatch.setattr(
        "openrpt.costs.product_speed.matrix_product_rate", lambda *args, **options: next(rates)
    )
    found = ProductSpeed.measured(CPU)
    assert (found.float32, found.bfloat16, found.compute_dtype) == (100.0, 500.0, "bfloat16")


def test_a_processor_is_measured_on_one_thread_by_its_own_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen: on a processor with AMX 25 GFLOP/s in either precision beside five other programs, by
    the clock on the wall and on all threads."""
    used: list[tuple[int, Any]] = []

    def rate(*args: Any, clock: Any, **options: Any) -> float:
        used.append((torch.get_num_threads(), clock))
        return 1e9

    monkeypatch.setattr("openrpt.costs.product_speed.matrix_product_rate", rate)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ProductSpeed.measured(CPU)
        assert set(used) == {(1, time.thread_time)} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_where_bfloat16_is_not_in_the_processor_one_round_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates = iter([43e9, 0.8e9])
    monkeypatch.setattr(
        "openrpt.costs.product_speed.matrix_product_rate", lambda *args, **options: next(rates)
    )
    found = ProductSpeed.measured(CPU)
    assert (found.float32, found.bfloat16, found.compute_dtype) == (43.0, 0.8, "same")


def test_it_is_measured_once_and_again_where_that_is_damaged(cache: Path) -> None:
    first = product_speed(CPU)
    assert 0 < first.float32 < 1e6 and 0 < first.bfloat16 < 1e6
    assert product_speed(CPU) == first  # to the last digit: it was read
    keep(cache, bfloat16=1e9)
    assert product_speed(CPU).bfloat16 == 1e9
    for path in (cache / "speed").iterdir():
        path.write_text('{"float32": 1')
    assert product_speed(CPU).bfloat16 < 1e6


def scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run: str, *options: str
) -> tuple[str, str]:
    """Scores a tiny corpus; what was said on the two streams."""
    model = tiny_model_folder(tmp_path / "model")
    corpus = periodic_corpus(tmp_path / "corpus.jsonl")
    arguments = ["score", str(corpus), "--run", str(tmp_path / run), "--model.path", str(model)]
    arguments += ["--model.threads", "1", "--prompt.window", "32", "--prompt.min_context", "4"]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, *options])
    said = capsys.readouterr()
    assert not stopped.value.code, said.err
    return said.out, said.err


@pytest.mark.parametrize("key", ["dtype", "compute_dtype"])
def test_bfloat16_that_is_named_and_slow_is_said(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    product_speed(CPU)
    keep(cache, bfloat16=2.0)
    _, err = scored(tmp_path, capsys, "slow", f"--model.{key}", "bfloat16")
    assert "take 50 times as long here as in float32" in err
    keep(cache, bfloat16=101.0)
    _, err = scored(tmp_path, capsys, "fast", f"--model.{key}", "bfloat16")
    assert "times as long" not in err


def test_a_run_keeps_what_it_began_with(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def score(run: str) -> str:
        return scored(tmp_path, capsys, run, "--model.compute_dtype", "auto")[0].splitlines()[0]

    score("first")
    keep(cache, bfloat16=450.0)
    assert score("second") == (
        "products in bfloat16: here bfloat16 is 4.5 times as fast as float32"
    )
    assert stored_config(tmp_path / "second").model.compute_dtype == "bfloat16"
    keep(cache, bfloat16=150.0)
    assert not score("second").startswith("products")  # on another machine, as it were
    assert stored_config(tmp_path / "second").model.compute_dtype == "bfloat16"
    assert score("third").startswith("products in float32: here bfloat16 is 1.5 times")
    assert stored_config(tmp_path / "third").model.compute_dtype == "same"
