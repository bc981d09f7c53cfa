"""Models in GGUF files, rebuilt once as plain safetensors folders.

Nothing is carried over by half: every key of the architecture and every tensor of the file is
taken, is known to change nothing, or is refused by name.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrpt.data.assets import cache_dir
from openrpt.engine.gguf_file import GgufFile, read_gguf
from openrpt.engine.gguf_rope import DIVISORS, Rope, read_rope, require_same_rope
from openrpt.engine.gguf_rope import KEYS as ROPE_KEYS
from openrpt.errors import UserError, few, foreign
from openrpt.files import replacing_folder
from openrpt.hashes import file_stamp
from openrpt.terminal import say

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig


CONVERSION = 2
"""Rises whenever the same file gives another folder, so that no earlier one is used."""
_ATTRIBUTES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
"""Keys that every file must have, and the config's names for them."""
_HEAD = "output.weight"
"""The head's tensor; a file without it uses the embedding."""
_HEAD_KEYS = ("attention.key_length", "attention.value_length")
_NEUTRAL: Mapping[str, Any] = {
    "attention.causal": True,
    "attention.scale": 0.0,
    "attention.sliding_window": 0,
    "embedding_scale": 1.0,
    "expert_count": 0,
    "expert_used_count": 0,
    "logit_scale": 1.0,
    "pooling_type": 0,
    "residual_scale": 1.0,
}
"""Further keys, each with the one value that changes no number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Architecture:
    """An architecture whose converted models are compared with the originals in the tests."""

    model_type: str
    causal_lm: str
    """transformers' class, which other programs look for in the config."""
    interleaved: bool = False
    """Whether queries and keys have their rotary dimensions in pairs, not in halves as in
    transformers."""


_ARCHITECTURES = {
    "llama": _Architecture(model_type="llama", causal_lm="LlamaForCausalLM", interleaved=True),
    "qwen2": _Architecture(model_type="qwen2", causal_lm="Qwen2ForCausalLM"),
    "qwen3": _Architecture(model_type="qwen3", causal_lm="Qwen3ForCausalLM"),
}


def is_gguf(path: Path) -> bool:
    """Returns whether a path is that of a GGUF file, by its ending."""
    return path.suffix.lower() == ".gguf"


