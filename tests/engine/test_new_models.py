"""Models from scratch: folders that pass the gate, the same for the same name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from openrpt.config.model import ModelConfig
from openrpt.config.prompt import PromptConfig
from openrpt.data.prompts import build_layout
from openrpt.data.tokens import encode_document
from openrpt.engine.loading import load_model, resolve_model
from openrpt.engine.new_models import FAMILIES, byte_tokenizer, new_model
from openrpt.errors import UserError

NAME = "new:llama?layers=1&width=16&heads=2&context=64"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRPT_CACHE", str(tmp_path / "cache"))


def _weights(name: str) -> dict[str, torch.Tensor]:
    return load_file(Path(resolve_model(name)) / "model.safetensors")


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_passes_the_loading_gate(family: str) -> None:
    name = f"new:{family}?layers=2&width=16&heads=2&context=64"
    for trainer in ("tree", "flat"):
        policy = load_model(ModelConfig(path=name, threads=1), trained=True, trainer=trainer)
        assert policy.causal_lm.config.model_type == family
        assert policy.max_length == 64
        assert policy.bos_ids == ()


def test_size_is_what_the_parameters_say() -> None:
    policy = load_model(ModelConfig(path=f"{NAME}&mlp=4", threads=1), trained=True)
    block = 4 * 16 * 16 + 3 * 16 * 64 + 2 * 16
    assert sum(weight.numel() for weight in policy.parameters()) == 260 * 16 + block + 16


def test_a_name_is_a_model_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_rng_state()
    folder, weights = new_model(NAME), _weights(NAME)
    assert torch.equal(torch.get_rng_state(), before)
    assert new_model("new:llama?context=64&heads=2&width=16&layers=1&seed=0") == folder
    monkeypatch.setenv("OPENRPT_CACHE", str(tmp_path / "another"))
    again = _weights(NAME)
    assert all(torch.equal(weights[key], again[key]) for key in weights)
    other = _weights(f"{NAME}&seed=1")
    assert any(not torch.equal(weights[key], other[key]) for key in weights)


def test_the_tokenizer_knows_every_byte_and_the_markers() -> None:
    tokenizer = byte_tokenizer()
    text = "_2x=<think>_23</think>\n\\boxed{3} é 数 \x00\r\n<|end|>"
    ids, pieces = encode_document(tokenizer, text)
    assert b"".join(pieces) == text.encode()
    assert [piece for piece in pieces if len(piece) > 1] == [
        b"<think>",
        b"</think>",
        b"\n\\boxed{",
    ]
    assert tokenizer.eos_token_id not in ids  # spelled out in a text it is text
    assert all(id_ == piece[0] for id_, piece in zip(ids, pieces, strict=True) if len(piece) == 1)


def test_no_marker_is_ever_standard_predictions_word() -> None:
    policy = load_model(ModelConfig(path=NAME, threads=1), trained=True)
    layout = build_layout(policy.tokenizer, PromptConfig(), policy.bos_ids)
    masked = policy.masked_ids(layout.delimiter_ids).nonzero()[:, 0].tolist()
    assert masked == [256, 257, 258, 259]
    assert len(layout.close_ids) == 2
    # A box that begins with a character of the text is no marker.
    spelled = build_layout(policy.tokenizer, PromptConfig(answer_start="="), policy.bos_ids)
    assert ord("=") not in spelled.delimiter_ids


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("new:lama", "no family 'lama' to begin with; nearest: 'llama'"),
        ("new:llama?layer=2", "unknown parameter 'layer'; nearest: 'layers'"),
        ("new:llama?layers=0", "layers = 0: input should be greater than or equal to 1"),
        ("new:llama?heads=3", "width = 64 must be a multiple of 2 · heads = 6"),
        ("new:llama?width", "'width' is no parameter; write KEY=VALUE"),
    ],
)
def test_what_is_wrong_is_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_model(ModelConfig(path=name), trained=True)
    assert str(error.value).startswith(f"{name}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
