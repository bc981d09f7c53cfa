"""Puts the laboratories' results into docs: `lab.json` and figure of each, and their tables.

openrpt lab scan --seeds 5
python scripts/make_lab_docs.py runs/lab-scan runs/lab-registers
"""

import argparse
import shutil
from pathlib import Path

from openrpt.experiments.lab.files import FIGURE, OUTCOME, TABLES
from openrpt.files import write_text

_DOCS = Path(__file__).parent.parent / "docs"
_BEGIN, _END = "<!-- results -->", "<!-- /results -->"


def main() -> None:
    """Rewrites `docs/results/lab-WORLD.*`, and what stands between the marks of `docs/lab.md`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders of openrpt lab, one a world")
    sections = []
    for folder in parser.parse_args().folders:
        world = folder.name.removeprefix("lab-")
        shutil.copy(folder / OUTCOME, _DOCS / "results" / f"lab-{world}.json")
        shutil.copy(folder / FIGURE, _DOCS / "results" / f"lab-{world}.svg")
        figure = f"![Accuracy over depth in {world}, a line an arm](results/lab-{world}.svg)"
        sections.append(f"### {world}\n\n{figure}\n\n{(folder / TABLES).read_text().strip()}\n")
    page = _DOCS / "lab.md"
    before, _, rest = page.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    write_text(page, f"{before}{_BEGIN}\n\n" + "\n".join(sections) + f"\n{_END}{after}")


if __name__ == "__main__":
    main()
