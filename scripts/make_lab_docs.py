"""Puts the laboratories' results into the pages: `lab.json` and figure of each, and their tables;
the first one's also into the README.

openrpt lab scan --seeds 5
python scripts/make_lab_docs.py runs/lab-scan runs/lab-registers
"""

import argparse
import shutil
from pathlib import Path

from marked import put

from openrpt.experiments.lab.files import FIGURE, OUTCOME, TABLES, read_outcome
from openrpt.experiments.lab.outcome import Outcome
from openrpt.experiments.lab.tables import lab_sheet
from openrpt.sheets import Sheet, markdown

_ROOT = Path(__file__).parent.parent
_DOCS = _ROOT / "docs"
_ARMS = {
    "rpt": "reinforcement pre-training",
    "traces": "worked lines alone, supervised",
    "ntp": "continual next-token training",
    "deeper": "8 layers in place of 2, no thought",
    "random-reward": "reinforcement with a coin as reward",
    "filler": "reinforcement behind a useless thought",
    "no-thought": "reinforcement without a thought",
}
"""The arms that the README shows, and their names there."""


def main() -> None:
    """Rewrites `docs/results/lab-WORLD.*`, and what stands between the marks of the two pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders of openrpt lab, one a world")
    sections, folders = [], parser.parse_args().folders
    for folder in folders:
        world = folder.name.removeprefix("lab-")
        shutil.copy(folder / OUTCOME, _DOCS / "results" / f"lab-{world}.json")
        shutil.copy(folder / FIGURE, _DOCS / "results" / f"lab-{world}.svg")
        figure = f"![Accuracy over depth in {world}, a line an arm](results/lab-{world}.svg)"
        sections.append(f"### {world}\n\n{figure}\n\n{(folder / TABLES).read_text().strip()}\n")
    put(_DOCS / "lab.md", "results", "\n\n" + "\n".join(sections) + "\n")
    table = _short_table(read_outcome(folders[0]))
    put(_ROOT / "README.md", "lab-table", f"\n\n{table}\n")
    shutil.copy(folders[0] / FIGURE, _DOCS / "images" / "lab.svg")


def _short_table(outcome: Outcome) -> str:
    """Returns accuracy with a thought at the depths shown and beyond, and without one."""
    sheet = lab_sheet(outcome)
    rows = {row[0]: row for row in sheet.rows}
    return markdown(
        Sheet(
            title="",
            headings=["", "depths that worked lines show", "beyond them", "without a thought"],
            rows=[[name, *rows[arm][2:5]] for arm, name in _ARMS.items()],
            notes=[f"{outcome.world}, {len(outcome.seeds)} seeds; {sheet.notes[0]}"],
        )
    )


if __name__ == "__main__":
    main()
