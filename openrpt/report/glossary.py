"""The meaning of every metric, read from `glossary.toml`: the report's charts and docs/metrics.md
come from it.

`metrics_markdown()` is the text of the docs; a test compares the two.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from openrpt.data.token_classes import CLASS_NAMES
from openrpt.runs.signatures import SIGNATURES


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """The meaning of a metric."""

    unit: str
    meaning: str
    """The thing that is counted or averaged, and over what."""
    healthy: str
    reading: str
    """The way to read it, in one line."""
    least: float = -math.inf
    """The least value that is healthy in any run."""
    most: float = math.inf
    """The greatest such value."""


_GLOSSARY = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def _meanings(table: str) -> dict[str, Meaning]:
    return {key: Meaning(**values) for key, values in _GLOSSARY[table].items()}


def _of_each_class(meanings: Mapping[str, Meaning]) -> dict[str, Meaning]:
    """Returns the keys that end with CLASS once for each token class."""
    found: dict[str, Meaning] = {}
    for key, meaning in meanings.items():
        kind, by_class, _ = key.partition("/CLASS")
        names = CLASS_NAMES.values() if by_class else ()
        found |= {f"{kind}/{name}": meaning for name in names} or {key: meaning}
    return found


_SAID = _meanings("metrics")
METRICS = _of_each_class(_SAID)
"""The keys of metrics.jsonl."""
DERIVED = _meanings("derived")
"""The metrics that the report makes of the stored rollouts and of metrics; metrics.jsonl holds
none of it."""
EVALUATION = _meanings("evaluation")
"""The keys of a summary in evaluation.json."""

WARMUP_KEYS = tuple(_GLOSSARY["warmup_keys"])
"""The metrics that a warmup step writes."""
_PRETRAIN_KEYS = tuple(_GLOSSARY["pretrain_keys"])
"""The metrics that a step of plain next-token training writes."""
WARMUP_ONLY = frozenset(_GLOSSARY["warmup_only"])
_PRETRAIN_ONLY = frozenset(_GLOSSARY["pretrain_only"])


def _table(meanings: Mapping[str, Meaning]) -> str:
    lines = ["| key | unit | what it is | healthy | how to read it |", "|---|---|---|---|---|"]
    for key, m in meanings.items():
        cells = [f"`{key}`", m.unit, m.meaning, m.healthy, m.reading]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _warnings_table() -> str:
    lines = ["| name | when | what usually helps |", "|---|---|---|"]
    lines += [f"| `{name}` | {s.when} | {s.helps} |" for name, s in SIGNATURES.items()]
    return "\n".join(lines) + "\n"


def metrics_markdown() -> str:
    """Returns the text of docs/metrics.md."""
    texts = _GLOSSARY["texts"]
    train = {key: m for key, m in _SAID.items() if key not in WARMUP_ONLY | _PRETRAIN_ONLY}
    warmup = {key: METRICS[key] for key in WARMUP_KEYS}
    pretrain = {key: METRICS[key] for key in _PRETRAIN_KEYS}
    parts = [texts["intro"], "## train\n", _table(train), "## warmup\n", _table(warmup)]
    parts += ["## pretrain\n", _table(pretrain)]
    parts += [texts["warnings"], _warnings_table()]
    parts += [texts["evaluation"], _table(EVALUATION), texts["differences"]]
    return "\n".join(parts).rstrip("\n")
