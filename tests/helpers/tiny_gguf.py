"""Tiny GGUF files, written as llama.cpp's converter lays them out."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers as tf

from tests.helpers.tiny import byte_level_tokenizer

MODEL_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NORMAL, CONTROL = 1, 3


def tiny_model(family: str = "llama", **options: Any) -> Any:
    """A random model whose vocabulary is that of `byte_level_tokenizer`."""
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10000.0} | options.pop("rope", {})
    config = tf.AutoConfig.for_model(
        family,
        **{
            "vocab_size": len(byte_level_tokenizer()),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 512,
            "initializer_range": 0.3,
            "bos_token_id": None,
            "rope_parameters": rope,
        }
        | options,
    )
    model = tf.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # all ones and zeros as they are made, which would hide a mix-up
        for name, parameter in model.named_parameters():
            if name.endswith(("norm.weight", "bias")):
                parameter.normal_(1.0, 0.3)
    return model


def write_gguf(
    path: Path,
    model: Any,
    *,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    drop: Callable[[str], bool] = lambda name: False,
    tokenizer: Mapping[str, Any] | None = None,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
) -> Path:
    """The model as a GGUF file. `metadata` and `tensors` come on top, None takes a key away;
    `drop` says which keys and tensors are left out; `kind` is how matrices are stored."""
    config, arch = model.config, model.config.model_type
    writer = gguf.GGUFWriter(path, arch)
    values = {
        f"{arch}.context_length": config.max_position_embeddings,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.block_count": config.num_hidden_layers,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.attention.head_count": config.num_attention_heads,
        f"{arch}.attention.head_count_kv": config.num_key_value_heads,
        f"{arch}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{arch}.rope.freq_base": float(config.rope_parameters["rope_theta"]),
        f"{arch}.vocab_size": config.vocab_size,
    }
    if config.head_dim != config.hidden_size // config.num_attention_heads or arch == "qwen3":
        values[f"{arch}.attention.key_length"] = config.head_dim
        values[f"{arch}.attention.value_length"] = config.head_dim
    if arch == "llama":
        values[f"{arch}.rope.dimension_count"] = config.head_dim
    own = tokenizer or byte_level_metadata()
    for key, value in (values | dict(own) | dict(metadata or {})).items():
        if value is not None and not drop(key):
            _add(writer, key, value)
    stored = {}
    for name, parameter in model.named_parameters():
        array = parameter.detach().float().numpy()
        stored[_stored_name(name)] = _paired(name, array, config) if arch == "llama" else array
    for name, array in (stored | dict(tensors or {})).items():
        if drop(name):
            continue
        if array.ndim > 1:
            array = gguf.quantize(np.ascontiguousarray(array), kind)
            writer.add_tensor(name, array, raw_dtype=kind)
        else:
            writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def byte_level_metadata(tokenizer: Any = None, *, pre: str = "llama-bpe") -> dict[str, Any]:
    """What a file says of a byte-level tokenizer, which adds nothing before a text."""
    tokenizer = tokenizer or byte_level_tokenizer()
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    special = {token["content"] for token in spec["added_tokens"]}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if t in special else NORMAL for t in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in spec["model"]["merges"]],
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.bos_token_id": tokenizer.convert_tokens_to_ids("<|im_start|>"),
        "tokenizer.ggml.add_bos_token": False,
    }


def rope_divisors(model: Any) -> dict[str, np.ndarray]:
    """The tensor of a model with Llama 3's RoPE: how much slower each dimension turns."""
    base, head_dim = model.config.rope_parameters["rope_theta"], model.config.head_dim
    plain = base ** (-np.arange(0, head_dim, 2) / head_dim)
    scaled = model.model.rotary_emb.inv_freq.double().numpy()
    return {"rope_freqs.weight": (plain / scaled).astype(np.float32)}


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case str():
            writer.add_string(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case _:
            writer.add_array(key, value)


def _stored_name(name: str) -> str:
    module, _, end = name.rpartition(".")
    if module in MODEL_NAMES:
        return f"{MODEL_NAMES[module]}.{end}"
    _, _, layer, inside = module.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[inside]}.{end}"


def _paired(name: str, array: np.ndarray, config: Any) -> np.ndarray:
    """Each head's rotary dimensions in pairs (0, 8), (1, 9), …, as llama.cpp wants them."""
    if not any(f".{projection}_proj." in name for projection in "qk"):
        return array
    heads = array.reshape(-1, config.head_dim, *array.shape[1:])
    order = np.arange(config.head_dim).reshape(2, -1).T.reshape(-1)
    return heads[:, order].reshape(array.shape)
