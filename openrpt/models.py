"""The policy: a causal language model of transformers, its tokenizer and its head.

Takes a folder, a Hub id or a GGUF file. What is not what its files say, or can't be run as the
stages run it, is refused by name when it is loaded (`model_files`, `model_check`).
"""

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openrpt.attention import NAME as TREE_ATTENTION
from openrpt.config import ModelConfig
from openrpt.cpu import keep_memory, set_threads
from openrpt.errors import UserError, foreign
from openrpt.gguf_models import convert_gguf, is_gguf
from openrpt.logprobs import Head
from openrpt.lora import add_lora
from openrpt.model_check import check_model
from openrpt.model_files import (
    ADAPTER,
    ModelFiles,
    adapter_refusal,
    built_within,
    find_files,
    require_whole,
)
from openrpt.tokens import TokenTable, token_table

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
SOFTCAP_KEYS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
SCALE_KEYS = {"logit_scale": 1, "lm_head_multiplier": 1, "logits_scaling": -1}
"""Keys of a model's config by which its logits are multiplied (1) or divided (-1)."""


@dataclass(kw_only=True, eq=False)
class Policy:
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


def load_policy(config: ModelConfig, *, path: str | None = None, lora: bool = False) -> Policy:
    """Loads a model and its tokenizer; `path` takes the place of config.path.

    Raises UserError for a missing model, a folder without safetensors weights, a tokenizer or
    an architecture that is refused.
    """
    set_threads(config.threads)
    keep_memory()
    policy, files = _load(config, path or config.path, pick_device(config.device))
    check_model(policy, files, generator=config.generator)
    if config.generator == "tree":
        policy.model.set_attn_implementation(TREE_ATTENTION)
    if config.gradient_checkpointing:
        recompute_activations(policy.model)
    if lora and config.lora_rank:
        policy.model = add_lora(policy.model, rank=config.lora_rank, alpha=config.lora_alpha)
    policy.model.eval()  # the sampler and the trainer must compute the same: no dropout, ever
    return policy


def recompute_activations(model: Any) -> None:
    """Lets each layer keep its inputs only, and run again in the backward pass.

    transformers' own switch works in train mode alone, in which many families have dropout of
    their own; here the model stays in eval mode. Raises UserError for a model without such layers.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"model type '{model.config.model_type}' has no layers that can be recomputed; run"
            " without --model.gradient_checkpointing"
        )
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward)


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def pick_device(name: str) -> torch.device:
    if name != "auto":
        try:
            device = torch.device(name)
            torch.zeros(1, device=device).item()  # "meta" takes tensors, but computes nothing
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"model.device = '{name}' is not usable here: {reason}") from None
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")


def resolve_model(name: str) -> str:
    """The folder or Hub id to load: a GGUF file is rebuilt as safetensors once and cached. A
    checkpoint is loaded only as it was written."""
    if name == "smollm2":
        from openrpt.assets import demo_model_gguf

        return str(convert_gguf(demo_model_gguf()))
    from openrpt.checkpoint_record import RECORD, open_checkpoint

    path = Path(name)
    if is_gguf(path):
        return str(convert_gguf(path))
    if path.is_dir():
        if (path / ADAPTER).is_file():
            raise adapter_refusal(name)
        if not (path / "config.json").is_file():
            raise UserError(f"{name}: not a model folder (config.json is missing)")
        if not list(path.glob("*.safetensors")):
            raise UserError(
                f"{name}: a model folder without safetensors weights (pickled weights are never"
                " loaded); convert it with transformers' save_pretrained"
            )
        if (path / RECORD).is_file():
            open_checkpoint(path)
    elif name.startswith((".", "/", "~")) or path.exists():
        raise UserError(f"{name}: no such model folder")
    return name


def _load(config: ModelConfig, name: str, device: torch.device) -> tuple[Policy, ModelFiles]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve_model(name)
    remote = {"trust_remote_code": config.trust_remote_code}
    with foreign(f"model '{name}' can't be loaded"):
        files = find_files(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, **remote)
        with quiet_transformers(), built_within(files):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=DTYPES[config.dtype],
                use_safetensors=True,
                attn_implementation="eager",  # whatever config.json names: code, or no gradients
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # named below
                **remote,
            )
        model, found = loaded
        require_whole(model, found, name)
        model.to(device)
        policy = Policy(model=model, tokenizer=tokenizer, name=name)
        capped = getattr(model.config, "attn_logit_softcapping", None)  # sdpa leaves the cap out
        if model._supports_sdpa and not capped:
            model.set_attn_implementation("sdpa")
        # A model without one of these is refused here.
        policy.table, policy.head, policy.max_length  # noqa: B018
    return policy, files


def load_tokenizer(config: ModelConfig, path: str) -> Any:
    """A model's tokenizer alone. Raises UserError as `load_policy`."""
    from transformers import AutoTokenizer

    folder = resolve_model(path)
    with foreign(f"the tokenizer of model '{path}' can't be loaded"):
        if Path(folder).is_dir():  # else its weights would be downloaded for the tokenizer alone
            find_files(folder)
        remote = {"trust_remote_code": config.trust_remote_code}
        tokenizer = AutoTokenizer.from_pretrained(folder, **remote)
    token_table(tokenizer)  # refused here, as by `load_policy`; its merge dropout is off from here
    return tokenizer


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No weight-loading bars: the stages show their own progress."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def freeze(policy: Policy) -> Policy:
    """A policy that is only read: no gradients, no dropout."""
    policy.model.requires_grad_(False)
    policy.model.eval()
    return policy
