"""What was run of docs/verl.md: `python scripts/check_verl.py` writes docs/results/verl.json.

Runs the tests of the export in verl's environment (`scripts/environments.py`), against verl itself,
and keeps which passed, what they counted, and the versions. Five minutes on two cores.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from openrpt.errors import UserError
from openrpt.files import write_text
from openrpt.json_files import json_text
from openrpt.terminal import say, say_error
from scripts.environments import environment_python

_ROOT = Path(__file__).parent.parent
_RESULT = _ROOT / "docs" / "results" / "verl.json"
_PACKAGES = ("verl", "transformers", "torch", "tensordict", "ray", "TransferQueue", "hydra-core")
_VERSIONS = """
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


def check() -> dict[str, Any]:
    """Runs the tests and returns what is stored. Raises UserError where one fails."""
    python = str(environment_python("verl"))
    tests = sorted(map(str, (_ROOT / "tests" / "integrations").glob("test_verl*.py")))
    with tempfile.TemporaryDirectory() as folder:
        numbers, report = Path(folder, "numbers.jsonl"), Path(folder, "report.xml")
        numbers.touch()
        environment = os.environ | {"PYTHONPATH": str(_ROOT), "OPENRPT_NUMBERS": str(numbers)}
        command = [python, "-m", "pytest", "-q", "-W", "ignore", f"--junit-xml={report}", *tests]
        failed = subprocess.run(command, cwd=_ROOT, env=environment).returncode
        if failed:
            raise UserError("the checks of verl fail; see above. Nothing is written")
        counted: dict[str, Any] = {}
        for line in numbers.read_text(encoding="utf-8").splitlines():
            counted |= json.loads(line)
        cases = ElementTree.parse(report).iter("testcase")
        passed = [case.attrib["name"] for case in cases if case.find("skipped") is None]
    shown = subprocess.run([python, "-c", _VERSIONS, *_PACKAGES], capture_output=True, check=True)
    return {"versions": json.loads(shown.stdout), "numbers": counted, "passed": passed}


if __name__ == "__main__":
    try:
        write_text(_RESULT, json_text(check()))
        say(f"written: {_RESULT}")
    except UserError as error:
        say_error(str(error))
        sys.exit(2)
