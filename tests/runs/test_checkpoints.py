"""Checkpoints: plain model folders that are whole or not there."""

import json
import math
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from openrpt.config.loading import load_config
from openrpt.engine.checkpoint_record import TrainerState, open_checkpoint, read_record
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.engine.loading import load_model
from openrpt.engine.model import Model
from openrpt.errors import UserError
from openrpt.json_files import sealed
from openrpt.runs.card import model_card
from openrpt.runs.checkpoints import (
    latest_checkpoint,
    prune,
    require_own,
    restore,
    save_checkpoint,
    step_folder,
)
from tests.helpers.tiny_model import tiny_config, tiny_model_folder
from tests.helpers.trained_policy import IDS, trained

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints")
    tiny_model_folder(path / "model")
    return path


def saved(folder: Path, name: str, **overrides) -> tuple[Path, Model, torch.optim.Optimizer]:
    config, policy, optimizer = trained(folder, **overrides)
    state = TrainerState(stage="train", step=7, cursor=3, pass_rates={"d": {"5": 1 / 3}})
    return (
        save_checkpoint(folder / name, policy, state, config, optimizer=optimizer),
        policy,
        optimizer,
    )


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(IDS).logits


def test_transformers_loads_it_as_it_is(folder):
    path, policy, _ = saved(folder, "plain")
    model = AutoModelForCausalLM.from_pretrained(path)
    assert model.config._attn_implementation == "sdpa"
    assert "openrpt" not in (path / "config.json").read_text()
    assert (logits(model) - logits(policy.network)).abs().max() < 1e-5
    text = "abc qzx"
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert tokenizer(text)["input_ids"] == policy.tokenizer(text)["input_ids"]


def test_nothing_is_pickled(folder):
    path, _, _ = saved(folder, "safe", model__lora_rank=2)
    files = [file for file in path.rglob("*") if file.is_file()]
    names = {str(file.relative_to(path)) for file in files}
    assert {"model.safetensors", "state.safetensors", "checkpoint.json", "README.md"} <= names
    assert "adapter/adapter_model.safetensors" in names
    for file in files:
        assert file.suffix in {".safetensors", ".json", ".md", ".jinja"}, file
        assert not file.read_bytes().startswith((b"\x80", b"PK")), file


def test_everything_comes_back_bit_for_bit(folder):
    path, policy, optimizer = saved(folder, "back")
    again = load_model(tiny_config(folder).model, path=str(path), trained=True)
    fresh = torch.optim.AdamW(again.parameters(), lr=1e-2, fused=True)
    state = restore(path, again, fresh)
    assert state == TrainerState(stage="train", step=7, cursor=3, pass_rates={"d": {"5": 1 / 3}})
    pairs = zip(policy.parameters(), again.parameters(), strict=True)
    for before, after in pairs:
        assert (before == after).all()
        old, new = optimizer.state[before], fresh.state[after]
        assert old.keys() == new.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all((old[key] == new[key]).all() for key in old)


def test_merged_lora_equals_the_adapter(folder):
    path, policy, _ = saved(folder, "lora", model__lora_rank=4)
    start = AutoModelForCausalLM.from_pretrained(folder / "model")
    merged = AutoModelForCausalLM.from_pretrained(path)
    assert (logits(merged) - logits(start)).abs().max() > 1e-2
    assert (logits(merged) - logits(policy.network)).abs().max() < 1e-5
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(start, path / "adapter")
    assert (logits(merged) - logits(adapted)).abs().max() < 1e-5


def test_adapters_begin_alike_whatever_was_drawn_before(folder):
    config = tiny_config(folder, model__lora_rank=4)
    first = load_model(config.model, trained=True)
    torch.rand(3)
    second = load_model(config.model, trained=True)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert (a == b).all()


def test_a_truncated_file_is_named(folder):
    path, policy, optimizer = saved(folder, "cut")
    weights = path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(UserError) as error:
        restore(path, policy, optimizer)
    message = str(error.value)
    assert f"{weights}: has {len(whole) - 10} bytes in place of {len(whole)}" in message
    assert "delete that folder" in message and "\n" not in message
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: is missing"):
        open_checkpoint(path)


