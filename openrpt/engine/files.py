"""A model folder is untrusted input: what it claims is compared with what it holds.

Before a model is built, its config.json may ask for no more than its weight files can hold; after
loading, each of the model's tensors must have come from the files, and each of the files' tensors
must have found its place.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from openrpt.errors import UserError

_VALUES_PER_BYTE = 2
"""Most weights that a byte of a file holds, at four bits each."""
_LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
_MOST_LABELS = 1000
"""Most labels of a classifier, which transformers names one by one, even where the model is
none."""
ADAPTER = "adapter_config.json"
_INTEGERS = {"I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"}
_NAMED = 3
"""Tensors that a message names; of the others it gives the number."""


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A model's files on this machine, as transformers would choose them."""

    folder: Path
    bytes: int
    """Size of the weight files."""


def find_files(source: str) -> ModelFiles:
    """Returns the files of a folder or a Hub id (downloaded where they are not here yet).

    Raises UserError for an adapter, where config.json has more layers than there are tensors, where
    weights are whole numbers that nothing scales, or an index names files outside of the folder;
    whatever else is wrong raises as its reader does.
    """
    from safetensors import safe_open
    from transformers.utils import cached_file

    found: Any = cached_file(source, "config.json")
    config_path = Path(found)
    config = _read_object(config_path)
    if cached_file(source, ADAPTER, _raise_exceptions_for_missing_entries=False):
        raise adapter_refusal(source)
    weights = _weight_files(source, config.get("transformers_weights"))
    tensors = 0
    for path in weights:
        with safe_open(path, framework="pt") as opened:
            tensors += len(opened.keys())
            if not config.get("quantization_config"):
                _require_no_integers(opened, path)
    for section in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key in _LAYER_COUNTS:
            if isinstance(section.get(key), int) and section[key] > tensors:
                raise UserError(
                    f"{config_path}: {key} = {section[key]}, but the weights are {tensors} tensors"
                    " in all; take the files anew from where they came from"
                )
        if isinstance(section.get("num_labels"), int) and section["num_labels"] > _MOST_LABELS:
            raise UserError(
                f"{config_path}: num_labels = {section['num_labels']}, but a language model has no"
                " labels; remove the key"
            )
    size = sum(path.stat().st_size for path in weights)
    return ModelFiles(folder=config_path.parent, bytes=size)


def adapter_refusal(source: str) -> UserError:
    """Returns the error for a folder that holds a LoRA adapter."""
    return UserError(
        f"{source}: holds a LoRA adapter ({ADAPTER}), which transformers would put on any model;"
        " merge it with peft's merge_and_unload, and load what save_pretrained writes"
    )


def _require_no_integers(opened: Any, path: Path) -> None:
    for name in opened.keys():  # noqa: SIM118 (it is no mapping)
        kind = opened.get_slice(name).get_dtype() if name.endswith("weight") else ""
        if kind in _INTEGERS:
            raise UserError(
                f"{path}: {name} holds whole numbers ({kind}), and config.json has no"
                " quantization_config that says what they stand for; take the model in float32,"
                " float16 or bfloat16"
            )


def _weight_files(source: str, stated: str | None) -> list[Path]:
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file
    from transformers.utils.hub import cached_files

    single = stated or SAFE_WEIGHTS_NAME
    path: Any = cached_file(
        source, single, _raise_exceptions_for_missing_entries=stated is not None
    )
    path = path or cached_file(source, SAFE_WEIGHTS_INDEX_NAME)
    if not path.endswith(".index.json"):
        return [Path(path)]
    named = _read_object(Path(path)).get("weight_map")
    names = sorted({str(name) for name in named.values()}) if isinstance(named, dict) else []
    outside = next((name for name in names if Path(name).name != name), None)
    if outside is not None or not names:
        what = "names no files" if outside is None else f"names a file outside of it, '{outside}'"
        raise UserError(f"{path}: {what}; take the folder anew from where it came from")
    shards: Any = cached_files(source, names)
    return [Path(shard) for shard in shards]


def _read_object(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object; take it anew from where it came from")
    return values


@contextlib.contextmanager
def built_within(files: ModelFiles) -> Iterator[None]:
    """Stops a model that is built in here where it outgrows its files, before it takes memory."""
    room = _VALUES_PER_BYTE * files.bytes

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal room
        if (
            parameter is not None and parameter.is_meta
        ):  # as transformers builds; loaded ones aren't
            room -= parameter.numel()
            if room < 0:
                raise UserError(
                    f"{files.folder / 'config.json'} asks for a larger model than the weights'"
                    f" {files.bytes:,} bytes can hold; take the files anew from where they came"
                    " from"
                )

    handle = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def require_whole(model: nn.Module, found: Mapping[str, Any], name: str) -> None:
    """Refuses a model that lacks tensors, or whose files hold others, by the tensors' names.

    `found` is transformers' own report, in which tied weights are not missing and what a model
    class leaves out by design is not unexpected. Raises UserError.
    """
    advice = "take the files anew from where they came from, or mend config.json"
    if mismatched := sorted(found["mismatched_keys"]):
        key, in_files, by_config = mismatched[0]
        more = f", and {len(mismatched) - 1} more" if len(mismatched) > 1 else ""
        raise UserError(
            f"model '{name}': {key} is {list(in_files)} in the files and {list(by_config)} by"
            f" config.json{more}; {advice}"
        )
    if missing := sorted(found["missing_keys"]):
        raise UserError(f"model '{name}': its files lack {_listed(missing)}; {advice}")
    # Older files hold buffers that are computed now, and GPT-2's the number behind its mask.
    buffers = {key for key, _ in model.named_buffers()}
    unknown = (key for key in found["unexpected_keys"] if not key.endswith(".masked_bias"))
    if surplus := sorted(key for key in unknown if key not in buffers):
        raise UserError(
            f"model '{name}': its files hold {_listed(surplus)} that config.json has no place for;"
            f" {advice}"
        )


def _listed(keys: list[str]) -> str:
    more = ", …" if len(keys) > _NAMED else ""
    tensors = "tensor" if len(keys) == 1 else "tensors"
    return f"{len(keys)} {tensors} ({', '.join(keys[:_NAMED])}{more})"
