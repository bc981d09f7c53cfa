"""Loading a model and its tokenizer: a folder, a Hub id, a GGUF file, or one from scratch.

What is not what its files say, or can't be run as the stages run it, is refused by name
(`files.py`, `check.py`). Nothing of the process is set here: that is the command's.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from openrpt.config.engine import Trainer
from openrpt.config.model import ModelConfig
from openrpt.config.sections import Config
from openrpt.data.tokens import token_table
from openrpt.engine.check import check_model
from openrpt.engine.files import (
    ADAPTER,
    ModelFiles,
    adapter_refusal,
    built_within,
    find_files,
    require_whole,
)
from openrpt.engine.gguf_models import convert_gguf, is_gguf
from openrpt.engine.lora import add_lora
from openrpt.engine.model import Model
from openrpt.errors import UserError, foreign

_HUB_SECONDS = 10.0
"""Seconds that the Hub has to say whether it has a model."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def load_model(
    config: ModelConfig,
    *,
    path: str | None = None,
    trained: bool = False,
    recompute: bool = False,
    trainer: Trainer = "tree",
) -> Model:
    """Loads a model and its tokenizer, and checks them; `path` takes the place of config.path.

    `trained`: with gradients, and with LoRA adapters where the configuration asks for them.
    `recompute`: the backward pass runs each layer again (`memory.gradient_checkpointing`).
    `trainer`: the engine that is to run it, which the checks are for. Raises UserError for a
    missing model, a folder without safetensors weights, a tokenizer or an architecture that is
    refused.
    """
    model, files = _load(config, path or config.path, pick_device(config.device))
    check_model(model, files, trainer=trainer)
    if recompute:
        _recompute_activations(model)
    if not trained:
        return freeze(model)
    if config.lora_rank:
        model.network = add_lora(model.network, rank=config.lora_rank, alpha=config.lora_alpha)
    model.network.eval()  # the sampler and the trainer must compute the same: no dropout, ever
    return model


def _recompute_activations(model: Model) -> None:
    """Lets each layer keep its inputs only, and run again in the backward pass.

    transformers' own switch works in train mode alone, in which many families have dropout of
    their own; here the model stays in eval mode. Raises UserError for a model without such layers.
    """
    for layer in model.layers:
        layer.forward = partial(_recomputed, layer.forward)


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def pick_device(name: str) -> torch.device:
    """Returns the device of that name; "auto" is a CUDA GPU if there is one, else the CPU. Raises
    UserError for one that is not usable here."""
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
    """Returns the folder or Hub id to load: a GGUF file is rebuilt as safetensors once and cached,
    a model from scratch (`new:`) made once. A checkpoint is loaded only as it was written.

    Raises UserError for what is no model, within seconds: a Hub id that isn't in the cache is asked
    for once.
    """
    if name == "smollm2":
        from openrpt.data.assets import demo_model_gguf

        return str(convert_gguf(demo_model_gguf()))
    from openrpt.engine.checkpoint_record import RECORD, open_checkpoint
    from openrpt.engine.new_models import IS_NEW, new_model

    if name.startswith(IS_NEW):
        return str(new_model(name))

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
    elif path.exists():
        raise UserError(f"{name}: neither a model folder nor a .gguf file")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:  # the Hub's are OWNER/NAME
        raise UserError(f"{name}: no such model folder or file")
    else:
        _require_on_hub(name)
    return name


@lru_cache(maxsize=64)
def _require_on_hub(name: str) -> None:
    """Raises UserError where a name is that of no model in the Hub's cache or on the Hub: before
    transformers tries again and again."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    with foreign(f"model '{name}': no such folder or file here, nor a model of the Hub's"):
        if not isinstance(try_to_load_from_cache(name, "config.json"), str):
            get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=_HUB_SECONDS)


def _load(config: ModelConfig, name: str, device: torch.device) -> tuple[Model, ModelFiles]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve_model(name)
    remote = {"trust_remote_code": config.trust_remote_code}
    with foreign(f"model '{name}' can't be loaded"):
        files = find_files(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, **remote)
        with quiet_transformers(), built_within(files):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=_DTYPES[config.dtype],
                use_safetensors=True,
                attn_implementation="eager",  # whatever config.json names: code, or no gradients
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # named below
                **remote,
            )
        model, found = loaded
        require_whole(model, found, name)
        model.to(device)
        policy = Model(
            network=model,
            tokenizer=tokenizer,
            name=name,
            compute_dtype=_compute_dtype(config),
        )
        capped = getattr(model.config, "attn_logit_softcapping", None)  # sdpa leaves the cap out
        if model._supports_sdpa and not capped:
            model.set_attn_implementation("sdpa")
        # A model without one of these is refused here.
        policy.table, policy.head, policy.max_length  # noqa: B018
    return policy, files


def _compute_dtype(config: ModelConfig) -> torch.dtype | None:
    """Returns the precision of products, None for that of the weights. Raises UserError where it is
    still to be chosen, which a command does before a run begins."""
    if config.compute_dtype == "auto":
        raise UserError(
            "model.compute_dtype = 'auto' is measured by the command line; give 'same' or"
            " 'bfloat16' here (openrpt doctor names the faster one)"
        )
    return _DTYPES[config.compute_dtype] if config.is_mixed else None


def load_tokenizer(config: ModelConfig, path: str) -> Any:
    """Loads a model's tokenizer alone. Raises UserError as `load_model`."""
    from transformers import AutoTokenizer

    folder = resolve_model(path)
    with foreign(f"the tokenizer of model '{path}' can't be loaded"):
        if Path(folder).is_dir():  # else its weights would be downloaded for the tokenizer alone
            find_files(folder)
        remote = {"trust_remote_code": config.trust_remote_code}
        tokenizer = AutoTokenizer.from_pretrained(folder, **remote)
    token_table(tokenizer)  # refused here, as by `load_model`; its merge dropout is off from here
    return tokenizer


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hides transformers' bars for weights: the stages show their own progress."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def freeze(policy: Model) -> Model:
    """Makes a model one that is only read, and returns it: no gradients, no dropout."""
    policy.network.requires_grad_(False)
    policy.network.eval()
    return policy


def outline(config: Config, device: str | torch.device = "meta") -> Model:
    """Returns the model with random weights; on the "meta" device with shapes alone, no memory.

    Raises UserError where the model's configuration or tokenizer can't be loaded.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    folder = resolve_model(config.model.path)
    remote = {"trust_remote_code": config.model.trust_remote_code}
    with foreign(f"model '{config.model.path}' can't be outlined"):
        # A Hub id's weights are not downloaded for an outline.
        within = built_within(find_files(folder)) if Path(folder).is_dir() else nullcontext()
        tokenizer = AutoTokenizer.from_pretrained(folder, **remote)
        settings = AutoConfig.from_pretrained(folder, **remote)
        with torch.device(device), quiet_transformers(), within:
            model = AutoModelForCausalLM.from_config(
                settings, dtype=_DTYPES[config.model.dtype], **remote
            )
        with contextlib.suppress(OSError):  # a model may have none; its stop tokens stand there
            model.generation_config = GenerationConfig.from_pretrained(folder)
    policy = Model(
        network=model,
        tokenizer=tokenizer,
        name=config.model.path,
        compute_dtype=_compute_dtype(config.model),
    )
    if config.model.lora_rank:
        with torch.device(device):
            policy.network = add_lora(
                model, rank=config.model.lora_rank, alpha=config.model.lora_alpha
            )
    policy.network.eval()
    return policy
