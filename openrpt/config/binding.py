"""The stages that the keys of the configuration bind, read off the sections (`Section.BINDS`,
`Binds`).

A run folder belongs to one configuration, key by key: once a stage's results stand there, the keys
that they depend on may not change. Scores depend on what binds `score`; a warmup and a pretraining
read the scores, a training reads the scores and begins from the warmup, so that what binds those
binds them, too.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from openrpt.config.keys import sections
from openrpt.config.loading import flatten
from openrpt.config.section import Binds
from openrpt.config.sections import STAGES, Bound, Config, StageName


@cache
def bindings() -> dict[str, Binds]:
    """Returns what each key binds, by its dotted name, in the configuration's order."""
    found: dict[str, Binds] = {}
    for name, field in Config.model_fields.items():
        section = sections().get(name)
        if section is None:
            found[name] = _said(field.metadata, None)
            continue
        for key, inner in section.model_fields.items():
            found[f"{name}.{key}"] = _said(inner.metadata, section.BINDS)
    return found


def _said(metadata: list[Any], section: Binds | None) -> Binds:
    """Returns what a field says of itself, else what its section says."""
    said = next((one for one in metadata if isinstance(one, Binds)), section)
    assert said is not None
    return said


def read_by(stage: StageName) -> list[str]:
    """Returns the sections, and the single keys of others, that a stage reads."""
    found = ["seed", "run"]
    for name, section in sections().items():
        if _reads(stage, section.BINDS):
            found.append(name)
        else:
            keys = [f"{name}.{key}" for key in section.model_fields]
            found += [key for key in keys if _reads(stage, bindings()[key])]
    return found


def _reads(stage: StageName, said: Binds) -> bool:
    return stage in said.what or (stage == "evaluation" and "label" in said.what)


def settings_of(stage: StageName, config: Config, *, inherited: bool = True) -> dict[str, Any]:
    """Returns the values of all keys that a stage's results depend on; not `inherited`: without
    what binds only what they were made from."""
    of: tuple[Bound, ...] = (stage, *(STAGES[stage].made_from if inherited else ()))
    values = flatten(config.model_dump(mode="json"))
    return {key: values[key] for key, said in bindings().items() if set(of) & _bound(said, values)}


def _bound(said: Binds, values: dict[str, Any]) -> set[Bound]:
    """Returns what a key binds where the keys have these values."""
    if said.under is None:
        return set(said.what)
    stage, key, value = said.under
    return set(said.what) - ({stage} if values[key] != value else set())


def first_change(old: Config, new: Config, stages: Collection[StageName]) -> str | None:
    """Returns the first key that differs and may not, given that these stages' results stand; None
    if all is well."""
    before, now = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    bound = {key for stage in stages for one in (old, new) for key in settings_of(stage, one)}
    for key, said in bindings().items():
        if key in bound and not said.recorded and before[key] != now[key]:
            return key
    return None


def spelled_change(key: str, old: Config, new: Config) -> str:
    """Returns a key's change in words.

    >>> spelled_change("train.algorithm", Config(), Config(train={"algorithm": "rloo"}))
    "train.algorithm = 'grpo', not 'rloo'"
    """
    was, now = (flatten(one.model_dump(mode="json"))[key] for one in (old, new))
    return f"{key} = {was!r}, not {now!r}"


def recorded_changes(
    before: dict[str, Any], config: Config, stage: StageName
) -> dict[str, dict[str, Any]]:
    """Returns {key: {"before", "now"}} of the keys that a stage's results depend on and that a
    resumed run may change all the same, where they differ from `before` (a configuration, by
    sections)."""
    old, now = flatten(before), settings_of(stage, config, inherited=False)
    return {
        key: {"before": old[key], "now": now[key]}
        for key in sorted(now)
        if bindings()[key].recorded and key in old and old[key] != now[key]
    }


def differing_settings(configs: Sequence[Config]) -> dict[str, list[Any]]:
    """Returns {key: its value in each configuration}, of the keys in which they differ; the run
    folder aside.

    >>> configs = [Config(), Config(seed=3)]
    >>> differing_settings(configs)
    {'seed': [0, 3]}
    """
    each = [flatten(config.model_dump(mode="json")) for config in configs]
    values = {key: [own[key] for own in each] for key in each[0] if key != "run"}
    return {key: found for key, found in values.items() if any(one != found[0] for one in found)}


def label_settings(config: Config) -> dict[str, Any]:
    """Returns the values of all keys that name an evaluation where they are not the run's own;
    examples by their number and a hash, since a label is short."""
    values = flatten(config.model_dump(mode="json"))
    if examples := values["prompt.examples"]:
        digest = hashlib.sha256(json.dumps(examples).encode()).hexdigest()[:8]
        values["prompt.examples"] = f"{len(examples)}-{digest}"
    named = {"evaluation", "label"}
    return {key: values[key] for key, said in bindings().items() if named & set(said.what)}
