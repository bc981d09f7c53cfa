"""The notebooks for newcomers, executed; each asserts what it shows."""

import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
PATIENCE = 600
"""Seconds that the kernel may take to start: other programs may have the processor."""
NOTEBOOKS = sorted((ROOT / "docs" / "learn").glob("*.ipynb"))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelManager]:
    """One for all notebooks: importing torch and the first drawn chart take longer than some."""
    folder = tmp_path_factory.mktemp("kernel")
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    started = KernelManager(kernel_name="python3")
    started.start_kernel(
        env=os.environ | {"IPYTHONDIR": str(folder), "PYTHONPATH": paths}, cwd=str(folder)
    )
    yield started
    started.shutdown_kernel(now=True)


@pytest.mark.filterwarnings("default")  # the kernel's messaging, not ours
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_shows_what_it_says(path: Path, kernel: KernelManager) -> None:
    notebook = nbformat.read(path, as_version=4)
    stored = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in stored)  # readable as it is
    assert "assert " in "".join(cell.source for cell in notebook.cells)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))  # of the notebook before
    client = NotebookClient(notebook, km=kernel, timeout=None, startup_timeout=PATIENCE)
    try:
        client.execute()
    finally:
        assert client.kc is not None
        client.kc.stop_channels()


def test_all_three_are_there() -> None:
    names = {path.stem for path in NOTEBOOKS}
    assert names == {"policy_gradient", "ntp_and_reasoning", "rewards"}
