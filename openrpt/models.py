"""The policy: a causal language model of transformers, its tokenizer and its head.

Takes any causal LM whose layers attend by softmax: a folder, a Hub id or a GGUF file. What the
document tree can't share is refused by name, and a small self-check compares tree and flat
before a model is trusted.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from openrpt.attention import NAME as TREE_ATTENTION
from openrpt.config import ModelConfig
from openrpt.cpu import keep_memory, set_threads
from openrpt.errors import UserError
from openrpt.gguf_models import convert_gguf, is_gguf
from openrpt.logprobs import Head
from openrpt.tokens import TokenTable, token_table

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}


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
        softcap = self.causal_lm.config.to_dict().get("final_logit_softcapping")
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
        ids, special = self.tokenizer("a")["input_ids"], self.table.special_ids
        first = next(i for i, token in enumerate(ids) if token not in special)
        return tuple(ids[:first])

    @property
    def stop_ids(self) -> frozenset[int]:
        """End-of-turn and end-of-text tokens: generation stops at them."""
        stops = self.causal_lm.generation_config.eos_token_id
        stops = stops if isinstance(stops, list) else [stops]
        return frozenset(i for i in [*stops, self.tokenizer.eos_token_id] if i is not None)

    def masked_ids(self) -> Tensor:
        """[V] True where standard prediction may not go: special tokens and unused rows."""
        vocabulary = self.head.weight.shape[0]
        masked = torch.zeros(vocabulary, dtype=torch.bool)
        masked[list(self.table.special_ids)] = True
        masked[len(self.table.bytes) :] = True
        return masked.to(self.device)

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def load_policy(config: ModelConfig, *, path: str | None = None, lora: bool = False) -> Policy:
    """Loads a model and its tokenizer; `path` takes the place of config.path.

    Raises UserError for a missing model, a folder without safetensors weights, a tokenizer or
    an architecture that is refused.
    """
    set_threads(config.threads)
    keep_memory()
    name = path or config.path
    device = pick_device(config.device)
    folder = resolve_model(name)
    model, tokenizer = _load(folder, config, name)
    model.to(device)
    policy = Policy(model=model, tokenizer=tokenizer, name=name)
    policy.table  # noqa: B018 (a tokenizer without exact bytes is refused here)
    if config.generator == "tree":
        require_tree_support(policy)
        model.set_attn_implementation(TREE_ATTENTION)
    if lora and config.lora_rank:
        policy.model = add_lora(model, rank=config.lora_rank, alpha=config.lora_alpha)
    if config.gradient_checkpointing:
        policy.causal_lm.activation_checkpointing_enable({"use_reentrant": False})
    disable_dropout(policy.model)
    # `train` mode is what switches checkpointing on; dropout is off by probability instead.
    policy.model.train(config.gradient_checkpointing)
    return policy


def pick_device(name: str) -> torch.device:
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
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


def _load(folder: str, config: ModelConfig, name: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    remote = {"trust_remote_code": config.trust_remote_code}
    with _naming(name):
        tokenizer = AutoTokenizer.from_pretrained(folder, **remote)
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=DTYPES[config.dtype], use_safetensors=True, **remote
            )
    return model, tokenizer


def load_tokenizer(config: ModelConfig, path: str) -> Any:
    """A model's tokenizer alone. Raises UserError as `load_policy`."""
    from transformers import AutoTokenizer

    folder = resolve_model(path)
    with _naming(path):
        remote = {"trust_remote_code": config.trust_remote_code}
        tokenizer = AutoTokenizer.from_pretrained(folder, **remote)
    token_table(tokenizer)  # refused here, as by `load_policy`; its merge dropout is off from here
    return tokenizer


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """What transformers can't load is named, on one line."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"model '{name}' can't be loaded: {reason}") from None


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No weight-loading bars: the stages show their own progress."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def require_tree_support(policy: Policy) -> None:
    """Refuses by name what the document tree can't share, then compares tree and flat.

    Raises UserError that names the model type and the way out.
    """
    model = policy.causal_lm
    config = model.config.to_dict()
    kind = config.get("model_type")
    way_out = "run with --model.generator flat"
    kinds = set(config.get("layer_types") or []) - {"full_attention", "sliding_attention"}
    if kinds or model._is_stateful:
        what = ", ".join(sorted(kinds)) or "recurrent state"
        raise UserError(f"model type '{kind}' has layers that can't share ({what}); {way_out}")
    rope = json.dumps(config.get("rope_parameters") or config.get("rope_scaling") or {})
    for name in LENGTH_DEPENDENT_ROPE:
        if f'"{name}"' in rope:
            raise UserError(f"model type '{kind}' scales RoPE with length ({name}); {way_out}")
    if not model._supports_attention_backend:
        raise UserError(f"model type '{kind}' has attention that can't be replaced; {way_out}")
    difference = _tree_difference(policy)
    if not difference < 1e-2:
        raise UserError(
            f"model type '{kind}' gives other results in the tree (log-probabilities differ by"
            f" {difference:.2g}); {way_out}"
        )


@torch.no_grad()
def _tree_difference(policy: Policy) -> float:
    """Largest difference of log-probabilities, tree against the plain model, on a small case."""
    from openrpt.tree import Branch, branch_hidden

    model = policy.causal_lm
    vocabulary = policy.head.weight.shape[0]
    ids = [(7 * i + 3) % min(vocabulary, 97) for i in range(12)]
    prefix, tail, completion = ids[:8], ids[8:10], ids[10:]
    model.set_attn_implementation("eager")
    flat = ids[:5] + tail + completion
    expected = model(torch.tensor([flat], device=policy.device), use_cache=False).logits[0]
    model.set_attn_implementation(TREE_ATTENTION)
    branch = Branch(prefix_length=5, tail_ids=tuple(tail), completions=(tuple(completion),))
    hidden = branch_hidden(policy, prefix, [branch])[0][0]  # [2, d]
    found = policy.head.logits(hidden)
    expected = expected[6:8].to(found.dtype)  # what follows the tail, and the first token
    scale = 1e2 if found.dtype == torch.float32 and model.dtype == torch.bfloat16 else 1.0
    return float((found.log_softmax(-1) - expected.log_softmax(-1)).abs().max()) / scale


def add_lora(model: Any, *, rank: int, alpha: int) -> Any:
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


def disable_dropout(model: nn.Module) -> None:
    """The sampler and the trainer must compute the same thing, so dropout is off."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def freeze(policy: Policy) -> Policy:
    """A policy that is only read: no gradients, no dropout."""
    policy.model.requires_grad_(False)
    policy.model.eval()
    return policy
