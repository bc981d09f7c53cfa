"""Models in GGUF files, rebuilt once as plain safetensors folders."""

import contextlib
import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from openrpt.assets import cache_dir
from openrpt.errors import UserError
from openrpt.files import replacing_folder


def is_gguf(path: Path) -> bool:
    return path.suffix.lower() == ".gguf"


def convert_gguf(path: Path) -> Path:
    """A GGUF file as a plain safetensors folder in the cache (loading GGUF takes 20 s).

    transformers dequantizes exactly, but the result still believes itself quantized and can
    neither be trained nor saved; so it is rebuilt from its config without the quantization.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from openrpt.models import quiet_transformers

    if not path.is_file():
        raise UserError(f"{path}: no such GGUF file")
    stat = path.stat()
    mark = hashlib.sha256(f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}".encode())
    target = cache_dir() / "models" / f"{path.stem}-{mark.hexdigest()[:12]}"
    if (target / "config.json").is_file():
        return target
    source: dict[str, Any] = {"gguf_file": path.name}
    try:
        with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
            quantized = AutoModelForCausalLM.from_pretrained(
                path.parent, dtype=torch.float32, **source
            )
            tokenizer = AutoTokenizer.from_pretrained(path.parent, **source)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: this GGUF file can't be loaded: {reason}") from None
    values = {k: v for k, v in quantized.config.to_dict().items() if k != "quantization_config"}
    config = AutoConfig.for_model(**values)
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(quantized.state_dict())
    model.tie_weights()
    model.generation_config = quantized.generation_config
    with replacing_folder(target, shared=True) as partial:
        with quiet_transformers():
            model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    return target
