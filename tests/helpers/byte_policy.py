"""A tiny policy of any family whose vocabulary is a byte-level tokenizer's."""

import torch

from openrpt.engine.model import Model
from tests.helpers.families import tiny_policy
from tests.helpers.tiny import byte_level_tokenizer


def policy_of(family: str = "llama", *, stop: int | None = None, dtype=torch.float64) -> Model:
    """A tiny policy whose vocabulary is a tokenizer's, and which stops at `stop`."""
    tokenizer = byte_level_tokenizer()
    policy = tiny_policy(family, dtype)
    torch.manual_seed(1)
    policy.network.resize_token_embeddings(len(tokenizer) + 3, mean_resizing=False)
    policy.tokenizer = tokenizer
    policy.network.generation_config.eos_token_id = stop
    policy.network.generation_config.pad_token_id = 0
    return policy
