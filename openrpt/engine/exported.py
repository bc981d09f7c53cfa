"""A model as another program takes it: its weights by the names of a checkpoint, and its config.

A head that shares its weights with the embeddings has its own here. vLLM's CPU build packs a head's
weights when it loads them, and never again where they are the embeddings': a shared head would stay
as it was when the others change.
"""

import copy
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict

from openrpt.engine.model import Model, Weights


def checkpoint_weights(model: Model) -> Weights:
    """Returns all weights by the names that a checkpoint of the model has, LoRA's adapters merged
    into what they sit on, the head's own among them. They are the model's own tensors where nothing
    is merged."""
    from transformers.core_model_loading import revert_weight_conversion

    whole = model.network
    if model.is_lora:  # merging in place and back would change the weights by rounding
        whole = copy.deepcopy(whole).merge_and_unload()
    tensors = {name: tensor.detach() for name, tensor in whole.state_dict().items()}
    weights: Weights = revert_weight_conversion(whole, tensors)
    return weights


def write_config(model: Model, folder: Path) -> None:
    """Writes the `config.json` of a model whose head has weights of its own."""
    config = copy.deepcopy(model.causal_lm.config)
    config.architectures = [type(model.causal_lm).__name__]
    config.tie_word_embeddings = False
    config.save_pretrained(folder)


def write_weights(weights: Weights, folder: Path, dtype: torch.dtype) -> None:
    """Writes weights as safetensors, by the names that they are given under."""
    copies = {n: t.to("cpu", dtype, copy=True) for n, t in weights.items()}  # shared ones apart
    save_torch_state_dict(copies, folder)
