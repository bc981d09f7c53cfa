"""An instrument measures one model after another; the harness does what all instruments need.

The harness takes what the folder holds already for the same weights, settings and inputs; else it
opens the model, lets the instrument run under one meter, and stores its columns. A report of all
models together is shown and written by `openrpt.evaluation.reports`.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from openrpt.config.sections import Config
from openrpt.costs.meters import WorkMeter
from openrpt.engine.engine import Engine, open_engine
from openrpt.engine.fingerprint import model_fingerprint
from openrpt.engine.model import Model
from openrpt.evaluation.columns import Columns
from openrpt.evaluation.kept import NOTHING_KEPT, Kept
from openrpt.evaluation.models import NamedModel
from openrpt.evaluation.reports import Report
from openrpt.progress import SILENT, Progress

_Found = TypeVar("_Found", bound=Columns)
_FoundCo = TypeVar("_FoundCo", bound=Columns, covariant=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """A model at hand, and what stands around its measurement."""

    meter: WorkMeter
    title: str
    """The name of the progress."""
    kept: Kept = NOTHING_KEPT
    progress: Progress = SILENT

    @property
    def engine(self) -> Engine:
        """The engine to measure with: what it runs is counted."""
        return self.meter.engine

    @property
    def model(self) -> Model:
        """The model that is measured."""
        return self.meter.engine.model


class Instrument(Protocol[_FoundCo]):
    """The measurement, the same for every model."""

    @property
    def config(self) -> Config:
        """The configuration, whose [model] and [cost] the harness reads."""

    @property
    def kind(self) -> type[_FoundCo]:
        """The class of what it finds."""

    @property
    def settings(self) -> dict[str, Any]:
        """All that a result depends on beside the model's files, as JSON holds it."""

    @property
    def done(self) -> str:
        """The words for a model that was measured before: `has written before`."""

    def title(self, label: str) -> str:
        """Returns the name of the progress of a model's measurement."""

    def run(self, bench: Bench) -> _FoundCo:
        """Measures one model; the harness adds the cost. Raises UserError for what does not fit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured(Generic[_Found]):
    """A model, and what an instrument found with it."""

    model: NamedModel
    result: _Found


def models_of(measured: Sequence[Measured[Any]]) -> dict[str, dict[str, Any]]:
    """Returns, by label, where a model lies, and what its training and its measurement cost."""
    return {
        one.model.label: {
            "model": one.model.path,
            "cost": one.model.cost,
            "evaluation_cost": one.result.cost,
        }
        for one in measured
    }


class Comparing(Instrument[_Found], Protocol[_Found]):
    """An instrument that puts several models side by side."""

    def report(self, measured: Sequence[Measured[_Found]]) -> Report:
        """Returns the report of the models together; differences are to the first."""


def measure(
    instrument: Instrument[_Found],
    engine: Engine,
    *,
    title: str = "",
    mark: str = "",
    kept: Kept = NOTHING_KEPT,
    progress: Progress = SILENT,
) -> _Found:
    """Runs an instrument on a model, and counts what that takes. Nothing is stored but what `kept`
    keeps. `title`: in place of the instrument's own."""
    meter = WorkMeter(engine, instrument.config)
    title = title or instrument.title(engine.model.name)
    kept = replace(kept, meter=meter)
    bench = Bench(meter=meter, title=title, kept=kept, progress=progress)
    found = instrument.run(bench)
    return replace(found, cost=meter.cost(), mark=mark)


def measure_models(
    instrument: Instrument[_Found],
    models: Sequence[NamedModel],
    folder: Path,
    *,
    progress: Progress = SILENT,
) -> list[Measured[_Found]]:
    """Returns each model's result, `LABEL-MARK.parquet` in the folder, taken from there where it
    is; what a stopped measurement has made so far stands in `LABEL-MARK.jsonl`.

    Raises UserError as the instrument does, and for what can't be loaded.
    """
    found = []
    for model in models:
        mark = mark_of(instrument, model.path)
        path = folder / f"{model.label}-{mark}.parquet"

        def open_model(path: str = model.path) -> Engine:
            progress.begin(f"load {path}", 0)
            return open_engine(instrument.config, path=path)

        result = take_or_measure(
            instrument,
            open_model,
            path,
            label=model.label,
            mark=mark,
            kept=Kept(path=path.with_suffix(".jsonl")),
            progress=progress,
        )
        found.append(Measured(model=model, result=result))
    return found


def take_or_measure(
    instrument: Instrument[_Found],
    engine: Callable[[], Engine],
    path: Path,
    *,
    label: str,
    mark: str,
    kept: Kept = NOTHING_KEPT,
    progress: Progress = SILENT,
) -> _Found:
    """Returns what the file holds, if it was made from the same; else measures, and stores that
    there.

    `engine`: opens the model, which is not done for what is stored. Raises UserError as the
    instrument does, and for a file that is damaged.
    """
    found = stored(instrument, path, label=label, mark=mark, progress=progress)
    if found is None:
        title = instrument.title(label)
        found = measure(instrument, engine(), title=title, mark=mark, kept=kept, progress=progress)
        found.save(path)
    return found


def stored(
    instrument: Instrument[_Found], path: Path, *, label: str, mark: str, progress: Progress
) -> _Found | None:
    """Returns what the file holds; None where there is none, or it was made from something else.

    Raises UserError for a file that is damaged.
    """
    if not path.is_file():
        return None
    found = instrument.kind.load(path)
    if found.mark != mark:
        return None
    progress.say(f"{label}: {instrument.done}, taken from {path}")
    return found


def mark_of(instrument: Instrument[Any], model: str) -> str:
    """Returns 8 hex digits of what a result depends on: the model's files, settings and inputs.
    Raises UserError where there is no such model."""
    return _fingerprint(model_fingerprint(model), instrument.settings)


def _fingerprint(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
