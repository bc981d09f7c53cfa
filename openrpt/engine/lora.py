"""LoRA adapters on all of a model's weight matrices but its embedding and output head."""

import warnings
from typing import Any

import torch
from torch import nn

from openrpt.errors import foreign
from openrpt.extras import missing


def add_lora(model: Any, *, rank: int, alpha: int) -> Any:
    """Puts the model into peft's wrapper; its own weights are frozen."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise missing("peft", extra="lora", what="model.lora_rank") from None
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        target_parameters=_stacked_matrices(model) or None,
        bias="none",
    )
    # Adapters begin alike, whatever was drawn before: for resuming.
    with torch.random.fork_rng(), warnings.catch_warnings():
        # peft doubles the rank of fused experts' gate and up projection, and then says it didn't.
        warnings.filterwarnings("ignore", ".*_pattern keys did not match any targeted module")
        torch.manual_seed(0)
        what = f"model type '{model.config.model_type}' can't have LoRA adapters"
        with foreign(what, advice="run with --model.lora_rank 0"):
            return get_peft_model(model, config)


def _stacked_matrices(model: nn.Module) -> list[str]:
    """Returns names of parameters [E, m, n]: the experts of a layer, which are no linear
    modules."""
    return [
        f"{name}.{own}"
        for name, module in model.named_modules()
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 3 and not isinstance(module, nn.Conv1d)
    ]