def test_damage_of_the_same_size_is_named(folder):
    path, policy, optimizer = saved(folder, "noise")
    state = path / "state.safetensors"
    state.write_bytes(b"\xff" * state.stat().st_size)
    with pytest.raises(UserError, match=r"state\.safetensors: damaged: its content has changed"):
        restore(path, policy, optimizer)
    (path / "checkpoint.json").write_text("{")
    with pytest.raises(UserError, match=r"checkpoint\.json: damaged"):
        open_checkpoint(path)
    with pytest.raises(UserError, match="not a checkpoint"):
        open_checkpoint(folder / "model")


@pytest.mark.parametrize(
    "name",
    ["added_tokens.json", "model.safetensors.index.json", "additional_chat_templates/x.jinja"],
)
def test_a_file_that_was_put_there_since_is_named(folder, name):
    path, *_ = saved(folder, f"more{len(name)}")
    (path / "notes.md").write_text("one's own")
    open_checkpoint(path)
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text("{}")
    with pytest.raises(UserError, match=f"{name}: no part of the checkpoint"):
        open_checkpoint(path)


def test_every_flipped_bit_is_noticed(folder):
    path, *_ = saved(folder, "flip")
    rng = random.Random(0)
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.suffix != ".md"]
    assert len(files) >= 6
    for file in files:
        whole = file.read_bytes()
        for _ in range(10):
            data = bytearray(whole)
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            if json_of(bytes(data)) is not None and json_of(bytes(data)) == json_of(whole):
                continue  # blanks between the values of checkpoint.json
            file.write_bytes(data)
            with pytest.raises(UserError) as error:
                load_model(tiny_config(folder).model, path=str(path), trained=True)
            assert str(file) in str(error.value) and "\n" not in str(error.value)
        file.write_bytes(whole)
    (path / "README.md").write_text("a card of one's own")
    assert open_checkpoint(path).state.step == 7


