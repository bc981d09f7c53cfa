"""Puts the experiments' results into the documentation: a page each, and the front page's table.

openrpt experiment rewards --budget cpu
python scripts/make_experiment_docs.py runs/experiment-rewards-cpu
python scripts/make_experiment_docs.py --estimate

Of each folder, results, page and figure go to `docs/results/experiment-NAME.*`, those of another
budget than cpu to `experiment-NAME-BUDGET.*`; the page is written anew from the results. Seeds that
stand there and the folder lacks are kept, so an experiment may be run in parts: on one machine
`--seed 0`, on another `--seed 1`. `--estimate` writes what each experiment will take into
`docs/results/experiments.json`, which the table of `docs/results/README.md` shows. Without folders
the pages are written anew from the results in `docs/results`.
"""

import argparse
from pathlib import Path

from marked import put

from openrpt import amounts
from openrpt.errors import UserError
from openrpt.experiments.answers.catalog import EXPERIMENTS
from openrpt.experiments.answers.estimating import estimate_experiment
from openrpt.experiments.answers.experiment import SIZES, Experiment
from openrpt.experiments.answers.figure import figure_svg
from openrpt.experiments.answers.files import read_outcome, read_results, write_results
from openrpt.experiments.answers.outcome import Outcome
from openrpt.experiments.answers.page import page_text, seeds_in_words
from openrpt.files import write_text
from openrpt.json_files import read_json, write_sealed
from openrpt.sheets import NOTHING, Sheet, markdown

_ROOT = Path(__file__).parent.parent
_DOCS = _ROOT / "docs" / "results"
_ESTIMATES = "experiments.json"
_GPU = "h200"
_BUDGETS = ("cpu", "text", "gpu", "paper")
"""The budgets whose results are shown, the first under the experiment's name alone."""
_ON_GPUS = ("gpu", "paper")
_PRIVATE = {"command", "host"}
"""What is left out of an environment: names and paths of a machine."""


def main() -> None:
    """Rewrites the pages of what was run, and the front page's table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, help="folders of openrpt experiment")
    parser.add_argument("--estimate", action="store_true", help="estimate all of them anew")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        outcome = read_outcome(folder)
        public = {k: v for k, v in outcome.environment.items() if k not in _PRIVATE}
        outcome = outcome.model_copy(update={"environment": public})
        if outcome.budget not in _BUDGETS:
            parser.error(f"{folder}: results of budget {outcome.budget} are not shown")
        known = _outcome(outcome.experiment, outcome.budget)
        path = _DOCS / f"{_page(outcome.experiment, outcome.budget)}.json"
        write_results(path, outcome if known is None else outcome.joined(known))
    if arguments.estimate:
        write_sealed(_DOCS / _ESTIMATES, {name: _estimates(one) for name, one in _named()})
    found = {name: _outcomes(name) for name, _ in _named()}
    for name, outcomes in found.items():
        for outcome in outcomes:
            _write(EXPERIMENTS[name], outcome)
    table = front_table(found, _known_estimates()).strip("\n")
    put(_DOCS / "README.md", "experiments", f"\n\n{table}\n\n")
    put(_ROOT / "mkdocs.yml", "experiments", _nav(found))


def _named() -> list[tuple[str, Experiment]]:
    return list(EXPERIMENTS.items())


def _page(name: str, budget: str) -> str:
    """Returns the name of an experiment's page, without an ending."""
    return f"experiment-{name}" if budget == _BUDGETS[0] else f"experiment-{name}-{budget}"


def _outcome(name: str, budget: str) -> Outcome | None:
    """Returns the results that stand in the documentation; None where it was not run."""
    path = _DOCS / f"{_page(name, budget)}.json"
    return read_results(path) if path.is_file() else None


def _outcomes(name: str) -> list[Outcome]:
    """Returns the results of an experiment at all budgets."""
    found = [_outcome(name, budget) for budget in _BUDGETS]
    return [one for one in found if one is not None]


def _write(experiment: Experiment, outcome: Outcome) -> None:
    name = _page(experiment.name, outcome.budget)
    write_text(_DOCS / f"{name}.svg", figure_svg(experiment, outcome))
    write_text(_DOCS / f"{name}.md", page_text(experiment, outcome, figure=f"{name}.svg"))


def _estimates(experiment: Experiment) -> dict[str, str]:
    """Returns the estimated time by budget; on real text of one GPU, empty where the recipe's
    model can't be had here."""
    found = {}
    for size in _BUDGETS:
        gpu = _GPU if size in _ON_GPUS else ""
        try:
            estimate = estimate_experiment(experiment, SIZES[size], gpu=gpu)
        except UserError:  # the paper's models are on the Hub alone
            found[size] = ""
            continue
        found[size] = amounts.rough_duration(estimate.seconds)
    return found


def _known_estimates() -> dict[str, dict[str, str]]:
    path = _DOCS / _ESTIMATES
    return read_json(path, advice="run this script with --estimate") if path.is_file() else {}


def front_table(found: dict[str, list[Outcome]], estimates: dict[str, dict[str, str]]) -> str:
    """Returns a row an experiment and a budget that it was run at: its answer; or the command that
    gives one. The first row of an experiment has its question and its cost."""
    rows = []
    for name, outcomes in found.items():
        experiment, known = EXPERIMENTS[name], estimates.get(name, {})
        cost = [known.get(size) or NOTHING for size in _BUDGETS]
        answers = [
            [
                f"[{name}{_beside(outcome.budget)}]({_page(name, outcome.budget)}.md)",
                f"{experiment.answer(outcome)} ({seeds_in_words(outcome)}, {outcome.budget})",
            ]
            for outcome in outcomes
        ]
        answers = answers or [[name, f"not run yet: `openrpt experiment {name} --budget cpu`"]]
        (label, answer), *more = answers
        rows.append([label, experiment.question, answer, *cost])
        rows += [[label, "", answer, *[""] * len(cost)] for label, answer in more]
    headings = ["experiment", "question", "answer", *_BUDGETS]
    notes = [
        "cpu, text, gpu, paper: what `openrpt experiment NAME --budget … --estimate` said, an upper"
        " estimate; cpu and text on two busy cores, one process, gpu and paper on one"
        f" {_GPU} at a quarter of its peak; –: not estimated, or the recipe's model could not be"
        " reached"
    ]
    return markdown(Sheet(title="", headings=headings, rows=rows, labels=3, notes=notes))


def _beside(budget: str) -> str:
    """Returns what a title has behind the experiment's name."""
    return "" if budget == _BUDGETS[0] else f", {budget}"


def _nav(found: dict[str, list[Outcome]]) -> str:
    lines = [
        f"- Experiment, {name}{_beside(one.budget)}: results/{_page(name, one.budget)}.md"
        for name, outcomes in found.items()
        for one in outcomes
    ]
    return "".join(f"          {line}\n" for line in lines) + "          "


if __name__ == "__main__":
    main()
