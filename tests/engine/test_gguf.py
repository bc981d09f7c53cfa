"""GGUF files: the folder that comes of one gives the numbers and tokens of the original model."""

import json
import math
import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers as tf

from openrpt.config.model import ModelConfig
from openrpt.engine import gguf_models
from openrpt.engine.gguf_models import convert_gguf
from openrpt.engine.loading import load_model, load_tokenizer
from openrpt.errors import UserError
from openrpt.evaluation.models import model_label
from tests.helpers.tiny import SentencePieceStyle, byte_level_tokenizer, sentencepiece_tokenizer
from tests.helpers.tiny_gguf import byte_level_metadata, rope_divisors, tiny_model, write_gguf

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
YARN_KEYS = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 128,
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENRPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def of_llama(keys: dict[str, Any]) -> dict[str, Any]:
    return {f"llama.{key}": value for key, value in keys.items()}


def difference(model: Any, folder: Path) -> float:
    """The largest difference of log-probabilities over 200 tokens."""
    found = tf.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([[(7 * i + 3) % 390 for i in range(200)]])
    with torch.no_grad():
        logits = model(ids).logits, found(ids).logits
    return float((logits[0].log_softmax(-1) - logits[1].log_softmax(-1)).abs().max())


def refusal(path: Path) -> str:
    """The one line that loading the file ends with."""
    with pytest.raises(UserError) as caught:
        load_model(ModelConfig(threads=1, device="cpu"), path=str(path), trained=True)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


# ---- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"num_key_value_heads": 4, "head_dim": 32}),
        ("llama", {"rope": {"rope_theta": 500000.0}}),
        ("qwen2", {}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {}),
        ("qwen3", {"head_dim": 32}),
    ],
)
def test_numbers_are_those_of_the_original(
    tmp_path: Path, family: str, options: dict[str, Any]
) -> None:
    model = tiny_model(family, **options)
    folder = convert_gguf(write_gguf(tmp_path / "m.gguf", model))
    assert difference(model, folder) < 1e-4
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == [type(model).__name__]


@pytest.mark.parametrize(
    ("rope", "keys"),
    [
        ({"rope_type": "linear", "factor": 4.0}, {"type": "linear", "factor": 4.0}),
        ({"rope_type": "linear", "factor": 4.0}, {"factor": 4.0}),  # llama.cpp's default type
        ({}, {"type": "none", "factor": 4.0, "original_context_length": 128}),
        (YARN, {"type": "yarn", "factor": 4.0, "original_context_length": 128}),
        (
            YARN | {"beta_fast": 16.0, "beta_slow": 2.0},
            {
                "type": "yarn",
                "factor": 4.0,
                "original_context_length": 128,
                "yarn_beta_fast": 16.0,
                "yarn_beta_slow": 2.0,
                "finetuned": True,
                "attn_factor": 1.0,
            },
        ),
    ],
)
def test_rope_scaling_by_keys_is_carried_over(
    tmp_path: Path, rope: dict[str, Any], keys: dict[str, Any]
) -> None:
    model = tiny_model(rope=rope)
    metadata = {f"llama.rope.scaling.{key}": value for key, value in keys.items()}
    path = write_gguf(tmp_path / "m.gguf", model, metadata=metadata)
    assert difference(model, convert_gguf(path)) < 1e-4


def test_rope_scaling_of_other_architectures(tmp_path: Path) -> None:
    for family in ("qwen2", "qwen3"):
        model = tiny_model(family, rope=YARN)
        metadata = {f"{family}.{key}": value for key, value in YARN_KEYS.items()}
        path = write_gguf(tmp_path / f"{family}.gguf", model, metadata=metadata)
        assert difference(model, convert_gguf(path)) < 1e-4


def test_the_older_name_of_linear_scaling(tmp_path: Path) -> None:
    model = tiny_model(rope={"rope_type": "linear", "factor": 4.0})
    path = write_gguf(tmp_path / "m.gguf", model, metadata={"llama.rope.scale_linear": 4.0})
    assert difference(model, convert_gguf(path)) < 1e-4


