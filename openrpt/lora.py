"""LoRA adapters on all of a model's linear layers but its output head."""

from typing import Any

import torch

from openrpt.errors import UserError


def add_lora(model: Any, *, rank: int, alpha: int) -> Any:
    """The model in peft's wrapper; its own weights are frozen. Raises UserError without peft."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise UserError(
            'model.lora_rank needs peft; install it with: pip install "openrpt[lora]"'
        ) from None
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        bias="none",
    )
    with torch.random.fork_rng():  # adapters begin alike, whatever was drawn before: for resuming
        torch.manual_seed(0)
        return get_peft_model(model, config)
