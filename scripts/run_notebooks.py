"""Runs the notebooks of docs/learn and stores their outputs.

Usage: python scripts/run_notebooks.py [NAME…]

After an edit; needs the extra `notebook`. Neither times nor warnings are stored, and pictures get a
palette of 64 colours: a tenth of the size, and nobody sees it.
"""

import base64
import io
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parent.parent


def run(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", record_timing=False).execute()
    for number, cell in enumerate(notebook.cells):
        cell["id"], cell["metadata"] = f"cell-{number}", {}
        if "outputs" in cell:
            cell["outputs"] = [one for one in cell["outputs"] if one.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output["data"] = {"image/png": smaller(output["data"]["image/png"])}
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def smaller(png: str) -> str:
    """The picture on white, in base64."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    page = Image.new("RGBA", picture.size, "white")
    page.alpha_composite(picture)
    stored = io.BytesIO()
    page.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(stored, "PNG", optimize=True)
    return base64.b64encode(stored.getvalue()).decode()


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    names = sys.argv[1:] or sorted(p.stem for p in (ROOT / "docs" / "learn").glob("*.ipynb"))
    for name in names:
        run(ROOT / "docs" / "learn" / f"{name}.ipynb")
        print(f"ran {name}")
