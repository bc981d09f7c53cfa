"""The notebooks for newcomers, executed; each asserts what it shows."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
PATIENCE = 600
"""Seconds that the kernel may take to start: other programs may have the processor."""
NOTEBOOKS = sorted((ROOT / "docs" / "learn").glob("*.ipynb"))


@pytest.mark.filterwarnings("default")  # the kernel's messaging, not ours
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_shows_what_it_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    stored = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in stored)  # readable as it is
    assert "assert " in "".join(cell.source for cell in notebook.cells)
    NotebookClient(
        notebook, timeout=None, startup_timeout=PATIENCE, kernel_name="python3"
    ).execute()


def test_all_three_are_there() -> None:
    names = {path.stem for path in NOTEBOOKS}
    assert names == {"policy_gradient", "ntp_and_reasoning", "rewards"}
