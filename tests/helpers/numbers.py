"""Numbers that a test found, for `scripts/environments.py --record`, which stores them."""

import json
import os
from typing import Any

WANTED = "OPENRPT_NUMBERS"
"""The environment variable that names the file of JSON lines; without it nothing is kept."""


def record(**numbers: Any) -> None:
    """Keeps numbers by name."""
    if path := os.environ.get(WANTED):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(numbers) + "\n")
