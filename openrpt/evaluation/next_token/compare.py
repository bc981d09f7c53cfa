"""Every evaluated model of one or several runs in one table, on the same positions.

Positions are matched by document and byte offset, so models with different tokenizers meet where
both predict at the same byte; each is graded by the token boundaries of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from openrpt.data.positions import DIFFICULTIES
from openrpt.errors import UserError, nearest
from openrpt.evaluation.next_token.recorded import Recorded
from openrpt.evaluation.next_token.results import EvaluationResult, paired_differences
from openrpt.evaluation.next_token.verdict import result_verdict
from openrpt.evaluation.statistics import Difference, Estimate, mean_of_slices
from openrpt.runs.run import owning_run


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """One row of the table: a model in one mode."""

    model: Recorded
    mode: str
    differences: dict[str, Difference]
    """The differences by slice: this line − the one compared with."""

    @property
    def name(self) -> str:
        """The line's name, `trained reasoning`: what `--against` takes."""
        return f"{self.model.name} {self.mode}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """All models in all modes, beside the line that they are compared with."""

    models: list[Recorded]
    """The models, on the common positions."""
    lines: list[Line]
    against: str
    """The line that differences are to."""
    verdicts: dict[str, str]
    """For each model whether thinking is said to help, where controls were evaluated."""
    notes: list[str] = field(default_factory=list)


def compare(models: Sequence[Recorded], against: str = "") -> Comparison:
    """Returns accuracies and paired differences on the positions that all models have in common.

    `against`: a model's name, or a line's (`start ntp`); '' = the first line of those at the
    positions at which most was evaluated, over all models. Models with the
    tokens of the one compared with but at other positions are left out, and named in the notes;
    others need only share byte offsets. Raises UserError for an unknown name and where no
    position is common.
    """
    basis, mode = _find_line(models, against)
    kept = [model for model in models if _comparable(basis, model)]
    common = _align(kept, basis)
    notes = _notes(models, common, basis)
    basis = next(model for model in common if model.name == basis.name)
    parts = basis.result.slices()
    lines = [
        Line(
            model=model,
            mode=own,
            differences=paired_differences(model.result, own, basis.result, mode, parts),
        )
        for model in common
        for own in model.modes
    ]
    return Comparison(
        models=common,
        lines=lines,
        against=f"{basis.name} {mode}",
        verdicts=_verdicts(common),
        notes=notes,
    )


def _find_line(models: Sequence[Recorded], against: str) -> tuple[Recorded, str]:
    lines = {f"{model.name} {mode}": (model, mode) for model in models for mode in model.modes}
    firsts = {model.name: (model, model.modes[0]) for model in models}
    if not against:
        return firsts[max(models, key=lambda one: _evaluated_there(one, models)).name]
    found = lines | firsts
    if against not in found:
        hint = nearest(against, found, otherwise=f"there are: {', '.join(firsts)}", cutoff=0.3)
        raise UserError(f"--against '{against}': no such model here{hint}")
    return found[against]


def _evaluated_there(basis: Recorded, models: Sequence[Recorded]) -> int:
    """Returns how many predictions of all models can be compared with those of one."""
    return sum(_comparable(basis, model) for model in models) * basis.result.num_positions


def _keys(result: EvaluationResult) -> list[tuple[str, int]]:
    """Returns what names a position whatever the tokenizer: (document, byte offset)."""
    columns = result.columns
    return list(zip(columns["document_id"].tolist(), columns["byte_offset"].tolist(), strict=True))


def _comparable(basis: Recorded, model: Recorded) -> bool:
    """Returns whether results can be compared: same tokens, same positions; with other tokens,
    whatever meets."""
    other = model.result.tokenizer != basis.result.tokenizer
    return other or set(_keys(model.result)) == set(_keys(basis.result))


def _align(models: Sequence[Recorded], basis: Recorded) -> list[Recorded]:
    """Returns the same positions in the same order (the basis's) for all. Raises UserError for
    none."""
    rows = [{key: row for row, key in enumerate(_keys(m.result))} for m in models]
    common = [key for key in _keys(basis.result) if all(key in own for own in rows)]
    if not common:
        raise UserError(
            f"no position is common to {', '.join(model.name for model in models)}: evaluate them"
            " on the same scores (openrpt evaluate MODEL --run RUN), or compare fewer"
        )
    return [
        replace(model, result=model.result.at(np.array([own[key] for key in common])))
        for model, own in zip(models, rows, strict=True)
    ]


def _notes(models: Sequence[Recorded], common: Sequence[Recorded], basis: Recorded) -> list[str]:
    """Returns what must be known to read the table. `basis` as it was before it was aligned."""
    notes = []
    names = {model.name for model in common}
    left_out = [model.name for model in models if model.name not in names]
    if left_out:
        notes.append(
            f"left out, evaluated at other positions than {basis.name} (--against compares with"
            f" another): {', '.join(left_out)}"
        )
    if len({model.result.tokenizer for model in common}) > 1:
        count, before = common[0].result.num_positions, basis.result.num_positions
        notes.append(
            f"models with different tokenizers are compared by bytes: {count:,} of {before:,}"
            " positions stand on a token boundary of all of them; each model is graded by its own"
            " tokens"
        )
    for model in common:
        if seen := model.entry.get("supervision"):
            notes.append(f"{model.name} comes of a supervised warmup: it saw {seen}")
    if len({model.result.scorer for model in common}) > 1:
        notes.append(f"difficulty is by the scorer of {basis.name}: {basis.result.scorer}")
    return notes


def thought_verdict(models: Sequence[Recorded], name: str) -> str:
    """Returns what `compare` says of one model's thought, for what that alone takes.

    Raises UserError as `compare` does, KeyError for a model whose thought was not changed.
    """
    basis = next(model for model in models if model.name == name)
    needed = [m for m in models if m is basis or _trained_without_thought(m)]
    common = _align([m for m in needed if _comparable(basis, m)], basis)
    return _verdicts(common)[name]


def _verdicts(models: Sequence[Recorded]) -> dict[str, str]:
    """Returns the verdict on each model whose thought was changed, against the first run without
    one."""
    without = next((model.result for model in models if _trained_without_thought(model)), None)
    changed = [m for m in models if {"emptied", "swapped"} & m.result.columns.keys()]
    return {m.name: result_verdict(m.result, without) for m in changed}


def _trained_without_thought(model: Recorded) -> bool:
    path = Path(model.entry["model"])
    run = owning_run(path)
    if run is None or path.parent != run.checkpoints or not model.result.has_reasoning:
        return False
    prompt = run.config.prompt
    return not (prompt.candidates or prompt.think_budget or model.result.thinks)


def mean_over_difficulties(line: Line) -> Estimate:
    """Returns the mean of the accuracies at easy, medium and hard positions (the paper's Figure
    4)."""
    result = line.model.result
    parts = result.slices()
    values = result.columns[line.mode].astype(float)
    masks = [parts[part] & ~np.isnan(values) for part in DIFFICULTIES]
    return mean_of_slices(values, masks, result.columns["document_id"])
