"""Several models of one run side by side: which they are, where they lie, what they cost."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrpt.config.binding import label_settings
from openrpt.config.sections import OWN_MODELS, STAGES, Config, StageName
from openrpt.config.training import WarmupConfig
from openrpt.costs.energy import money
from openrpt.data.scored import load_scored
from openrpt.engine.checkpoint_record import RECORD, read_record
from openrpt.engine.gguf_models import is_gguf
from openrpt.engine.loading import resolve_model
from openrpt.errors import UserError, nearest
from openrpt.runs.checkpoints import latest_checkpoint
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, existing_run, is_run, owning_run

_MAKERS: dict[str, StageName] = {facts.model: s for s, facts in STAGES.items() if facts.model}
"""The word for a model → the stage that makes it."""
_FURTHEST = sorted(_MAKERS, key=lambda name: -len(STAGES[_MAKERS[name]].made_from))


def latest_model(run: Run) -> str:
    """Returns the furthest that the run has come: one of OWN_MODELS."""
    return next((name for name in _FURTHEST if _made_by(run, _MAKERS[name])), "start")


def _made_by(run: Run, stage: StageName) -> Path | None:
    """Returns the folder of the model that a stage has made so far; None where there is none."""
    facts = STAGES[stage]
    if facts.leaves:
        folder = run.path / facts.leaves
        return folder if folder.is_dir() else None
    return latest_checkpoint(run.checkpoints_of(stage))


def model_path(run: Run, model: str) -> str:
    """Returns where a model of that name lies: one of OWN_MODELS, else a folder, GGUF file or Hub
    id; a run's folder stands for the latest model there.

    Raises UserError where the run has no such model yet, or it is damaged.
    """
    if is_run(model):
        run = existing_run(Path(model))
        model = latest_model(run)
    own: dict[str, Path | None] = {
        **{name: _made_by(run, stage) for name, stage in _MAKERS.items()},
        "best": run.checkpoints / "best",
    }
    if model == "start":
        return run.config.model.path
    if model not in own:
        hint = nearest(model, OWN_MODELS, cutoff=0.75)
        if hint and not Path(model).exists():
            raise UserError(f"no model '{model}'{hint}")
        return model
    folder = own[model]
    if folder is None or not folder.is_dir():
        raise UserError(
            f"{run.path}: the run has no '{model}' model yet; its latest is '{latest_model(run)}'"
        )
    read_record(folder)
    return str(folder)


def check_models(run: Run, models: Sequence[str], *, scores: Path | None = None) -> None:
    """Checks that models (none given: the run's latest) can be found, and so can the scores that
    they are measured on. Raises UserError."""
    if scores is not None:
        load_scored(scores)
    for model in models or [latest_model(run)]:
        resolve_model(model_path(run, model))


def model_label(model: str) -> str:
    """Returns a model's name as a file may be called: `trained`, `step-000040`, `SmolLM2-135M`."""
    return re.sub(r"[^\w.=,-]+", "_", _file_name(model)).strip("._") or "model"


def _file_name(model: str) -> str:
    path = Path(model)
    return path.stem if is_gguf(path) else path.name


def default_label(run: Run, model: str, config: Config) -> str:
    """Returns the model's name, and every setting that is not the run's: so that an evaluation
    under another prompt does not take the first one's place.

    `trained`, `start-template=v6`
    """
    changed = changed_settings(run, config)
    brief = [setting.partition("=")[0].rpartition(".")[2] for setting in changed]
    settings = [
        setting if brief.count(name) > 1 else name + setting[setting.index("=") :]
        for setting, name in zip(changed, brief, strict=True)
    ]
    labels = [_file_name(model), *settings]
    return re.sub(r"[^\w.=,-]+", "_", "-".join(labels)).strip("._") or "model"


def changed_settings(run: Run, config: Config) -> list[str]:
    """Returns `key=value` of what names an evaluation and differs from the run's own
    configuration."""
    old, new = label_settings(run.config), label_settings(config)
    return [f"{key}={new[key]}" for key in new if new[key] != old[key]]


def training_cost(run: Run, model: str) -> dict[str, float | None] | None:
    """Returns what the steps that made a model took, by the `metrics.jsonl` of the run that it
    lies in: nothing for the start model; None for one from elsewhere. `model`: as `model_path`
    returns it.

    `flops`, `seconds`, `joules`, and `money` at `run`'s price an hour (None without one). FLOPs
    are None where no step recorded them; a lower bound where some, `steps_without_flops`, did not.
    """
    from openrpt.runs.spent import costs

    made: list[dict[str, Any]] = []
    if model != run.config.model.path:
        found = _steps_that_made(Path(model))
        if found is None:
            return None
        made = found
    spent = costs(made)
    without = sum(not any(key.startswith("flops/") for key in row) for row in made)
    seconds, price = sum((cost.total_seconds for cost in spent), 0.0), run.config.cost
    return {
        "flops": sum((c.flops for c in spent), 0.0) if without < len(made) or not made else None,
        "seconds": seconds,
        "joules": sum((cost.joules for cost in spent), 0.0),
        "money": money(seconds, price.price_per_hour) if price.price_per_hour else None,
        "steps_without_flops": without,
    }


def supervision_of(model: str) -> str:
    """Returns what the warmup behind a checkpoint saw beside the model's own predictions; empty
    where that is nothing, and for a model that is no checkpoint of a warmup or of what followed
    it."""
    if not (Path(model) / RECORD).is_file():
        return ""
    record = read_record(Path(model))
    if record.state.stage not in ("warmup", "train") or not record.state.warmed_up:
        return ""
    settings = WarmupConfig.model_validate(record.config["warmup"])
    return settings.supervision(record.state.trace_sources)


def _steps_that_made(model: Path) -> list[dict[str, Any]] | None:
    """Returns the rows of metrics of the warmup or the steps behind a checkpoint; None where the
    folder is none of a run's."""
    owner = owning_run(model)
    if owner is None:
        return None
    if model == owner.start:
        stages, last = {"warmup"}, 0
    elif model.parent in {owner.checkpoints_of(stage) for stage in _MAKERS.values()}:
        state = read_record(model).state
        stages, last = {state.stage}, state.step
        if state.stage == "train":
            stages.add("warmup")
    else:
        return None
    rows = [row for row in read_metrics(owner.metrics) if row["stage"] in stages]
    return [row for row in rows if row["stage"] == "warmup" or row["step"] <= last]


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedModel:
    """A model under the name by which tables and files call it."""

    label: str
    path: str
    """A folder, a GGUF file, a Hub id, or the name of the default model."""
    cost: Mapping[str, float | None] | None
    """The cost of its training (`training_cost`); None where it is not known."""


def named_models(run: Run, sources: Sequence[str]) -> list[NamedModel]:
    """Reads `MODEL` or `NAME=MODEL`: one of the run's own (`OWN_MODELS`), a folder, a GGUF file, a
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
    if is_run(model):
        owner = existing_run(Path(model))
        model = latest_model(owner)
    path = model_path(owner, model)
    return NamedModel(label=label, path=path, cost=training_cost(owner, path))
