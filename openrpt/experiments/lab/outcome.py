"""The results of a laboratory: accuracy by arm, depth and seed."""

import re
from collections.abc import Callable, Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict

from openrpt.data.worlds.world import World
from openrpt.errors import UserError
from openrpt.evaluation.next_token.results import CARRIED, KIND
from openrpt.experiments.lab.lab import ARMS, Lab
from openrpt.experiments.lab.sampled import SampledCounts, sampled_at
from openrpt.runs.run import Run, existing_run, is_run

_CONTROLS = ("emptied", "swapped", CARRIED)


class Cell(BaseModel):
    """An arm at a depth and a seed: shares of `n` held-out problems."""

    model_config = ConfigDict(frozen=True)

    arm: str
    seed: int
    depth: int
    n: int
    accuracy: float
    """The accuracy of reasoning; of an arm that never thinks, standard prediction's."""
    standard: float
    """The accuracy of the same weights' standard prediction."""
    emptied: float | None = None
    """The accuracy with its thought emptied; None where the arm has no thought, as the next two."""
    swapped: float | None = None
    """The accuracy with another problem's thought."""
    carried: float | None = None
    """Share of the predictions after another problem's thought that are that problem's."""


class Outcome(BaseModel):
    """Everything that table and figure are drawn from."""

    model_config = ConfigDict(frozen=True)

    world: str
    shown: int
    """The deepest problem of which a thought was shown."""
    chance: float
    worked_share: float
    """The share of worked ones among the thoughts in the start's text."""
    cells: list[Cell]
    sampled: list[SampledCounts]
    """What the start samples, a value a seed."""

    @property
    def seeds(self) -> list[int]:
        """The seeds with results, in order."""
        return sorted({cell.seed for cell in self.cells})

    @property
    def arms(self) -> list[str]:
        """The arms with results, in the order of ARMS."""
        found = {cell.arm for cell in self.cells}
        return [arm for arm in ARMS if arm in found]

    def joined(self, other: "Outcome") -> "Outcome":
        """Returns these results and the seeds that `other` alone has, of another machine or day.

        Raises UserError where the two are not of the same world.
        """
        for name in ("world", "shown", "chance", "worked_share"):
            if getattr(self, name) != getattr(other, name):
                raise UserError(f"lab:{self.world}: the results to join differ in '{name}'")
        cells = [*self.cells, *(one for one in other.cells if one.seed not in self.seeds)]
        known = {one.seed for one in self.sampled}
        sampled = [*self.sampled, *(one for one in other.sampled if one.seed not in known)]
        return self.model_copy(
            update={
                "cells": sorted(cells, key=lambda cell: cell.seed),
                "sampled": sorted(sampled, key=lambda counts: counts.seed),
            }
        )

    def share(
        self, arm: str, seed: int, inside: Callable[[int], bool], measure: str = "accuracy"
    ) -> float:
        """Returns the share over all problems of the depths that are `inside`; NaN where it is not
        known.

        `measure`: a field of Cell.
        """
        chosen = [
            (value, cell.n)
            for cell in self.cells
            if (cell.arm, cell.seed) == (arm, seed) and inside(cell.depth)
            if (value := getattr(cell, measure)) is not None
        ]
        if not chosen:
            return float("nan")
        values, sizes = zip(*chosen, strict=True)
        return float(np.average(values, weights=sizes))


def finished_runs(lab: Lab) -> dict[int, Run]:
    """Returns, by seed, the run with the evaluations of every seed in the folder that is whole."""
    from openrpt.evaluation.records import read_evaluation

    seeds = [
        int(match[1])
        for folder in (lab.folder.iterdir() if lab.folder.is_dir() else ())
        if (match := re.fullmatch(r"seed-(\d+)", folder.name, re.ASCII))
    ]
    runs = {
        seed: existing_run(lab.at(seed).rpt_folder)
        for seed in sorted(seeds)
        if is_run(lab.at(seed).rpt_folder)
    }
    return {
        seed: run
        for seed, run in runs.items()
        if set(ARMS) <= set(read_evaluation(run.evaluation)["evaluations"])
    }


def outcome_of(name: str, world: World, runs: Mapping[int, Run]) -> Outcome:
    """Reads what the runs of the seeds recorded; `name`: the world's, with its parameters."""
    return Outcome(
        world=name,
        shown=world.shown,
        chance=1 / len(world.alphabet),
        worked_share=world.worked / (world.worked + world.filler + world.faulty),
        cells=[cell for seed, run in runs.items() for cell in _cells(seed, run)],
        sampled=[sampled_at(seed, run, world) for seed, run in runs.items()],
    )


def _cells(seed: int, run: Run) -> list[Cell]:
    from openrpt.evaluation.records import read_evaluation

    found = []
    evaluations = read_evaluation(run.evaluation)["evaluations"]
    for arm in filter(evaluations.__contains__, ARMS):
        summary = evaluations[arm]["summary"]
        right = summary.get("reasoning", summary["ntp"])
        for part in (part for part in right if part.startswith(KIND)):
            known = [name for name in _CONTROLS if name in summary and summary[name][part]["n"]]
            rest = {name: summary[name][part]["value"] for name in known}
            found.append(
                Cell(
                    arm=arm,
                    seed=seed,
                    depth=int(part.removeprefix(KIND)),
                    n=right[part]["n"],
                    accuracy=right[part]["value"],
                    standard=summary["ntp"][part]["value"],
                    **rest,
                )
            )
    return found
