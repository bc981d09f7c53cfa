"""Tiny random models of the families that the tree must take, as the tests use them."""

import torch
import transformers as tf

from openrpt.engine.model import Model
from openrpt.engine.tree.attention import NAME

COMMON = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,  # large, so that attention is far from uniform
}


def _gemma3():
    config = tf.Gemma3TextConfig(
        **COMMON,
        head_dim=8,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        query_pre_attn_scalar=8,
    )
    return tf.Gemma3ForCausalLM(config)


def _gemma2():
    config = tf.Gemma2Config(
        **COMMON, head_dim=8, sliding_window=6, query_pre_attn_scalar=8, attn_logit_softcapping=5.0
    )
    return tf.Gemma2ForCausalLM(config)


def _gpt2():
    config = tf.GPT2Config(
        vocab_size=97, n_embd=32, n_layer=3, n_head=4, n_positions=256, initializer_range=0.3
    )
    return tf.GPT2LMHeadModel(config)


def _gpt_neox():
    values = {k: v for k, v in COMMON.items() if k != "num_key_value_heads"}
    return tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**values))


FAMILIES = {
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**COMMON, tie_word_embeddings=True)),
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**COMMON)),
    "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**COMMON, head_dim=8)),
    "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**COMMON, sliding_window=6)),
    "gemma3": _gemma3,
    "gemma2": _gemma2,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "phi3": lambda: tf.Phi3ForCausalLM(tf.Phi3Config(**COMMON, pad_token_id=0)),
    "olmo2": lambda: tf.Olmo2ForCausalLM(tf.Olmo2Config(**COMMON)),
}


def tiny_policy(family: str = "llama", dtype: torch.dtype = torch.float64, seed: int = 0) -> Model:
    """A policy without a tokenizer: for what works on ids alone."""
    torch.manual_seed(seed)
    model = FAMILIES[family]().to(dtype)
    model.set_attn_implementation(NAME)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if type(module).__name__.endswith("RMSNorm") and dtype == torch.float64:
            _keep_float64(module, offset=family.startswith("gemma"))
        if type(module).__name__.endswith("RotaryEmbedding"):
            _look_up(module)
    return Model(network=model.eval(), tokenizer=None, name=family)


def _keep_float64(norm: torch.nn.Module, *, offset: bool) -> None:
    """transformers' RMSNorm goes through float32, whose rounding (1e-7 in gradients) would hide
    what the float64 comparisons look for; both sides of a comparison run the same model."""
    epsilon = norm.eps if offset else norm.variance_epsilon

    def forward(x: torch.Tensor) -> torch.Tensor:
        scaled = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)
        return scaled * (1.0 + norm.weight if offset else norm.weight)

    norm.forward = forward


def _look_up(rotary: torch.nn.Module) -> None:
    """transformers computes cosines in float32, where the same angle gives another last bit in
    another lane of a vector instruction; here a position's are the same in every batch."""
    forward, count = rotary.forward, COMMON["max_position_embeddings"]

    def looked_up(x: torch.Tensor, position_ids: torch.Tensor, *args, **kwargs):
        positions = torch.arange(count, device=x.device)[None]
        cos, sin = forward(x[:1], positions, *args, **kwargs)
        return cos[0][position_ids], sin[0][position_ids]

    rotary.forward = looked_up
