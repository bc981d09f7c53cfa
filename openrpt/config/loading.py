"""Reading a configuration: TOML, overrides, validation, and errors that name the nearest key."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from openrpt.config.keys import sections
from openrpt.config.recipes import config_path
from openrpt.config.rewards import RewardConfig
from openrpt.config.sections import Config
from openrpt.config.toml_files import read_toml, toml_text
from openrpt.errors import UserError, nearest

_MOVED = {"model.generator": "engine.trainer"}
"""Keys of older versions, and what they are called now: a file that has one is told so."""
_LONGEST_SHOWN = 200
"""Characters of a wrong value that its error shows."""


def load_config(path: str | Path | None = None, overrides: dict[str, Any] | None = None) -> Config:
    """Reads TOML (a file, or a recipe of the package, "recipe:demo"), applies overrides
    (`{"train.learning_rate": 2e-5}`), validates.

    Raises UserError for a missing or malformed file, an unknown recipe, an unknown key (the nearest
    is named) and a value out of range.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = read_toml(config_path(str(path)))
    for dotted, value in (overrides or {}).items():
        *sections, key = dotted.split(".")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
        target[key] = value
    return validate_config(values, source=str(path) if path else "command line")


def validate_config(values: dict[str, Any], *, source: str) -> Config:
    """Returns the configuration of these values, by sections. Raises UserError, which begins with
    the source, for an unknown key (the nearest is named) and a value out of range."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{source}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    first, *others = error.errors()
    dotted = ".".join(str(part) for part in first["loc"])
    if dotted.rpartition(".")[0] in config_keys():  # a number or a word: an error of each
        dotted = dotted.rpartition(".")[0]
    else:
        others = []
    if first["type"] == "extra_forbidden":
        return f"unknown key '{dotted}'{_nearest_key(dotted)}"
    message = first["msg"].removeprefix("Value error, ")
    for other in others:
        if ".".join(str(part) for part in other["loc"]).startswith(f"{dotted}."):
            message += f", or {other['msg'].removeprefix('Input should be ')}"
    given = "" if isinstance(first["input"], dict) else f" = {_shown(first['input'])}"
    if first["type"] == "model_type" and dotted in sections():
        message = f"a section, whose keys stand below [{dotted}]"
    return f"{dotted or 'config'}{given}: {message[0].lower()}{message[1:]}"


def _nearest_key(dotted: str) -> str:
    """Returns the hint: a key of that name in other sections, else the nearest of all keys and
    sections."""
    if dotted in _MOVED:
        return f"; it is called '{_MOVED[dotted]}' now: change that in the file"
    section, _, name = dotted.rpartition(".")
    known = config_keys()
    elsewhere = [key for key in known if key.rpartition(".")[2] == name]
    if any(key.startswith(f"{section}.") for key in known) and elsewhere:
        return f"; nearest: {' or '.join(f'{one!r}' for one in elsewhere)}"
    return nearest(dotted, [*known, *sections()], otherwise="see --help for all keys")


def config_keys() -> list[str]:
    """Returns all keys, dotted: `['seed', 'run', 'model.path', …]`."""
    keys, found = [], sections()
    for name in Config.model_fields:
        keys += [f"{name}.{key}" for key in found[name].model_fields] if name in found else [name]
    return keys


def to_toml(config: Config) -> str:
    """Returns the whole configuration as TOML."""
    return toml_text(config.model_dump(mode="json"))


def finetune_config(config: Config) -> Config:
    """Returns the configuration as the trainer reads it: a question is a document with one
    position."""
    settings = config.finetune
    prompt = {
        "template": "question",
        "window": settings.question_tokens,
        "candidates": 0,
        "think_budget": settings.think_budget,
        "prediction_budget": settings.answer_budget,
    }
    train = {
        "documents_per_step": settings.questions_per_step,
        "prompts_per_step": 0,
        "positions_per_document": 1,
        "ntp_weight": 0.0,
    }
    return config.model_copy(
        update={
            "prompt": config.prompt.model_copy(update=prompt),
            "train": config.train.model_copy(update=train),
            "reward": RewardConfig(),
        }
    )


def with_overrides(config: Config, overrides: dict[str, Any]) -> Config:
    """Returns the configuration with other values of these dotted keys. Raises UserError for a
    value out of range."""
    values = config.model_dump(mode="json")
    for name, value in overrides.items():
        section, _, key = name.rpartition(".")
        (values[section] if section else values)[key] = value
    return validate_config(values, source="command line")


def with_file(config: Config, values: dict[str, Any], *, source: str) -> Config:
    """Returns the configuration with other values of the keys that a file names, by sections.
    Raises UserError as `load_config`."""
    merged = config.model_dump(mode="json")
    for name, value in values.items():
        old = merged.get(name)
        merged[name] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
    return validate_config(merged, source=source)


def flatten(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values by dotted keys; a table inside a section stays one value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": found for inner, found in value.items()}
        else:
            flat[key] = value
    return flat


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