def convert_gguf(path: Path) -> Path:
    """Rebuilds a GGUF file as a plain safetensors folder in the cache, in float32; returns the
    folder.

    Raises UserError for a file that is missing, cut or damaged, and for whatever it says that the
    folder could not say.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such GGUF file")
    mark = f"{CONVERSION}:{path.resolve()}:{file_stamp(path)}"
    digest = hashlib.sha256(mark.encode()).hexdigest()
    target = cache_dir() / "models" / f"{path.stem}-{digest[:12]}"
    if not (target / "config.json").is_file():
        say(f"rebuild {path.name} as safetensors, once, in {target} …", err=True)
        _convert(read_gguf(path), target)
    return target


def _convert(file: GgufFile, target: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    from transformers import GenerationConfig

    from openrpt.engine.gguf_tokenizer import read_tokenizer

    architecture = _architecture(file)
    with foreign(f"{file.path}: this GGUF file can't be loaded"):
        config, rope = _read_config(file, architecture)
        tokenizer = read_tokenizer(file)
        weights = _read_weights(file, architecture, config)
    with replacing_folder(target, shared=True) as partial:
        config.save_pretrained(partial)
        GenerationConfig.from_model_config(config).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        try:
            save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
        except SafetensorError as error:  # its way of reporting a full disk
            raise OSError(str(error)) from error
        del weights
        _require_same(file, rope, partial)


def _architecture(file: GgufFile) -> _Architecture:
    if int(file.metadata.get("split.count", 1)) > 1:
        raise file.refusal(f"it is one of {file.metadata['split.count']} parts of a model")
    architecture = _ARCHITECTURES.get(file.architecture)
    if architecture is None:
        known = ", ".join(_ARCHITECTURES)
        raise file.refusal(f"its architecture is '{file.architecture}' (known: {known})")
    return architecture


def _read_config(file: GgufFile, architecture: _Architecture) -> "tuple[PreTrainedConfig, Rope]":
    from transformers import AutoConfig

    said, name = file.hyperparameters, file.architecture
    known = {*_ATTRIBUTES, *_HEAD_KEYS, *ROPE_KEYS, "vocab_size"}
    for key, value in said.items():
        if isinstance(value, list) or (key not in known and _NEUTRAL.get(key) != value):
            raise file.refusal(f"it says {name}.{key} = {str(value)[:40]}")
    for key in _ATTRIBUTES:
        if not said.get(key):
            raise file.damage(f"it does not say {name}.{key}")
    if said["block_count"] > len(file.tensors):
        raise file.damage(f"it has {said['block_count']} blocks and {len(file.tensors)} tensors")
    head_dim = said["embedding_length"] // said["attention.head_count"]
    head_dim = said.get("attention.key_length", head_dim)
    values_dim = said.get("attention.value_length", head_dim)
    if values_dim != head_dim:
        raise file.refusal(f"it says {name}.attention.value_length = {values_dim}, not {head_dim}")
    largest = max(max(tensor.shape, default=0) for tensor in file.tensors.values())
    if head_dim > largest:
        raise file.damage(f"its heads have {head_dim} dimensions, its tensors {largest} at most")
    rope = read_rope(file, head_dim=head_dim)
    tokens = len(file.metadata.get("tokenizer.ggml.tokens", []))
    vocab_size = said.get("vocab_size", tokens)
    if tokens > vocab_size:
        raise file.damage(f"it has {tokens} tokens and {name}.vocab_size = {vocab_size}")
    config = AutoConfig.for_model(
        architecture.model_type,
        **{attribute: said[key] for key, attribute in _ATTRIBUTES.items()},
        head_dim=head_dim,
        vocab_size=vocab_size,
        rope_parameters=rope.parameters,
        tie_word_embeddings=_HEAD not in file.tensors,
        bos_token_id=file.metadata.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=file.metadata.get("tokenizer.ggml.eos_token_id"),
        pad_token_id=file.metadata.get("tokenizer.ggml.padding_token_id"),
        architectures=[architecture.causal_lm],
        dtype="float32",
    )
    return config, rope


def _read_weights(
    file: GgufFile, architecture: _Architecture, config: "PreTrainedConfig"
) -> "dict[str, Tensor]":
    """Returns the parameters by transformers' names.

    Raises UserError, which names them, where the file has tensors too few, too many, of another
    shape, or with numbers that are not finite.
    """
    import torch

    stored = _tensor_names(file, config)
    weights = {}
    for name, (found, shape) in stored.items():
        own = file.tensors[found].shape
        if own != shape:
            raise file.damage(f"its tensor {found} has {list(own)} numbers, not {list(shape)}")
        values = torch.from_numpy(file.values(found)).float()
        if not values.isfinite().all():
            raise file.damage(f"its tensor {found} has NaN or infinity")
        if architecture.interleaved and found.split(".")[-2] in ("attn_q", "attn_k"):
            values = _halves(values, config.head_dim)
        weights[name] = values.contiguous()
    return weights


def _tensor_names(
    file: GgufFile, config: "PreTrainedConfig"
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns parameter → its name in the file, its shape. Raises UserError where the two don't
    match."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[file.architecture], config.num_hidden_layers)
    # A tied head is the embedding itself, which named_parameters gives once.
    stored = {
        name: (str(names.get_name(name, try_suffixes=(".weight", ".bias"))), tuple(values.shape))
        for name, values in model.named_parameters()
    }
    wanted = dict.fromkeys(found for found, _ in stored.values())
    if missing := [found for found in wanted if found not in file.tensors]:
        raise file.damage(f"tensors are missing: {few(missing)}")
    if extra := [found for found in file.tensors if found not in wanted and found != DIVISORS]:
        raise file.refusal(f"it has tensors unknown to {config.model_type}: {few(extra)}")
    return stored


def _halves(rows: "Tensor", head_dim: int) -> "Tensor":
    """Returns each head's rows, [heads * D, …], from pairs of rotary dimensions to two halves."""
    pairs = rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)


def _require_same(file: GgufFile, rope: Rope, folder: Path) -> None:
    """Loads the folder as any stage will and compares it with what the file says."""
    from transformers import AutoModelForCausalLM

    from openrpt.engine.loading import quiet_transformers

    with quiet_transformers():
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    model, report = loaded
    if report["missing_keys"] or report["unexpected_keys"]:
        raise AssertionError(f"{folder}: not what transformers loads: {report}")
    require_same_rope(file, rope, model)
