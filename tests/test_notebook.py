"""The example notebook, executed as a user would, on a run made of files."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.fake_run import fake_run

ROOT = Path(__file__).parent.parent
PATIENCE = 600
"""Seconds that the kernel may take to start: other programs may have the processor."""


@pytest.mark.filterwarnings("default")  # the kernel's messaging, not ours
def test_look_at_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRPT_RUN", str(fake_run(tmp_path / "run")))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    path = ROOT / "docs" / "notebooks" / "look_at_a_run.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # stored without outputs
    NotebookClient(
        notebook, timeout=None, startup_timeout=PATIENCE, kernel_name="python3"
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = outputs[-1]["data"]["text/html"]
    assert shown.startswith("<iframe srcdoc=") and "OpenRPT run report" in shown
    text = "".join(output.get("text", "") for output in outputs)
    assert "predicted: b' the' reward 1.0" in text
