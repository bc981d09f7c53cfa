"""What opened a run: when, where, by which command and which versions."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Returns what `environment.json` holds: of the last stage that began."""
    import torch
    import transformers

    import openrpt

    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join([_program(), *sys.argv[1:]]),
        "host": platform.node(),
        "commit": _commit(Path(openrpt.__file__).parents[1]),
        "openrpt": openrpt.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _program() -> str:
    """Returns the program's name: openrpt's own where it runs as `python -m openrpt`."""
    name = Path(sys.argv[0]).name
    return "openrpt" if name == "__main__.py" else name


def _commit(checkout: Path) -> str:
    """Returns the commit that a checkout stands at; empty where the package was installed."""
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        return ""
    command = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
