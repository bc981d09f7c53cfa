"""OpenRPT: reinforcement pre-training.

corpus → documents → tokens → scoring → positions → prompts → generation → completions
→ rewards → rollouts → advantages → losses (on the document tree) → checkpoint → evaluation
→ report. Each word is a module; each stage is a function from files and a config to files.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from openrpt.loaded import LoadedRun


__version__ = "0.1.0"


def load_run(path: "str | Path") -> "LoadedRun":
    """Opens a run folder as tables: `.config`, `.metrics()`, `.rollouts(step)`, `.evaluation`,
    `.report()`; see `openrpt.loaded.LoadedRun`. Raises UserError where no run is."""
    from openrpt.loaded import load_run

    return load_run(path)
