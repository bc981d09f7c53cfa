"""Runs to look at: `load_run(path)` gives a run folder's files as tables, and its report.

Nothing of a run is changed here, and what is absent, half-written or of a newer version is said
in `notes`, not raised, as long as there is anything to show.
"""

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrpt.config import Config, Section, validate_config
from openrpt.errors import UserError
from openrpt.files import read_json
from openrpt.metrics import readable_metrics
from openrpt.run import Run
from openrpt.toml_files import read_toml

if TYPE_CHECKING:
    import pyarrow as pa

TRACES = ("metrics.jsonl", "environment.json", "rollouts", "evaluation.json", "scored")
"""What a folder without config.toml is still known by as a run."""
NO_METRICS = {"warnings", "changed"}
"""Keys of rows of metrics.jsonl that hold no number."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A run's report, shown where a notebook shows the last value of a cell."""

    page: str
    """The whole HTML file."""
    height: int = 800
    """In pixels."""

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self.page)}" width="100%" height="{self.height}"'
            ' style="border: 0" title="OpenRPT report"></iframe>'
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedRun:
    """What a run folder holds. Tables are Arrow's: `run.metrics().to_pandas()`,
    `polars.from_arrow(run.metrics())`."""

    run: Run
    notes: tuple[str, ...]
    """What is absent, or was left out."""

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def config(self) -> Config:
        return self.run.config

    def metrics(self, stage: str | None = None) -> "pa.Table":
        """A row a step, a column a metric (docs/metrics.md); null where a step has none."""
        import pyarrow as pa

        found, _ = readable_metrics(self.run.metrics)
        rows = [row for row in found if stage in (None, row["stage"])]
        names = dict.fromkeys(name for row in rows for name in row if name not in NO_METRICS)
        return pa.table({name: [row.get(name) for row in rows] for name in names})

    @property
    def warnings(self) -> list[dict[str, Any]]:
        """Failure signatures that were seen: stage, step, name, seen, helps."""
        return run_warnings(readable_metrics(self.run.metrics)[0])

    @property
    def steps(self) -> list[int]:
        """The steps of train whose rollouts are stored."""
        from openrpt.rollouts import rollout_folder, stored_steps

        return stored_steps(rollout_folder(self.path))

    @property
    def development_steps(self) -> list[int]:
        """The steps after which the development split was evaluated, and its rollouts stored."""
        from openrpt.rollouts import rollout_folder, stored_steps

        return stored_steps(rollout_folder(self.path, development=True))

    def rollouts(
        self, step: int | None = None, *, development: bool = False, model: str = ""
    ) -> "pa.Table":
        """A row a rollout (openrpt.rollouts.SCHEMA), of one step or of all that are stored: of
        training, of the evaluations on the development split, or of the evaluation of a model,
        known by its label in `evaluation`.

        Raises UserError where none are, or a file is not readable.
        """
        import pyarrow as pa

        from openrpt.rollouts import read_evaluated, read_rollouts

        if model:
            return read_evaluated(self.path, model)
        steps = self.development_steps if development else self.steps
        if step is not None or not steps:
            return read_rollouts(self.path, step, development=development)
        tables = [read_rollouts(self.path, one, development=development) for one in steps]
        return pa.concat_tables(tables, promote_options="default")

    @property
    def evaluation(self) -> dict[str, Any]:
        """`evaluation.json`: "evaluations" by label, and "differences"."""
        from openrpt.evaluation.records import read_evaluation

        return read_evaluation(self.run.evaluation)

    def report(self, *, height: int = 800) -> Report:
        """As `openrpt report` writes it; shows inline in a notebook."""
        from openrpt.report import render

        return Report(page=render(self.run), height=height)

    def __repr__(self) -> str:
        notes = f", notes={list(self.notes)}" if self.notes else ""
        return f"LoadedRun('{self.path}', {len(self.steps)} steps with rollouts{notes})"


def load_run(path: str | Path) -> LoadedRun:
    """A run folder, whatever state it is in. Raises UserError where no run is."""
    run, notes = look_at(Path(path))
    return LoadedRun(run=run, notes=notes)


def look_at(path: Path) -> tuple[Run, tuple[str, ...]]:
    """A run to be read, and what is to be said of it: a configuration that is absent, damaged or
    of a newer version gives way to the defaults where it must, lines of the metrics that are
    damaged or cut off are left out. Raises UserError where no run is."""
    if not path.is_dir():
        raise UserError(f"{path}: not a run folder (there is no such folder)")
    stored = path / "config.toml"
    if stored.is_file():
        config, notes = _readable_config(stored)
    elif any((path / name).exists() for name in TRACES):
        config, notes = Config(), ["config.toml is missing: defaults are shown in its place"]
    elif any(path.iterdir()):
        raise UserError(f"{path}: not a run folder (config.toml is missing)")
    else:
        raise UserError(f"{path}: the folder is empty: no stage has begun there")
    run = Run(path=path, config=config)
    notes += [note for note in (_newer_version(path), *readable_metrics(run.metrics)[1]) if note]
    return run, tuple(notes)


def _readable_config(path: Path) -> tuple[Config, list[str]]:
    try:
        values = read_toml(path)
        known, dropped = _known_keys(values)
        config = validate_config(known, source=str(path))
    except UserError as error:
        return Config(), [f"{error}; defaults are shown in its place"]
    if not dropped:
        return config, []
    keys = ", ".join(dropped)
    return config, [f"config.toml: left out what this version does not know (a newer one?): {keys}"]


def _known_keys(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """(what this version knows, the dotted names of the rest)."""
    known: dict[str, Any] = {}
    dropped: list[str] = []
    for name, value in values.items():
        field = Config.model_fields.get(name)
        kind = field.annotation if field else None
        if field is None:
            dropped.append(name)
        elif isinstance(kind, type) and issubclass(kind, Section) and isinstance(value, dict):
            known[name] = {key: v for key, v in value.items() if key in kind.model_fields}
            dropped += [f"{name}.{key}" for key in value if key not in kind.model_fields]
        else:
            known[name] = value
    return known, dropped


def run_warnings(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The failure signatures that rows of metrics.jsonl have recorded."""
    return [
        {"stage": row["stage"]} | warning for row in rows for warning in row.get("warnings", [])
    ]


def setting_changes(rows: list[dict[str, Any]]) -> list[str]:
    """What rows of metrics.jsonl say of settings that a restart has changed."""
    return [
        f"{row['stage']}: {key} = {change['now']!r} from step {row['step']} on"
        f" (before: {change['before']!r})"
        for row in rows
        for key, change in row.get("changed", {}).items()
    ]


def _newer_version(run: Path) -> str:
    """A note where a newer OpenRPT has written the run; else empty."""
    import openrpt

    try:
        written = str(read_json(run / "environment.json", advice="").get("openrpt"))
        newer = _release(written) > _release(openrpt.__version__)
    except (OSError, UserError, ValueError):
        return ""
    return f"written by OpenRPT {written}, this is {openrpt.__version__}" if newer else ""


def _release(version: str) -> tuple[int, ...]:
    """Raises ValueError for what is no version."""
    return tuple(int(part) for part in version.split(".")[:2])
