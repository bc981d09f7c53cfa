"""The memory that a stage takes, about, in bytes: by shapes and lengths alone."""

from collections.abc import Sequence

import torch
from torch import nn

from openrpt.config.model import MemoryConfig
from openrpt.costs.flops import matrices_of, model_shape
from openrpt.engine.branches import Branch
from openrpt.engine.head import CHUNK_ELEMENTS
from openrpt.engine.model import Model

LIBRARIES = 0.6e9
"""Bytes that Python, torch and transformers take by themselves."""


def weight_bytes(model: nn.Module) -> float:
    """Returns the bytes of a model's weights."""
    return float(sum(p.numel() * p.element_size() for p in model.parameters()))


def state_bytes(policy: Model, *, copies: int, trained: bool) -> float:
    """Returns the bytes of the weights (and frozen copies of them), rounded ones included; where
    trained, of gradients and AdamW's two moments, too."""
    weights = weight_bytes(policy.network)
    if policy.product_dtype != policy.causal_lm.dtype:
        weights *= 1 + policy.product_dtype.itemsize / policy.causal_lm.dtype.itemsize
    own = float(sum(p.numel() * p.element_size() for p in policy.parameters())) if trained else 0.0
    return (1 + copies) * weights + 3 * own


def passed_bytes(
    policy: Model, memory: MemoryConfig, branches: Sequence[Branch], *, rollouts: int, trained: bool
) -> float:
    """Returns the bytes beside the model on a window's branches, with a completion each.

    The greater of generation's keys and values, for `rollouts` at once, and of the update's
    activations (the inputs and outputs of every matrix, and three copies of the attention's
    weights), with logits a chunk at a time.
    """
    shape, settings = model_shape(policy), policy.causal_lm.config
    element = policy.causal_lm.dtype.itemsize
    prefix, tail = branches[-1].prefix_length, len(branches[0].tail_ids)
    own = len(branches[0].completions[0])
    heads = settings.num_attention_heads
    kv_heads = settings.to_dict().get("num_key_value_heads") or heads
    kv_width = 2 * kv_heads * (shape.attention_width // heads) * shape.layers
    keys = policy.product_dtype.itemsize * kv_width * (prefix + rollouts * (tail + own))
    logits = 3.0 * CHUNK_ELEMENTS * max(element, torch.float32.itemsize)
    if not trained:
        return keys + logits
    per_token = float(sum(sum(matrix.shape) for matrix in matrices_of(policy)))
    if memory.gradient_checkpointing:
        hidden = policy.head.weight.shape[1]
        per_token = 2 * per_token / shape.layers + shape.layers * hidden
    inside = len(branches) * tail + memory.microbatch_tokens
    scores = 3.0 * heads * (prefix + tail + own)
    scores *= 1 if memory.gradient_checkpointing else shape.layers
    return max(keys, element * (per_token * (prefix + inside) + scores * inside)) + logits
