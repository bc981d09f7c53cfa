"""How long one waits for `openrpt --help`, and for the first token of `openrpt train`.

    python benchmarks/startup.py

Each time in a fresh process, from its start; the files are in the system's cache after the first
time, which is not counted, and so is what Python has compiled, as after an installation. The run
that is trained is scored before, and is thrown away.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import (
    FOLDER,
    add_corpus,
    environment,
    exit_cleanly,
    parser_of,
    say,
    spread,
    write_result,
)

from openrpt.cli.main import GARBAGE_THRESHOLD
from openrpt.errors import UserError

IMPORTS = {
    "command": "openrpt.cli.main",
    "torch": "torch",
    "transformers": "transformers",
    "train": "openrpt.stages.train",
}
"""What the result calls it → the module; each alone in a fresh process: a part of the wait."""
IMPORT = f"import gc; gc.set_threshold({GARBAGE_THRESHOLD}); import {{}}"  # as the command does


def main() -> None:
    given = arguments()
    started = environment()
    timed = {
        "help": repeated(lambda: command("-m", "openrpt", "--help"), given.repeats),
        "python": repeated(lambda: command("-c", "pass"), given.repeats),
        "imports": {
            name: repeated(
                lambda module=module: command("-c", IMPORT.format(module)), given.repeats
            )
            for name, module in IMPORTS.items()
        },
    }
    say(f"openrpt --help: {timed['help']['median']:.2f} s")
    with tempfile.TemporaryDirectory(prefix="openrpt-startup-") as folder:
        run = Path(folder) / "run"
        options = ["--run", str(run), "--corpus.path", given.corpus]
        say("scoring what the run needs")
        command("-m", "openrpt", "score", *options, "--score.max_tokens", "2000")
        processor: list[float] = []
        timed["first_token"] = repeated(lambda: first_token(run, processor), given.repeats)
        timed["first_token_processor"] = spread(processor[1:])
    say(
        f"openrpt train, first token: {timed['first_token']['median']:.2f} s,"
        f" {timed['first_token_processor']['median']:.2f} s of processor time"
    )
    write_result(given.output, "startup", started | {"seconds": timed})


def repeated(measure: Callable[[], float], times: int) -> dict[str, Any]:
    measure()  # not counted: it reads the files
    return spread([measure() for _ in range(times)])


def command(*arguments: str) -> float:
    """Seconds that a Python takes. Raises UserError where it fails."""
    start = time.perf_counter()
    compiling = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=compiling
    )
    if done.returncode != 0:
        raise UserError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return time.perf_counter() - start


def first_token(run: Path, processor: list[float]) -> float:
    """Seconds until the first token; adds those of processor time."""
    found = run.parent / "first_token.json"
    found.unlink(missing_ok=True)
    start = time.time()
    command(str(FOLDER / "first_token.py"), str(found), "train", "--run", str(run))
    if not found.is_file():
        raise UserError("openrpt train ended without a token")
    reached = json.loads(found.read_text())
    processor.append(float(reached["processor"]))
    return float(reached["at"]) - start


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add_corpus(parser)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("startup.json"))
    return parser.parse_args()


if __name__ == "__main__":
    exit_cleanly(main)