def json_of(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


EDITS: dict[str, Any] = {
    "state null": {"state": None},
    "no files": {"files": None},
    "files a list": {"files": []},
    "a file without a size": {"files": {"model.safetensors": {}}},
    "no format": {"format": "new"},
    "step": {"state": {"stage": "train", "step": 3}},
    "negative step": {"state": {"stage": "train", "step": -5}},
    "negative cursor": {"state": {"stage": "train", "step": 7, "cursor": -1}},
    "unknown key": {"state": {"stage": "train", "step": 7, "novelty": 1}},
    "not finite": {"state": {"stage": "train", "step": 7, "best_accuracy": math.nan}},
}


@pytest.mark.parametrize("sealing", [False, True], ids=["as it is", "sealed again"])
def test_a_record_that_was_edited_is_one_line(folder, sealing):
    """Sealed again, it is judged by its shape and ranges alone."""
    path, policy, optimizer = saved(folder, "step-000007")
    record = json.loads((path / "checkpoint.json").read_text())
    for name, edit in EDITS.items():
        values = record | edit
        text = json.dumps(sealed(values) if sealing and name != "not finite" else values)
        (path / "checkpoint.json").write_text(text)
        with pytest.raises(UserError, match=r"checkpoint\.json: .*delete that folder") as error:
            restore(path, policy, optimizer)
        assert "\n" not in str(error.value)
    for text in ("[]", "null", "1", "[" * 100_000, "\xff"):
        (path / "checkpoint.json").write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match="damaged or changed by hand"):
            read_record(path)
    del record["state"]
    (path / "checkpoint.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="damaged or changed by hand"):
        read_record(path)


def test_a_checkpoint_without_hashes_is_read(folder):
    """As older ones are: sizes alone."""
    path, policy, optimizer = saved(folder, "older")
    record = json.loads((path / "checkpoint.json").read_text())
    record["files"] = {name: file["size"] for name, file in record["files"].items()}
    del record["sha256"], record["state"]["start_model"]
    (path / "checkpoint.json").write_text(json.dumps(record | {"format": 1}))
    assert restore(path, policy, optimizer).step == 7
    (path / "checkpoint.json").write_text(json.dumps(record))  # of today, but for its hash
    with pytest.raises(UserError, match="damaged or changed by hand"):
        restore(path, policy, optimizer)


def test_another_configuration_or_start_model_is_refused(folder, tmp_path):
    path, *_ = saved(folder, "bound")
    record = read_record(path)
    require_own(record, path, tiny_config(folder, train__steps=9), stage="train")
    with pytest.raises(UserError, match=r"made with prompt\.window = 32, not 40; put the old"):
        require_own(record, path, tiny_config(folder, prompt__window=40), stage="train")
    require_own(record, path, tiny_config(folder, train__group_size=9), stage="warmup")
    config = tiny_config(tmp_path)
    record.state.start_model = model_fingerprint(config.model.path)
    record.config["model"]["path"] = config.model.path
    record.config["corpus"]["path"] = config.corpus.path
    require_own(record, path, config, stage="train")
    tiny_model_folder(tmp_path / "model", seed=1)
    with pytest.raises(UserError, match=r"made from another model than .* put the old ones back"):
        require_own(record, path, config, stage="train")


def test_checkpoints_go_by_number(tmp_path):
    for name in ("step-999998", "step-1000002", "step-1000000", "step-abc", "step-12", "step-"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-2000000").write_text("no folder")
    assert latest_checkpoint(tmp_path) == step_folder(tmp_path, 1_000_002)
    prune(tmp_path, 2)
    left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert left == {"step-1000000", "step-1000002", "step-abc", "step-12", "step-"}


def test_a_newer_format_is_refused(folder):
    path, _, _ = saved(folder, "newer")
    record = json.loads((path / "checkpoint.json").read_text())
    (path / "checkpoint.json").write_text(json.dumps(record | {"format": 99, "openrpt": "9.9"}))
    with pytest.raises(UserError, match=r"newer OpenRPT \(9\.9\); update"):
        open_checkpoint(path)


def test_the_last_ones_are_kept_and_the_best(tmp_path):
    for name in ("step-000002", "step-000010", "step-000004", "best", "step-000012.partial"):
        (tmp_path / name).mkdir()
    assert latest_checkpoint(tmp_path) == step_folder(tmp_path, 10)
    prune(tmp_path, 2)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"step-000004", "step-000010", "best", "step-000012.partial"}
    assert latest_checkpoint(tmp_path / "none") is None


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What is written beyond so many bytes of a file fails, as on a full disk."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_leaves_what_stood_there(folder):
    path, policy, optimizer = saved(folder, "full")
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    config, state = tiny_config(folder), TrainerState(stage="train", step=9)
    with files_of_at_most(20_000), pytest.raises(UserError, match="cannot be written") as error:
        save_checkpoint(path, policy, state, config, optimizer=optimizer)
    assert "\n" not in str(error.value)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    assert not (folder / "full.partial").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"warmup__ntp_weight": 0.0}, "warmup: self target (form only)"),
        ({"warmup__target": "truth", "warmup__ntp_weight": 0.0}, "truth target (supervised"),
        ({"warmup__ntp_weight": 0.1}, "self target (supervised: it saw the true tokens)"),
    ],
)
def test_the_card_says_how_it_was_made(folder, overrides, words):
    path, _, _ = saved(folder, "card", train__algorithm="dr_grpo", **overrides)
    card = (path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert words in card
    assert "after train, step 7" in card and "algorithm: dr_grpo" in card
    data = ModelCard(card).data
    assert data.tags == ["openrpt", "reinforcement-pre-training"]
    assert data.base_model is None  # a folder is nothing that the Hub knows


def test_a_start_model_of_the_hub_is_named_to_the_hub():
    config = load_config(overrides={"model.path": "example/Base-1"})
    card = ModelCard(model_card(TrainerState(stage="pretrain", step=3), config))
    assert card.data.base_model == "example/Base-1"
    assert card.data.tags == ["openrpt", "continual-pre-training"]
    assert "after continual next-token training, step 3" in card.text


def test_weights_are_in_the_files_once(folder):
    """Tied heads are not stored twice, and the optimizer's state is named by parameter."""
    path, policy, _ = saved(folder, "names")
    names = {name for name, _ in policy.network.named_parameters()}
    stored = load_file(path / "model.safetensors")
    assert stored.keys() == names
    state = {key.split("/", 1)[1] for key in load_file(path / "state.safetensors")}
    assert state == names
