"""What the benchmarks share: the machine's facts, child processes, medians, and the result files.

A result is one JSON file, `results/NAME.json`: what was measured, on what, by which versions and
commit, and when. No path, host or user name goes into it.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from openrpt.errors import UserError
from openrpt.files import write_text
from openrpt.json_files import json_text

FOLDER = Path(__file__).parent
sys.path.append(str(FOLDER.parent / "scripts"))  # for `environments`, where peers run
RESULTS = FOLDER / "results"
GIB = 2**30
BUSY = 0.5
"""A load average (of a minute) above this is warned of; what a last benchmark left fades."""
_BEGAN = time.monotonic()


def say(text: str) -> None:
    """A line of progress, with the minutes and seconds since the benchmark began."""
    minutes, seconds = divmod(int(time.monotonic() - _BEGAN), 60)
    print(f"[{minutes:2d}:{seconds:02d}] {text}", flush=True)


def parser_of(text: str | None) -> argparse.ArgumentParser:
    """A parser for a benchmark's options, described by the first line of its docstring."""
    return argparse.ArgumentParser(description=(text or "").partition("\n")[0])


def add_corpus(parser: argparse.ArgumentParser) -> None:
    """Adds the option of the text that is scored."""
    parser.add_argument(
        "--corpus", default="champ", help="as corpus.path takes it; default: the demo's corpus"
    )


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median and range of repeated measurements, and the measurements themselves."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": list(values),
    }


def per_rollout(found: dict[str, Any]) -> float:
    """Seconds of a child's counted steps, a rollout."""
    seconds = sum(step["seconds"] for step in found["steps"])
    return seconds / sum(step["rollouts"] for step in found["steps"])


def per_rollout_of(found: dict[str, Any], rollouts: int) -> float:
    """Seconds of a child's one counted step, a rollout of a step of so many: its phases grow with
    the rollouts, and the optimizer's step counts once for all."""
    (step,) = found["steps"]
    linear = sum(step["phases"].values())
    return linear / step["rollouts"] + (step["seconds"] - linear) / rollouts


def shares(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By phase: needed FLOPs ÷ (seconds × rate), of OpenRPT's children. `of_limit` takes the
    rate of the model's own products at the phase's shapes, `of_single_product` that of one large
    product; the rates stand beside them, in GFLOP/s."""
    phases = found[0]["steps"][0]["flop"]

    def of(phase: str, rate: str) -> dict[str, Any]:
        return spread(
            [
                step["flop"][phase] / step["phases"][phase] / child["rates"][rate]
                for child in found
                for step in child["steps"]
            ]
        )

    rates = found[0]["rates"]
    return {
        "of_limit": {phase: of(phase, phase) for phase in phases},
        "of_single_product": {phase: of(phase, "single_product") for phase in phases},
        "gflop_per_second": {
            name: spread([child["rates"][name] / 1e9 for child in found]) for name in rates
        },
    }


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_average_at_start": list(psutil.getloadavg()),
    }


def versions(*packages: str) -> dict[str, str]:
    """The interpreter's and the packages' versions in this environment."""
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version()} | found


def own_versions() -> dict[str, str]:
    import openrpt

    return versions("torch", "transformers") | {"openrpt": openrpt.__version__}


def commit() -> str:
    """The checked-out commit; `-modified` where tracked files (results aside) differ."""
    git = ["git", "-C", str(FOLDER)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode != 0:
        return "unknown"
    code = [":/", ":(top,exclude)benchmarks/results"]
    status = [*git, "status", "--porcelain", "--untracked-files=no", "--", *code]
    changed = subprocess.run(status, capture_output=True)
    return head.stdout.strip() + ("-modified" if changed.stdout.strip() else "")


def environment() -> dict[str, Any]:
    """Taken when the benchmark starts: what the results depend on besides the case.

    Warns where the machine is busy.
    """
    if (load := psutil.getloadavg()[0]) > BUSY:
        say(f"warning: the load average is {load:.1f}: other work spoils timings")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": own_versions(),
    }


def write_result(path: Path, benchmark: str, result: dict[str, Any]) -> None:
    """A bare file name lies in `results/`."""
    path = RESULTS / path if len(path.parts) == 1 else path
    write_text(path, json_text({"benchmark": benchmark} | result))
    say(f"written: {path}")


class ChildFailed(UserError):
    """A measuring process died; `killed` where the system ended it (mostly for memory)."""

    def __init__(self, message: str, *, killed: bool) -> None:
        super().__init__(message)
        self.killed = killed


def run_child(
    python: str | Path, script: str, job: dict[str, Any], *, isolated: bool = False
) -> dict[str, Any]:
    """Runs `script` on a job in a process of its own; both ways the data go as JSON.

    `job["threads"]` holds for the child's libraries, too. `isolated`: the child sees its own
    environment only, neither this folder nor PYTHONPATH. Raises ChildFailed with the last of
    what the child printed.
    """
    threads = str(job["threads"])
    quiet = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    with tempfile.TemporaryDirectory(prefix="openrpt-benchmark-") as folder:
        given, found, log = (Path(folder) / name for name in ("job.json", "found.json", "log"))
        given.write_text(json.dumps(job))
        isolation = ["-I"] if isolated else []
        command = [str(python), *isolation, str(FOLDER / script), str(given), str(found)]
        with log.open("wb") as output:
            done = subprocess.run(command, stdout=output, stderr=output, env=os.environ | quiet)
        if done.returncode != 0 or not found.is_file():
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
            message = f"{script} ended with status {done.returncode}:\n{tail}"
            raise ChildFailed(message, killed=done.returncode in (-9, 137))
        return json.loads(found.read_text())


def exit_cleanly(main: Callable[[], None]) -> None:
    """Runs a benchmark's `main`; a user's error is its message and status 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
