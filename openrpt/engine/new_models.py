"""Models from scratch: `new:llama?layers=2&width=128` in the place of a path.

Such a model is made once and kept in the cache as a plain Hugging Face folder, under a hash of its
parameters. Its tokenizer knows every byte, and each marker of the thought and of the box as one
token.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, model_validator

from openrpt.config.queries import Parameters, read_parameters, split_query
from openrpt.config.sections import PromptConfig
from openrpt.data.assets import cache_dir
from openrpt.data.tokens import BYTE_OF
from openrpt.engine.loading import quiet_transformers
from openrpt.errors import UserError, nearest
from openrpt.files import replacing_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IS_NEW = "new:"
FAMILIES = ("llama", "qwen3", "olmo2")
_END = "<|end|>"
_FORMAT = 1
"""The version of the files, raised whenever the same parameters would give another model."""


class _NewModel(Parameters):
    """The parameters of a model from scratch."""

    layers: int = Field(2, ge=1, le=1000)
    width: int = Field(64, ge=2, le=65_536)
    """The size of the hidden states."""
    heads: int = Field(4, ge=1, le=1024)
    mlp: float = Field(3.0, gt=0, le=64)
    """The width of the feed-forward layers, as a multiple of `width`."""
    context: int = Field(512, ge=8, le=1_000_000)
    """The most tokens of a sequence."""
    seed: int = Field(0, ge=0, le=2**63 - 1)
    """The seed of the random weights."""

    @model_validator(mode="after")
    def _heads_are_even(self) -> "_NewModel":
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width = {self.width} must be a multiple of 2 · heads = {2 * self.heads}: rotary"
                " embeddings turn pairs of numbers"
            )
        return self


def new_model(name: str) -> Path:
    """Returns the folder of the model that a name such as `new:llama?layers=2` describes.

    Raises UserError for an unknown family or parameter (the nearest is named) and a bad value.
    """
    head, values = split_query(name)
    family = head.removeprefix(IS_NEW)
    if family not in FAMILIES:
        hint = nearest(family, FAMILIES, otherwise=f"there are: {', '.join(FAMILIES)}")
        raise UserError(f"{name}: no family '{family}' to begin with{hint}")
    settings = read_parameters(_NewModel, values, where=name)
    spec = json.dumps([_FORMAT, family, settings.model_dump()], sort_keys=True)
    digest = hashlib.sha256(spec.encode()).hexdigest()
    target = cache_dir() / "models" / f"new-{family}-{digest[:12]}"
    if not (target / "config.json").is_file():
        with replacing_folder(target, shared=True) as partial:
            _write(family, settings, partial)
    return target


def _write(family: str, settings: _NewModel, folder: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = byte_tokenizer()
    config: Any = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=max(1, round(settings.mlp * settings.width)),
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        head_dim=settings.width // settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        pad_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def byte_tokenizer() -> "PreTrainedTokenizerFast":
    """Returns a tokenizer with a token for each byte, the markers of `[prompt]`, and an end of
    text.

    The markers are ordinary tokens: a text that spells one has it, as texts with worked thoughts
    do.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(vocab=BYTE_OF, merges=[]))  # a byte's id is its number
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    prompt = PromptConfig()
    backend.add_special_tokens([AddedToken(_END, normalized=False, special=True)])
    markers = (prompt.thought_start, prompt.thought_end, prompt.answer_start)
    backend.add_tokens([AddedToken(marker, normalized=False) for marker in markers])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=_END)
