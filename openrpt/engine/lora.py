"""LoRA adapters on all of a model's weight matrices but its embedding and output head."""

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

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
        # Of what peft then sets right itself, and of a name of transformers that it still uses.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing", FutureWarning)
        torch.manual_seed(0)
        what = f"model type '{model.config.model_type}' can't have LoRA adapters"
        with foreign(what, advice="run with --model.lora_rank 0"):
            return get_peft_model(model, config)


def merged(network: Any, weights: Mapping[str, Tensor] | None = None) -> Any:
    """Returns the model inside of peft's wrapper as a plain one, with the adapters added to its
    matrices; the wrapper stays as it is.

    `weights`: all of the wrapper's by name, where it has only parts of them itself; their memory
    becomes the plain model's.
    """
    if weights is None:  # merging in place and back would change the weights by rounding
        return copy.deepcopy(network).merge_and_unload()
    base, settings = network.get_base_model(), network.peft_config[network.active_adapter]
    with torch.device("meta"):
        again = type(base)(copy.deepcopy(base.config))
        again.generation_config = base.generation_config
        again = add_lora(again, rank=settings.r, alpha=settings.lora_alpha)
    again.load_state_dict(weights, assign=True)
    return again.merge_and_unload()


def _stacked_matrices(model: nn.Module) -> list[str]:
    """Returns names of parameters [E, m, n]: the experts of a layer, which are no linear
    modules."""
    return [
        f"{name}.{own}"
        for name, module in model.named_modules()
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 3 and not isinstance(module, nn.Conv1d)
    ]
