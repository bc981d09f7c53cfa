"""A causal language model of transformers, its tokenizer and its head.

`loading.py` makes one from a folder, a Hub id or a GGUF file. Policy, scorer, reference, start and
baseline are roles that a model has.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from openrpt.config.prompt import PromptConfig
from openrpt.data.prompts import Budget, Layout, build_layout
from openrpt.data.tokens import TokenTable, token_table
from openrpt.engine.head import Head
from openrpt.engine.head_gradient import WaitingRows
from openrpt.engine.precision import RoundedWeights
from openrpt.engine.saved import saved_sparingly
from openrpt.errors import UserError

if TYPE_CHECKING:
    from openrpt.engine.divided import Divided

Weights = Mapping[str, Tensor]
"""Values of parameters, by their names as `Model.network` has them."""
_SOFTCAP_KEYS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Keys of a model's config that give its logits' soft cap."""
_SCALE_KEYS = {"logit_scale": 1, "lm_head_multiplier": 1, "logits_scaling": -1}
"""Keys of a model's config by which its logits are multiplied (1) or divided (-1)."""


@dataclass(kw_only=True, eq=False)
class Model:
    """A model's weights and its tokenizer, with what the stages ask of them. What runs it is an
    engine."""

    network: Any
    """The torch module with the weights: transformers' PreTrainedModel, or peft's PeftModel around
    it."""
    tokenizer: Any
    name: str
    compute_dtype: torch.dtype | None = None
    """Precision of the matrix products where it is not the weights' own: mixed precision."""
    divided: "Divided | None" = None
    """How the weights are divided among processes; None = this process has them whole."""
    waiting: WaitingRows | None = None
    """Rows of the head's gradient that wait for one another (`head_rows_together`)."""

    @property
    def causal_lm(self) -> Any:
        """The transformers model itself, inside its LoRA wrapper where there is one."""
        return self.network.get_base_model() if self.is_lora else self.network

    @property
    def is_lora(self) -> bool:
        """Whether the model is in peft's wrapper."""
        return type(self.network).__name__.startswith("Peft")

    @property
    def backbone(self) -> nn.Module:
        """The model without its head."""
        return self.causal_lm.base_model

    @property
    def layers(self) -> list[Any]:
        """The transformer layers, in their order. Raises UserError for a model that has none that
        can be told."""
        from transformers.modeling_layers import GradientCheckpointingLayer

        found = [m for m in self.network.modules() if isinstance(m, GradientCheckpointingLayer)]
        if not found:
            raise UserError(
                f"model type '{self.causal_lm.config.model_type}' has no layers that can be told;"
                " run without --memory.gradient_checkpointing and --parallel.shard weights"
            )
        return found

    @property
    def head(self) -> Head:
        """The language-model head."""
        linear = self.causal_lm.get_output_embeddings()
        caps = (getattr(self.causal_lm.config, key, None) for key in _SOFTCAP_KEYS)
        softcap = next(filter(None, caps), None)
        rounded = None if self.compute_dtype is None else self._rounded.of(linear.weight)
        return Head(
            weight=linear.weight,
            bias=linear.bias,
            softcap=softcap,
            rounded=rounded,
            waiting=self.waiting,
        )

    @contextmanager
    def head_rows_together(self) -> Iterator[None]:
        """Lets the losses' rows wait for one another: the head's gradient is added to its weight's
        `.grad` in few products, the last behind the context.

        Inside it the gradient of each loss that `text_loss` gives has to be 1.
        """
        weight = self.causal_lm.get_output_embeddings().weight
        if not (weight.requires_grad and weight.is_leaf):
            yield
            return
        self.waiting = WaitingRows(weight=weight)
        try:
            yield
            self.waiting.send()
        finally:
            self.waiting = None

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.causal_lm.device

    @property
    def product_dtype(self) -> torch.dtype:
        """The precision of the matrix products."""
        return self.compute_dtype or self.causal_lm.dtype

    @property
    def table(self) -> TokenTable:
        """The bytes of the tokenizer's tokens."""
        return token_table(self.tokenizer)

    @property
    def max_length(self) -> int:
        """The most tokens a sequence may have; a huge number where the model states none."""
        config = self.causal_lm.config
        name = config.attribute_map.get("max_position_embeddings", "max_position_embeddings")
        return int(config.to_dict().get(name) or 1 << 30)

    @property
    def bos_ids(self) -> tuple[int, ...]:
        """The ids that the tokenizer puts before a text, if any."""
        encoded = self.tokenizer("a", return_special_tokens_mask=True)  # 1: not the text's own
        return tuple(encoded["input_ids"][: encoded["special_tokens_mask"].index(0)])

    @property
    def stop_ids(self) -> frozenset[int]:
        """End-of-turn and end-of-text tokens: generation stops at them."""
        stops = self.causal_lm.generation_config.eos_token_id
        stops = stops if isinstance(stops, list) else [stops]
        return frozenset(i for i in [*stops, self.tokenizer.eos_token_id] if i is not None)

    @property
    def attention(self) -> str:
        """The name by which transformers knows how the layers attend: eager, sdpa, the tree's."""
        return str(self.causal_lm.config._attn_implementation)

    @attention.setter
    def attention(self, name: str) -> None:
        self.causal_lm.set_attn_implementation(name)

    def layout(self, prompt: PromptConfig, *, window: int | None = None) -> Layout:
        """Returns the ids around a prefix, in this model's tokens.

        Raises UserError where a prompt of `window` tokens of text (None = `prompt.window`) and its
        completion do not fit into the model, and as `build_layout`.
        """
        layout = build_layout(self.tokenizer, prompt, self.bos_ids)
        Budget.of(prompt).require_room(layout, prompt, self.max_length, window=window)
        return layout

    def masked_ids(self, delimiter_ids: Collection[int] = ()) -> Tensor:
        """Returns a mask [V], True for ids that standard prediction and the candidates may not be:
        text does not hold them.

        Ids without bytes (special tokens, unused rows, gaps in the vocabulary), and the thought's
        delimiters: where these are ordinary tokens, a model that has learned to think says them on
        plain text too, and would always be wrong there.
        """
        masked = self._without_bytes.clone()
        masked[[i for i in delimiter_ids if i < len(masked)]] = True
        return masked

    @cached_property
    def _without_bytes(self) -> Tensor:
        """A mask [V], True for ids without bytes."""
        vocabulary = self.head.weight.shape[0]
        masked = torch.ones(vocabulary, dtype=torch.bool)
        masked[[i for i, piece in enumerate(self.table.bytes[:vocabulary]) if piece]] = False
        return masked.to(self.device)

    def states(self, **inputs: Any) -> Tensor:
        """Returns the backbone's last states [B, n, d], scaled as the model scales its logits."""
        hidden: Tensor = self._run(inputs).last_hidden_state
        return self._scaled(hidden)

    def layer_states(self, layers: Sequence[int], **inputs: Any) -> list[Tensor]:
        """Returns the states [B, n, d] of each of the layers: 0 = the embeddings, the last one or
        -1 = as `states` gives it."""
        if set(layers) == {-1}:
            return [self.states(**inputs)] * len(layers)
        output = self._run(inputs | {"output_hidden_states": True})
        hidden = list(output.hidden_states)
        hidden[-1] = self._scaled(output.last_hidden_state)
        return [hidden[layer] for layer in layers]

    def backward(
        self, roots: Sequence[Tensor], gradients: Sequence[Tensor | None] | None = None
    ) -> None:
        """Goes back through one pass of the backbone, which the roots come from; `gradients`: the
        roots', None for a loss."""
        if self.divided is None:
            torch.autograd.backward(roots, gradients)
        else:
            self.divided.backward(roots, gradients or [None] * len(roots))

    def reading(self) -> AbstractContextManager[None]:
        """Encloses passes without a gradient, as many as each process likes: divided weights are
        gathered for them, and all processes come to the beginning together."""
        return nullcontext() if self.divided is None else self.divided.reading()

    def _run(self, inputs: dict[str, Any]) -> Any:
        with saved_sparingly() if torch.is_grad_enabled() else nullcontext():
            return self._output(inputs | {"use_cache": False})

    def _output(self, inputs: dict[str, Any]) -> Any:
        if self.divided is not None:
            return self.divided.forward(inputs)
        if self.compute_dtype is None:
            return self.backbone(**inputs)
        with self.autocast():
            return self._rounded.run(self.backbone, inputs)

    def autocast(self) -> torch.autocast:
        """Returns the context in which the model itself computes as `states` does."""
        mixed = self.compute_dtype is not None
        return torch.autocast(self.device.type, self.compute_dtype, enabled=mixed)

    @cached_property
    def _rounded(self) -> RoundedWeights:
        assert self.compute_dtype is not None
        return RoundedWeights(dtype=self.compute_dtype)

    def forget_rounded(self) -> None:
        """Frees the copies of the weights in the precision of the products."""
        vars(self).pop("_rounded", None)

    def _scaled(self, hidden: Tensor) -> Tensor:
        return hidden if self.logit_scale == 1.0 else hidden * self.logit_scale

    @cached_property
    def logit_scale(self) -> float:
        """Factor of the head's products, as far as the config's keys tell; whether they tell the
        truth is checked when the model is loaded."""
        scale = 1.0
        for key, exponent in _SCALE_KEYS.items():
            scale *= float(getattr(self.causal_lm.config, key, None) or 1.0) ** exponent
        return scale

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        """Copies weights over the model's own, in place; what is not named stays.

        Raises ValueError, and changes nothing, for a parameter of another name or shape.
        """
        own = dict(self.network.named_parameters())
        for name, values in weights.items():
            if name not in own:
                raise ValueError(f"model '{self.name}' has no parameter {name}")
            if own[name].shape != values.shape:
                shapes = f"{list(own[name].shape)}, not {list(values.shape)}"
                raise ValueError(f"model '{self.name}': {name} has the shape {shapes}")
        for name, values in weights.items():
            own[name].copy_(values)

    def parameters(self) -> list[nn.Parameter]:
        """Returns the parameters that are trained."""
        return list(self.trained().values())

    @property
    def weights_hash(self) -> str:
        """A hash of the trained weights: of each parameter the sum of its bytes, which every device
        finds at its own speed. Of divided ones, as they were when they were divided."""
        if self.divided is not None:
            return self.divided.hash_before
        sums = [
            int(p.detach().contiguous().view(torch.uint8).sum(dtype=torch.int64))
            for p in self.parameters()
        ]
        return hashlib.sha256(repr(sums).encode()).hexdigest()

    def own_values(self) -> dict[str, Tensor]:
        """Returns what this process has of the trained parameters, by name: all where they are not
        divided."""
        trained = {name: p.detach() for name, p in self.trained().items()}
        return trained if self.divided is None else self.divided.own_parts(trained)

    def trained(self) -> dict[str, nn.Parameter]:
        """Returns the parameters that are trained, by name."""
        return {n: p for n, p in self.network.named_parameters() if p.requires_grad}
