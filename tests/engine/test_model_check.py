"""The gate that a model passes when it is loaded, and the memory of what has passed."""

import os
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from openrpt.config.engine import Trainer
from openrpt.config.model import ModelConfig
from openrpt.engine import check as model_check
from openrpt.engine import remembered
from openrpt.engine.check import require_finite
from openrpt.engine.loading import load_model
from openrpt.engine.model import Model
from openrpt.errors import UserError
from tests.helpers.tiny_model import tiny_model_folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("value", "word"), [("nan", "NaN"), ("inf", "infinity"), ("-inf", "infinity")]
)
def test_the_tensor_that_is_not_finite_is_named(dtype, value, word):
    tensors = {"ids": torch.arange(3), "empty": torch.ones(0, 4), "a": torch.ones(5, 3).to(dtype)}
    require_finite(tensors.items(), what="model 'x'")
    tensors["b.weight"] = torch.full((2, 2), float(value)).to(dtype)
    with pytest.raises(UserError, match=rf"model 'x' has {word} in the weights \(b\.weight\)"):
        require_finite(tensors.items(), what="model 'x'")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("OPENRPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "checked"


def begin_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process has checked so far is forgotten, as in another one."""
    monkeypatch.setattr(model_check, "_PASSED", set())


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that were checked, each time."""
    checked: list[str] = []
    real = model_check.require_flat_support
    monkeypatch.setattr(
        model_check, "require_flat_support", lambda p: (checked.append(p.name), real(p))
    )
    return checked


def load(folder: Path, trainer: Trainer = "tree", **model: object) -> Model:
    config = ModelConfig(threads=1, device="cpu", **model)
    return load_model(config, path=str(folder), trained=True, trainer=trainer)


def test_a_model_is_checked_once(monkeypatch, tmp_path, cache, checks):
    monkeypatch.setattr(model_check, "REMEMBERED_BYTES", 0)
    folder = tiny_model_folder(tmp_path / "m")
    for _ in range(2):
        begin_process(monkeypatch)
        load(folder)
    assert len(checks) == 1
    load(folder, trainer="flat")
    load(folder, dtype="bfloat16")
    assert len(checks) == 3
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="NaN in the weights"):
        load(folder)
    assert len(list(cache.iterdir())) == 3


def test_a_file_is_checked_anew_though_its_time_was_set_back(monkeypatch, tmp_path, cache, checks):
    monkeypatch.setattr(model_check, "REMEMBERED_BYTES", 0)
    folder = tiny_model_folder(tmp_path / "m")
    load(folder)
    file = folder / "model.safetensors"
    stat = file.stat()
    file.write_bytes(file.read_bytes())
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    load(folder)
    assert len(checks) == 2


def test_a_small_model_is_checked_once_a_process_and_leaves_nothing(
    monkeypatch, tmp_path, cache, checks
):
    folder = tiny_model_folder(tmp_path / "m")
    found = {load(folder).attention for _ in range(2)}
    assert len(checks) == 1 and found == {"sdpa"}  # as it was, checked now or before
    load(folder, trainer="flat")
    assert len(checks) == 2
    begin_process(monkeypatch)
    load(folder)
    assert len(checks) == 3
    assert not cache.exists()


def test_the_oldest_are_forgotten(monkeypatch, tmp_path, cache):
    monkeypatch.setattr(model_check, "REMEMBERED_BYTES", 0)
    monkeypatch.setattr(remembered, "_REMEMBERED", 2)
    cache.mkdir(parents=True)
    for age, name in enumerate("abc"):
        (cache / name).write_text("an older one")
        os.utime(cache / name, (1000 - age, 1000 - age))
    load(tiny_model_folder(tmp_path / "m"))
    assert {path.name for path in cache.iterdir()} > {"a"}
    assert len(list(cache.iterdir())) == 2


def test_a_cache_that_cannot_be_written_costs_time_only(monkeypatch, tmp_path, cache, checks):
    monkeypatch.setattr(model_check, "REMEMBERED_BYTES", 0)
    cache.parent.write_text("no folder")
    folder = tiny_model_folder(tmp_path / "m")
    for _ in range(2):
        begin_process(monkeypatch)
        load(folder)
    assert len(checks) == 2


def test_a_tokenizer_that_draws_its_tokens_is_refused(monkeypatch, tmp_path):
    policy = load(tiny_model_folder(tmp_path / "m"))
    draws = count()
    monkeypatch.setattr(model_check, "encode_document", lambda tokenizer, text: ([next(draws)], []))
    with pytest.raises(UserError, match="gives a text other tokens each time"):
        model_check.require_tokenizer(policy)


PHIMOE = {"num_local_experts": 2, "lm_head_bias": False, "initializer_range": 0.3}


def test_a_window_that_the_tree_does_not_see_is_refused_however_long(tmp_path):
    options = PHIMOE | {"sliding_window": 100}
    folder = tiny_model_folder(tmp_path / "m", family="phimoe", **options)
    with pytest.raises(UserError, match=r"'phimoe' gives other results in the tree"):
        load(folder)
    assert load(folder, trainer="flat").causal_lm.config.sliding_window == 100
    load(tiny_model_folder(tmp_path / "mistral", family="mistral", sliding_window=100))
