"""Several models of one run side by side: which they are, where they lie, what they cost."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrpt.errors import UserError
from openrpt.evaluation.stage import default_label, latest_model, model_path, training_cost
from openrpt.run import Run, existing_run


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedModel:
    label: str
    path: str
    """A folder, a GGUF file, a Hub id, or the name of the default model."""
    cost: Mapping[str, float | None] | None
    """Of its training (`stage.training_cost`); None where it is not known."""


def named_models(run: Run, sources: Sequence[str]) -> list[NamedModel]:
    """`MODEL` or `NAME=MODEL`: one of the run's own (`stage.OWN_MODELS`), a folder, a GGUF file, a
    Hub id, or another run's folder, which stands for the latest model there.

    None given: the run's latest. Raises UserError for two of one name and for a model that the run
    does not have.
    """
    found: dict[str, NamedModel] = {}
    for source in sources or [latest_model(run)]:
        model = _named(run, source)
        if model.label in found:
            raise UserError(
                f"two models are called '{model.label}': name one, as in other={model.path}"
            )
        found[model.label] = model
    return list(found.values())


def _named(run: Run, source: str) -> NamedModel:
    name, _, model = source.rpartition("=")
    label = name or default_label(run, model, run.config)
    owner = run
    if (Path(model) / "config.toml").is_file():
        owner = existing_run(Path(model))
        model = latest_model(owner)
    path = model_path(owner, model)
    return NamedModel(label=label, path=path, cost=training_cost(owner, path))


def fingerprint(*parts: Any) -> str:
    """8 hex digits of what a result depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
