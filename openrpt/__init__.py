"""OpenRPT: reinforcement pre-training.

corpus → documents → tokens → scores → positions → prompts → completions → rewards → advantages
→ losses (on the document tree) → checkpoint → evaluation → report. Each stage is a function from
files and a configuration to files; `docs/architecture.md` has the way of one prediction.

What other code may import is here and in `openrpt.tokens`, `completions`, `rewards`, `advantages`
and `losses`; docs/api.md is made from their docstrings.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openrpt.config.loading import load_config
    from openrpt.config.sections import Config
    from openrpt.data.scored import ScoredCorpus, load_scored
    from openrpt.data.selection import select_positions
    from openrpt.engine.engine import open_engine
    from openrpt.loaded import LoadedRun, load_run

__version__ = "0.1.0"
__all__ = [
    "Config",
    "LoadedRun",
    "ScoredCorpus",
    "load_config",
    "load_run",
    "load_scored",
    "open_engine",
    "select_positions",
]

_HOMES = {
    "Config": "openrpt.config.sections",
    "LoadedRun": "openrpt.loaded",
    "ScoredCorpus": "openrpt.data.scored",
    "load_config": "openrpt.config.loading",
    "load_run": "openrpt.loaded",
    "load_scored": "openrpt.data.scored",
    "open_engine": "openrpt.engine.engine",
    "select_positions": "openrpt.data.selection",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is asked for, so that `import openrpt` loads nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'openrpt' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Returns what `__getattr__` would import too, for whoever completes a name."""
    return sorted({*globals(), *__all__})
