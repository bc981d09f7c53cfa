"""The files of an experiment: what each arm measured, its results, its page and its figure."""

from pathlib import Path

from openrpt.errors import UserError
from openrpt.experiments.answers.experiment import Experiment, Size
from openrpt.experiments.answers.figure import figure_svg
from openrpt.experiments.answers.outcome import Measured, Outcome
from openrpt.experiments.answers.page import page_text
from openrpt.files import write_text
from openrpt.json_files import checked_as, read_json, write_sealed

_FORMAT = 1
RESULTS, PAGE, FIGURE = "results.json", "page.md", "figure.svg"
_WHOSE = "experiment.json"


def claim_folder(folder: Path, experiment: Experiment, size: Size) -> None:
    """Makes a folder that of an experiment at a size. Raises UserError where it is another's, or
    holds something else."""
    path, own = folder / _WHOSE, {"experiment": experiment.name, "budget": size.name}
    if path.is_file():
        known = read_json(path, advice="delete it")
        if known != own:
            raise UserError(
                f"{folder}: holds the experiment {known.get('experiment')} at budget"
                f" {known.get('budget')}; choose another --run"
            )
        return
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file of that name stands there; choose another --run")
    if folder.is_dir() and any(folder.iterdir()) and not any(folder.glob("seed-*")):
        raise UserError(
            f"{folder}: the folder is not empty and no experiment; choose another --run"
        )
    write_sealed(path, own)


def write_measured(folder: Path, measured: Measured) -> None:
    """Says that an arm of the seed in this folder is done."""
    write_sealed(folder / f"{measured.arm}.json", measured.model_dump())


def read_measured(folder: Path, arm: str) -> Measured | None:
    """Returns what an arm measured; None before it is done. Raises UserError where the file is
    damaged."""
    path, advice = folder / f"{arm}.json", "delete it, and the arm is measured again"
    if not path.is_file():
        return None
    return checked_as(Measured, read_json(path, advice=advice), path, advice=advice)


def write_results(path: Path, outcome: Outcome) -> None:
    """Writes the results alone."""
    write_sealed(path, {"format": _FORMAT, **outcome.model_dump()})


def write_outcome(folder: Path, experiment: Experiment, outcome: Outcome) -> None:
    """Writes the results, then page and figure; each atomic."""
    write_results(folder / RESULTS, outcome)
    write_text(folder / PAGE, page_text(experiment, outcome))
    write_text(folder / FIGURE, figure_svg(experiment, outcome))


def read_outcome(folder: Path) -> Outcome:
    """Reads `results.json`. Raises UserError where it is damaged."""
    return read_results(folder / RESULTS)


def read_results(path: Path) -> Outcome:
    """Reads what `write_results` wrote. Raises UserError where it is damaged."""
    advice = "run the same openrpt experiment again"
    return checked_as(Outcome, read_json(path, advice=advice), path, advice=advice)