@pytest.mark.parametrize(
    ("options", "rope"),
    [
        ({}, {}),
        ({}, {"factor": 32.0, "original_max_position_embeddings": 64}),
        ({}, {"low_freq_factor": 2.0, "high_freq_factor": 32.0}),  # more dimensions in between
        ({}, {"high_freq_factor": 1.01}),  # no dimension in between
        ({}, {"original_max_position_embeddings": 100000}),  # the slowest one isn't quite divided
        (
            {"head_dim": 64, "max_position_embeddings": 131072},
            {"rope_theta": 500000.0, "factor": 32.0, "original_max_position_embeddings": 8192},
        ),
    ],
)
def test_llama3_scaling_is_found_again_from_its_tensor(
    tmp_path: Path, options: dict[str, Any], rope: dict[str, Any]
) -> None:
    model = tiny_model(rope=LLAMA3 | rope, **options)
    path = write_gguf(tmp_path / "m.gguf", model, tensors=rope_divisors(model))
    folder = convert_gguf(path)
    assert difference(model, folder) < 1e-4
    if options:  # Llama 3.2's own, to the digit
        found = json.loads((folder / "config.json").read_text())["rope_parameters"]
        assert found == LLAMA3 | rope


def test_the_same_divisor_everywhere_is_linear_scaling(tmp_path: Path) -> None:
    model = tiny_model(rope={"rope_type": "linear", "factor": 4.0})
    path = write_gguf(tmp_path / "m.gguf", model, tensors=rope_divisors(model))
    assert difference(model, convert_gguf(path)) < 1e-4


@pytest.mark.parametrize(
    "divisors",
    [
        [1.0, 1.5, 2.0, 2.0, 2.5, 3.0, 8.0, 8.0],
        [1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 8.0, 8.0],
        [1.0, 4.0, 2.0, 2.0, 8.0, 8.0, 8.0, 8.0],
        [0.5, 1.0, 1.0, 1.0, 8.0, 8.0, 8.0, 8.0],
        [1.0, 1.0, 8.0, 8.0],
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, math.inf],
    ],
)
def test_divisors_of_another_kind_are_refused(tmp_path: Path, divisors: list[float]) -> None:
    tensors = {"rope_freqs.weight": np.array(divisors)}
    path = write_gguf(tmp_path / "m.gguf", tiny_model(), tensors=tensors)
    assert "rope_freqs.weight" in refusal(path)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "F16", "BF16"])
def test_quantized_weights_are_those_of_the_quantization(tmp_path: Path, kind: str) -> None:
    stored = gguf.GGMLQuantizationType[kind]
    model = tiny_model(num_attention_heads=2, head_dim=32)
    path = write_gguf(tmp_path / "m.gguf", model, kind=stored)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                rounded = gguf.quantize(parameter.numpy(), stored)
                parameter.copy_(torch.from_numpy(gguf.dequantize(rounded, stored)))
    assert difference(model, convert_gguf(path)) < 1e-4


# ---- what can't be carried over -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.scaling.type", "longrope"),
        ("rope.scaling.type", "llama3"),
        ("rope.scaling.foo", 3),
        ("rope.scaling.attn_factor", 1.19),
        ("rope.scaling.yarn_log_multiplier", 0.1),
        ("rope.scaling.yarn_ext_factor", 0.5),
        ("rope.scaling.alpha", 2.0),
        ("rope.dimension_count", 8),
        ("rope.dimension_sections", [4, 2, 2]),
        ("attention.scale", 0.0078125),
        ("attention.sliding_window", 64),
        ("attention.value_length", 8),
        ("attention.clamp_kqv", 8.0),
        ("attention.head_count_kv", [2, 1]),
        ("logit_scale", 0.0625),
        ("embedding_scale", 12.0),
        ("residual_scale", 0.22),
        ("final_logit_softcapping", 30.0),
        ("expert_count", 8),
        ("expert_used_count", 2),
        ("a_key_of_next_year", "x"),
    ],
)
def test_keys_that_change_numbers_are_refused_by_name(tmp_path: Path, key: str, value: Any) -> None:
    path = write_gguf(tmp_path / "m.gguf", tiny_model(), metadata={f"llama.{key}": value})
    message = refusal(path)
    assert f"it says llama.{key} = {value}"[:30] in message
    assert "safetensors" in message


def test_keys_that_change_nothing_are_taken(tmp_path: Path) -> None:
    model = tiny_model()
    neutral = {"expert_count": 0, "expert_used_count": 0, "attention.causal": True}
    metadata = of_llama(neutral) | {"general.name": "mistral", "quantize.imatrix.file": "x"}
    path = write_gguf(tmp_path / "m.gguf", model, metadata=metadata)
    assert difference(model, convert_gguf(path)) < 1e-4


