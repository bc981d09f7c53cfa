"""Puts the laboratories' results into the pages: `lab.json` and figure of each, and their tables;
the first one's also into the README.

openrpt lab scan --seeds 5
python scripts/make_lab_docs.py runs/lab-scan runs/lab-registers

Seeds that stand in `docs/results` and a folder lacks are kept, so a world may be run in parts: on
one machine `--seed 0`, on another `--seed 1`. Without folders the pages are written anew from the
results in `docs/results`.
"""

import argparse
from pathlib import Path

from marked import put

from openrpt.experiments.lab.figure import lab_svg
from openrpt.experiments.lab.files import OUTCOME, read_outcome, tables_text, write_outcome
from openrpt.experiments.lab.outcome import Outcome
from openrpt.experiments.lab.tables import lab_sheet
from openrpt.files import write_text
from openrpt.sheets import Sheet, markdown

_ROOT = Path(__file__).parent.parent
_DOCS = _ROOT / "docs"
_WORLDS = ("scan", "permutations", "registers", "find")
"""The worlds with results, in the page's order; the first one's are in the README, too."""
_ARMS = {
    "rpt": "reinforcement pre-training",
    "traces": "worked lines alone, supervised",
    "ntp": "continual next-token training",
    "no-thought": "reinforcement without a thought",
}
"""The arms that the README shows, and their names there."""


def main() -> None:
    """Rewrites `docs/results/lab-WORLD.*`, and what stands between the marks of the two pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, help="folders of openrpt lab")
    for folder in parser.parse_args().folders:
        outcome = read_outcome(folder / OUTCOME)
        path = _results(outcome.world)
        write_outcome(path, outcome.joined(read_outcome(path)) if path.is_file() else outcome)
    found = {world: read_outcome(_results(world)) for world in _WORLDS}
    sections = [_section(world, outcome) for world, outcome in found.items()]
    put(_DOCS / "lab.md", "results", "\n\n" + "\n".join(sections) + "\n")
    first = _WORLDS[0]
    put(_ROOT / "README.md", "lab-table", f"\n\n{_short_table(found[first])}\n")


def _results(world: str) -> Path:
    return _DOCS / "results" / f"lab-{world}.json"


def _section(world: str, outcome: Outcome) -> str:
    """Draws the figure; returns what the page says of a world."""
    write_text(_results(world).with_suffix(".svg"), lab_svg(outcome))
    figure = f"![Accuracy over depth in {world}, a line an arm](results/lab-{world}.svg)"
    return f"### {world}\n\n{figure}\n\n{tables_text(outcome).strip()}\n"


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
