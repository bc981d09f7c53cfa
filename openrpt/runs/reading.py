"""A run folder as it stands, damaged parts named and passed over."""

from pathlib import Path
from typing import Any

from openrpt.config.keys import sections
from openrpt.config.loading import validate_config
from openrpt.config.sections import Config
from openrpt.config.toml_files import read_toml
from openrpt.errors import UserError
from openrpt.json_files import read_json
from openrpt.runs.metrics import readable_metrics
from openrpt.runs.run import Run, why_no_run

_TRACES = ("metrics.jsonl", "environment.json", "rollouts", "evaluation.json", "scored")
"""Files and folders by which a folder without config.toml is still known as a run."""
NO_METRICS = {"warnings", "changed", "unevaluated"}
"""Keys of rows of metrics.jsonl that hold no number."""


def look_at(path: Path) -> tuple[Run, tuple[str, ...]]:
    """Returns a run to be read, and what is to be said of it: a configuration that is absent,
    damaged or of a newer version gives way to the defaults where it must, lines of the metrics that
    are damaged or cut off are left out. Raises UserError where no run is."""
    if not path.is_dir():
        raise UserError(f"{path}: not a run folder ({why_no_run(path)})")
    stored = path / "config.toml"
    if stored.is_file():
        config, notes = _readable_config(stored)
    elif any((path / name).exists() for name in _TRACES):
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
    return config, [
        f"config.toml: left out what this version does not know (another one's?): {keys}"
    ]


def _known_keys(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns (what this version knows, the dotted names of the rest)."""
    known: dict[str, Any] = {}
    dropped: list[str] = []
    for name, value in values.items():
        section = sections().get(name)
        if name not in Config.model_fields:
            dropped.append(name)
        elif section is not None and isinstance(value, dict):
            known[name] = {key: v for key, v in value.items() if key in section.model_fields}
            dropped += [f"{name}.{key}" for key in value if key not in section.model_fields]
        else:
            known[name] = value
    return known, dropped


def run_warnings(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the failure signatures that rows of metrics.jsonl have recorded."""
    return [
        {"stage": row["stage"]} | warning for row in rows for warning in row.get("warnings", [])
    ]


def setting_changes(rows: list[dict[str, Any]]) -> list[str]:
    """Returns what rows of metrics.jsonl say of settings that a restart has changed."""
    return [
        f"{row['stage']}: {key} = {change['now']!r} from step {row['step']} on"
        f" (before: {change['before']!r})"
        for row in rows
        for key, change in row.get("changed", {}).items()
    ]


def _newer_version(run: Path) -> str:
    """Returns a note where a newer OpenRPT has written the run; else empty."""
    import openrpt

    try:
        written = str(read_json(run / "environment.json", advice="").get("openrpt"))
        newer = _release(written) > _release(openrpt.__version__)
    except (OSError, UserError, ValueError):
        return ""
    return f"written by OpenRPT {written}, this is {openrpt.__version__}" if newer else ""


def _release(version: str) -> tuple[int, ...]:
    """Returns a version's numbers. Raises ValueError for what is no version."""
    return tuple(int(part) for part in version.split(".")[:2])