def test_one_set_of_scaling_at_a_time(tmp_path: Path) -> None:
    model = tiny_model(rope=LLAMA3)
    path = write_gguf(
        tmp_path / "m.gguf", model, metadata=of_llama(YARN_KEYS), tensors=rope_divisors(model)
    )
    assert "llama.rope.scaling.factor = 4.0 beside the tensor rope_freqs.weight" in refusal(path)


@pytest.mark.parametrize("key", ["attention.head_count_kv", "context_length", "block_count"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    path = write_gguf(tmp_path / "m.gguf", tiny_model(), drop=lambda name: name == f"llama.{key}")
    assert f"llama.{key}" in refusal(path)


def test_other_architectures_and_parts_are_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", tiny_model(), metadata={"split.count": 3})
    assert "one of 3 parts" in refusal(path)
    writer = gguf.GGUFWriter(tmp_path / "b.gguf", "falcon")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "architecture is 'falcon'" in refusal(tmp_path / "b.gguf")


def test_values_that_transformers_refuses_are_an_error_on_one_line(tmp_path: Path) -> None:
    metadata = of_llama({"rope.freq_base": "x", "context_length": "y"})
    path = write_gguf(tmp_path / "m.gguf", tiny_model(), metadata=metadata)
    refusal(path)


# ---- tensors ------------------------------------------------------------------------------------


def test_missing_tensors_are_named_each_time(tmp_path: Path, cache: Path) -> None:
    drop = "blk.1."
    path = write_gguf(tmp_path / "m.gguf", tiny_model(), drop=lambda name: name.startswith(drop))
    for _ in range(2):
        message = refusal(path)
        assert "tensors are missing: blk.1.attn_q.weight" in message
        assert "and 5 more" in message
    assert not list(cache.glob("models/*"))


def test_another_file_of_the_same_size_and_time_is_converted_anew(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", tiny_model())
    first, stat = convert_gguf(path), path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert convert_gguf(path) != first


def test_unknown_tensors_are_named(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", tiny_model(), metadata={"llama.block_count": 1})
    assert "blk.1.attn_q.weight" in refusal(path)
    bias = {"blk.0.attn_q.bias": np.ones(64)}
    path = write_gguf(tmp_path / "b.gguf", tiny_model(), tensors=bias)
    assert "tensors unknown to llama: blk.0.attn_q.bias" in refusal(path)
    norm = {"blk.0.attn_q_norm.weight": np.ones(16)}
    path = write_gguf(tmp_path / "n.gguf", tiny_model(), tensors=norm)
    assert "blk.0.attn_q_norm.weight" in refusal(path)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    tensors = {"blk.0.ffn_up.weight": np.ones((64, 96))}
    path = write_gguf(tmp_path / "m.gguf", tiny_model(), tensors=tensors)
    assert "blk.0.ffn_up.weight has [64, 96] numbers, not [96, 64]" in refusal(path)
    path = write_gguf(tmp_path / "v.gguf", tiny_model(), metadata={"llama.vocab_size": 500})
    assert "token_embd.weight" in refusal(path)


def test_absurd_numbers_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    sizes = dict.fromkeys(("block_count", "embedding_length", "attention.key_length"), 2**32 - 4)
    for key, value in (sizes | {"rope.freq_base": 0.0, "attention.head_count": 64}).items():
        metadata = {f"llama.{key}": value}
        refusal(write_gguf(tmp_path / "m.gguf", tiny_model(), metadata=metadata))


def test_numbers_that_are_not_finite_are_named(tmp_path: Path) -> None:
    tensors = {"blk.1.attn_norm.weight": np.full(64, np.nan)}
    path = write_gguf(tmp_path / "m.gguf", tiny_model(), tensors=tensors)
    assert "blk.1.attn_norm.weight has NaN" in refusal(path)


# ---- tokenizers ---------------------------------------------------------------------------------

TEXTS = ["in  2024", "a 2024b  x", " the next token", "Le café 数学 😀\n\n  end", "", "can't THE"]


def converted_tokenizer(tmp_path: Path, metadata: dict[str, Any], **options: Any) -> Any:
    path = write_gguf(tmp_path / "m.gguf", tiny_model(**options), tokenizer=metadata)
    return load_tokenizer(ModelConfig(), str(path))


def steps(tokenizer: Any) -> list[str]:
    spec = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"]
    return [step["type"] for step in spec["pretokenizers"]]


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        ("gpt-2", ["ByteLevel"]),
        ("smollm", ["Digits", "ByteLevel"]),
        ("llama-bpe", ["Split", "ByteLevel"]),
        ("qwen2", ["Split", "ByteLevel"]),
        ("tekken", ["Split", "ByteLevel"]),
    ],
)
def test_the_pre_tokenizer_is_the_one_that_the_file_names(
    tmp_path: Path, pre: str, expected: list[str]
) -> None:
    tokenizer = converted_tokenizer(tmp_path, byte_level_metadata(pre=pre))
    assert steps(tokenizer) == expected
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        if pre == "gpt-2":
            assert ids == byte_level_tokenizer()(text)["input_ids"]


def test_digits_of_smollm_stand_alone(tmp_path: Path) -> None:
    tokenizer = converted_tokenizer(tmp_path, byte_level_metadata(pre="smollm"))
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in  2024")
    assert [piece for piece, _ in pieces] == ["in", "ĠĠ", "2", "0", "2", "4"]


def test_expressions_are_those_of_the_released_tokenizers() -> None:
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    from openrpt.engine.gguf_pretokenizers import PRE_TOKENIZERS

    assert PRE_TOKENIZERS["qwen2"].split == PRETOKENIZE_REGEX


@pytest.mark.parametrize("pre", ["jais-7", "default", None])
def test_an_unknown_pre_tokenizer_is_refused_by_name(tmp_path: Path, pre: str | None) -> None:
    metadata = byte_level_metadata() | {"tokenizer.ggml.pre": pre}
    path = write_gguf(tmp_path / "m.gguf", tiny_model(), tokenizer=metadata)
    message = refusal(path)
    assert "tokenizer.ggml.pre" in message and "safetensors" in message
    assert pre is None or repr(pre) in message


def test_a_word_that_is_a_token_is_taken_whole_as_llama3_does(tmp_path: Path) -> None:
    metadata = byte_level_metadata()
    metadata["tokenizer.ggml.tokens"][-1] = "zebra"  # no merges make it
    metadata["tokenizer.ggml.merges"].pop()
    for pre, whole in (("llama-bpe", True), ("gpt-2", False)):
        tokenizer = converted_tokenizer(tmp_path, metadata | {"tokenizer.ggml.pre": pre})
        assert (len(tokenizer("zebra")["input_ids"]) == 1) == whole


@pytest.mark.parametrize(
    ("pre", "said", "adds"),
    [
        ("llama-bpe", None, True),
        ("llama-bpe", False, False),
        ("gpt-2", None, False),
        ("gpt-2", True, True),
    ],
)
def test_what_stands_before_a_text_is_what_the_file_says(
    tmp_path: Path, pre: str, said: bool | None, adds: bool
) -> None:
    metadata = byte_level_metadata(pre=pre) | {"tokenizer.ggml.add_bos_token": said}
    path = write_gguf(tmp_path / "m.gguf", tiny_model(), tokenizer=metadata)
    policy = load_model(ModelConfig(threads=1, device="cpu"), path=str(path), trained=True)
    assert policy.bos_ids == ((policy.tokenizer.bos_token_id,) if adds else ())
    assert policy.stop_ids == {policy.tokenizer.eos_token_id}


def test_control_tokens_are_special_whatever_they_are_spelled_with(tmp_path: Path) -> None:
    metadata = byte_level_metadata()
    metadata["tokenizer.ggml.tokens"][0] = "<｜begin▁of▁sentence｜>"  # outside the byte alphabet
    metadata["tokenizer.ggml.tokens"][5] = "<think>"
    metadata["tokenizer.ggml.token_type"][5] = 4  # user-defined
    tokenizer = converted_tokenizer(tmp_path, metadata)
    assert tokenizer("<｜begin▁of▁sentence｜>a<think>")["input_ids"][0] == 0
    assert tokenizer.all_special_ids == [0, 1]
    assert tokenizer("a<think>")["input_ids"][-1] == 5
    assert len(tokenizer) == len(metadata["tokenizer.ggml.tokens"])


@pytest.mark.parametrize("style", ["prepend", "replace"])
def test_sentencepiece_gives_the_ids_of_the_original(
    tmp_path: Path, style: SentencePieceStyle
) -> None:
    original = sentencepiece_tokenizer(style)
    tokens = sorted(original.get_vocab(), key=original.get_vocab().get)
    types = [
        2 if t == "<unk>" else 3 if t.startswith("<|") else 6 if "<0x" in t else 1 for t in tokens
    ]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": [-float(i) for i in range(len(tokens))],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.eos_token_id": original.eos_token_id,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_space_prefix": style == "prepend",
    }
    tokenizer = converted_tokenizer(tmp_path, metadata, vocab_size=len(tokens))
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == original(text)["input_ids"]
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tokenizer.ggml.model": "bert"}, "tokenizer.ggml.model = 'bert'"),
        ({"tokenizer.ggml.model": "llama"}, "scores"),
        ({"tokenizer.ggml.remove_extra_whitespaces": True}, "remove_extra_whitespaces"),
        ({"tokenizer.ggml.a_key_of_next_year": 1}, "a_key_of_next_year"),
        ({"tokenizer.ggml.eos_token_id": 5000}, "eos_token_id = 5000"),
        ({"tokenizer.ggml.merges": None}, "without tokenizer.ggml.merges"),
        ({"tokenizer.ggml.merges": ["x yz"]}, "merge 'x yz' is not of tokens"),
        ({"tokenizer.ggml.token_type": [1]}, "types of tokens"),
    ],
)
def test_tokenizers_that_cannot_be_built_are_refused(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    path = write_gguf(tmp_path / "m.gguf", tiny_model(), metadata=changes)
    assert named in refusal(path)


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    rows = len(byte_level_tokenizer()) - 10
    path = write_gguf(tmp_path / "m.gguf", tiny_model(vocab_size=rows))
    assert f"and llama.vocab_size = {rows}" in refusal(path)


def test_rows_without_a_token_are_kept(tmp_path: Path) -> None:
    model = tiny_model(vocab_size=len(byte_level_tokenizer()) + 20)
    path = write_gguf(tmp_path / "m.gguf", model)
    assert difference(model, convert_gguf(path)) < 1e-4
    policy = load_model(ModelConfig(threads=1, device="cpu"), path=str(path), trained=True)
    assert policy.masked_ids()[-20:].all()


def test_two_tokens_spelled_alike_are_refused(tmp_path: Path) -> None:
    metadata = byte_level_metadata()
    metadata["tokenizer.ggml.tokens"][7] = metadata["tokenizer.ggml.tokens"][8]
    path = write_gguf(tmp_path / "m.gguf", tiny_model(), tokenizer=metadata)
    assert "spelled like another" in refusal(path)


# ---- files --------------------------------------------------------------------------------------


def test_a_cut_file_is_called_cut(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "m.gguf", tiny_model()).read_bytes()
    path = tmp_path / "cut.gguf"
    for length in (len(whole) - 4000, len(whole) // 2):
        path.write_bytes(whole[:length])
        assert f"is cut: it has {length:,} bytes, its tensors need {len(whole):,}" in refusal(path)
    for length in (4, 10, 400, 6000):
        path.write_bytes(whole[:length])
        assert f"is cut or damaged: its {length:,} bytes end inside the header" in refusal(path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "not a GGUF file"),
        (b"PK\x03\x04 an archive", "not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n", "Git LFS"),
        (b"GGUF\x00\x00\x00\x03" + bytes(16), "version"),  # big-endian
        (b"GGUF\x01\x00\x00\x00" + bytes(16), "version 1"),
        (b"GGUF\x03\x00\x00\x00" + bytes(16), "architecture is ''"),
    ],
)
def test_what_is_no_gguf_file_is_said(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert named in refusal(path)


def test_capital_suffix_and_neighbours(tmp_path: Path) -> None:
    model = tiny_model()
    path = write_gguf(tmp_path / "M.GGUF", model)
    for name in ("config.json", "tokenizer.json", "adapter_config.json", "generation_config.json"):
        (tmp_path / name).write_text("{}")  # none of the file's business
    load_model(ModelConfig(threads=1, device="cpu"), path=str(path), trained=True)
    assert difference(model, convert_gguf(path)) < 1e-4
    assert model_label(str(path)) == model_label("m/M.gguf") == "M"


def test_an_earlier_conversion_is_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "m.gguf", tiny_model())
    with monkeypatch.context() as earlier:
        earlier.setattr(gguf_models, "CONVERSION", gguf_models.CONVERSION - 1)
        old = convert_gguf(path)
    new = convert_gguf(path)
    assert new != old
    assert convert_gguf(path) == new
