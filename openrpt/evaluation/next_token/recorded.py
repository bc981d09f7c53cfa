"""The evaluations that stand in run folders, each with its entry of evaluation.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrpt.engine.gguf_models import is_gguf
from openrpt.errors import UserError
from openrpt.evaluation.next_token.results import ACCURACIES, EvaluationResult
from openrpt.evaluation.records import read_evaluation, result_path
from openrpt.runs.run import Run, owning_run

_COSTS = ("flops", "seconds", "joules", "money")
"""The cost of training, as `training_cost` says it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """One recorded evaluation."""

    name: str
    """Its label; behind its run's name where there are several runs."""
    run: Path
    label: str
    result: EvaluationResult
    entry: dict[str, Any]
    """The entry of evaluation.json."""

    @property
    def run_name(self) -> str:
        """The name of its run, which its own begins with where there are several runs."""
        return self.name.removesuffix(self.label).removesuffix("/") or self.run.name

    @property
    def modes(self) -> list[str]:
        """The accuracies that it has; those of samples only where there were several."""
        shown = [name for name in self.result.measures if name in ACCURACIES]
        of_samples = {"majority", "any_right"} if self.result.samples < 2 else set()
        return [mode for mode in ACCURACIES if mode in shown and mode not in of_samples]

    @property
    def cost(self) -> dict[str, float | None]:
        """The cost of its training, as `training_cost` says it."""
        unknown: dict[str, float | None] = dict.fromkeys((*_COSTS, "steps_without_flops"))
        return unknown | (self.entry.get("cost") or {})


def find_evaluated(sources: Sequence[str]) -> list[Recorded]:
    """Finds the evaluations of run folders; of a model folder in a run, its own alone.

    Raises UserError where there is none.
    """
    found: list[tuple[Run, str, dict[str, Any]]] = []
    for source in sources:
        found += [one for one in _of_source(Path(source)) if one not in found]
    runs = list(dict.fromkeys(run.path for run, _, _ in found))
    names = [path.resolve().name for path in runs]
    short = dict(zip(runs, names if len(set(names)) == len(names) else map(str, runs), strict=True))
    return [
        Recorded(
            name=label if len(runs) == 1 else f"{short[run.path]}/{label}",
            run=run.path,
            label=label,
            result=EvaluationResult.load(result_path(run, label)),
            entry=entry,
        )
        for run, label, entry in found
    ]


def _of_source(path: Path) -> list[tuple[Run, str, dict[str, Any]]]:
    if not path.exists():
        raise UserError(f"{path}: no such folder")
    run = owning_run(path)
    if run is None and path.is_file() and not is_gguf(path):
        raise UserError(f"{path}: a file; give run folders, or models in them")
    if run is None:
        raise UserError(
            f"{path}: neither a run folder nor a model in one; evaluate the model first:"
            f" openrpt evaluate {path} --run …"
        )
    innermost = run
    while run is not None:  # a control's models are evaluated in the run that it is for
        entries = read_evaluation(run.evaluation)["evaluations"]
        found = [
            (run, label, entry)
            for label, entry in entries.items()
            if path == run.path or Path(entry["model"]).resolve() == path.resolve()
        ]
        if found:
            return found
        run = owning_run(run.path.parent) if path != innermost.path else None
    raise UserError(
        f"{path}: nothing was evaluated there; run: openrpt evaluate --run {innermost.path}"
    )
