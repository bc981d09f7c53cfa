"""The policy: a causal language model of transformers, its tokenizer and its head.

`loading.py` makes one from a folder, a Hub id or a GGUF file.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from openrpt.data.tokens import TokenTable, token_table
from openrpt.engine.head import Head

SOFTCAP_KEYS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
SCALE_KEYS = {"logit_scale": 1, "lm_head_multiplier": 1, "logits_scaling": -1}
"""Keys of a model's config by which its logits are multiplied (1) or divided (-1)."""


@dataclass(kw_only=True, eq=False)
class Model:
    """A model ready for the tree, with what the stages ask of it."""

    model: Any  # PreTrainedModel or PeftModel
    tokenizer: Any
    name: str

    @property
    def causal_lm(self) -> Any:
        """The transformers model itself, inside its LoRA wrapper where there is one."""
        return self.model.get_base_model() if self.is_lora else self.model

    @property
    def is_lora(self) -> bool:
        return type(self.model).__name__.startswith("Peft")

    @property
    def backbone(self) -> nn.Module:
        return self.causal_lm.base_model

    @property
    def head(self) -> Head:
        linear = self.causal_lm.get_output_embeddings()
        caps = (getattr(self.causal_lm.config, key, None) for key in SOFTCAP_KEYS)
        softcap = next(filter(None, caps), None)
        return Head(weight=linear.weight, bias=linear.bias, softcap=softcap)

    @property
    def device(self) -> torch.device:
        return self.causal_lm.device

    @property
    def table(self) -> TokenTable:
        return token_table(self.tokenizer)

    @property
    def max_length(self) -> int:
        """The most tokens a sequence may have; a huge number where the model states none."""
        config = self.causal_lm.config
        name = config.attribute_map.get("max_position_embeddings", "max_position_embeddings")
        return int(config.to_dict().get(name) or 1 << 30)

    @property
    def bos_ids(self) -> tuple[int, ...]:
        """What the tokenizer puts before a text, if anything."""
        encoded = self.tokenizer("a", return_special_tokens_mask=True)  # 1: not the text's own
        return tuple(encoded["input_ids"][: encoded["special_tokens_mask"].index(0)])

    @property
    def stop_ids(self) -> frozenset[int]:
        """End-of-turn and end-of-text tokens: generation stops at them."""
        stops = self.causal_lm.generation_config.eos_token_id
        stops = stops if isinstance(stops, list) else [stops]
        return frozenset(i for i in [*stops, self.tokenizer.eos_token_id] if i is not None)

    def masked_ids(self, delimiter_ids: Collection[int] = ()) -> Tensor:
        """[V] True where standard prediction and the candidates may not go: what text does not
        hold.

        Ids without bytes (special tokens, unused rows, gaps in the vocabulary), and the thought's
        delimiters: where these are ordinary tokens, a model that has learned to think says them on
        plain text too, and would always be wrong there.
        """
        vocabulary = self.head.weight.shape[0]
        masked = torch.ones(vocabulary, dtype=torch.bool)
        masked[[i for i, piece in enumerate(self.table.bytes[:vocabulary]) if piece]] = False
        masked[[i for i in delimiter_ids if i < vocabulary]] = True
        return masked.to(self.device)

    def states(self, **inputs: Any) -> Tensor:
        """[B, n, d]: the backbone's last states, scaled as the model scales its logits."""
        hidden: Tensor = self.backbone(**inputs, use_cache=False).last_hidden_state
        return hidden if self.logit_scale == 1.0 else hidden * self.logit_scale

    @cached_property
    def logit_scale(self) -> float:
        """What the head's products are multiplied by, as far as the config's keys tell; whether
        they tell the truth is checked when the model is loaded."""
        scale = 1.0
        for key, exponent in SCALE_KEYS.items():
            scale *= float(getattr(self.causal_lm.config, key, None) or 1.0) ** exponent
        return scale

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]
