"""A laboratory of a few steps: every arm from the same start, on the same problems."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from openrpt.config.loading import with_overrides
from openrpt.engine import engine
from openrpt.errors import UserError
from openrpt.evaluation.records import read_evaluation, result_path
from openrpt.experiments.lab.figure import depth_values, specification
from openrpt.experiments.lab.files import FIGURE, OUTCOME, TABLES, read_outcome
from openrpt.experiments.lab.lab import ARMS, TEXT_ARMS, Lab
from openrpt.experiments.lab.outcome import Cell, Outcome
from openrpt.experiments.lab.run import run_lab
from openrpt.experiments.lab.tables import differences_sheet, lab_sheet
from openrpt.experiments.over_seeds import seed_difference
from openrpt.json_files import write_sealed
from openrpt.runs.metrics import read_metrics
from openrpt.runs.rollouts import read_rollouts
from openrpt.runs.run import Run, existing_run
from openrpt.runs.scores import scores_of
from openrpt.stages.pretrain.matched import spent_flops

SMALL = {
    "model.threads": 1,
    "train.steps": 2,
    "train.documents_per_step": 4,
    "train.group_size": 4,
    "pretrain.steps": 3,
    "evaluate.positions": 12,
}


def latest_weights(folder: Path) -> bytes:
    return max(folder.glob("*checkpoints/step-*/model.safetensors")).read_bytes()


AGAIN = {"random-reward": "rpt/controls/random-reward", "traces": "traces"}
"""Arms that are made twice, and their folders."""


def forget(run: Run, arms: Mapping[str, Path]) -> None:
    """Takes arms and what was measured of them out of a seed, as if it had been stopped before."""
    recorded = read_evaluation(run.evaluation)
    for arm, folder in arms.items():
        shutil.rmtree(folder)
        result_path(run, arm).unlink()
        del recorded["evaluations"][arm]
    write_sealed(run.evaluation, recorded)


def update_flops(folder: Path) -> list[float]:
    return [row["flops/update"] for row in read_metrics(existing_run(folder).metrics)]


def test_every_arm_goes_on_from_one_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRPT_CACHE", str(tmp_path / "cache"))
    world = "scan?depth=4&shown=2"
    lab = Lab(folder=tmp_path / "lab", world=world, documents=600, changes=SMALL)
    outcome = run_lab(lab)
    first = lab.folder / "seed-0"
    run = existing_run(first / "rpt")
    start = run.config.model.path
    assert Path(start).parent.parent == first / "text"
    found = read_evaluation(run.evaluation)["evaluations"]
    assert set(found) == set(ARMS)
    assert {one["positions"] for one in found.values()} == {found["start"]["positions"]}
    budget = spent_flops(run)
    for name in TEXT_ARMS:
        assert existing_run(first / name).config.model.path == start
        flops = update_flops(first / name)
        assert budget <= sum(flops) < budget + max(flops)
    both = budget + sum(update_flops(first / "text"))
    deeper = update_flops(first / "deeper")
    assert both <= sum(deeper) < both + max(deeper)
    assert "reasoning" not in found["deeper"]["summary"]
    forced = existing_run(run.path / "controls" / "filler").config.prompt
    assert forced.thought_start == "<think>" + 6 * "_" and forced.think_budget == 0
    with pytest.raises(UserError, match=r"no scores, since score\.tokens_only names every split"):
        scores_of(existing_run(first / "text"))
    assert read_outcome(lab.folder / OUTCOME) == outcome and outcome.arms == list(ARMS)
    of_rpt = [cell for cell in outcome.cells if cell.arm == "rpt"]
    assert [cell.depth for cell in of_rpt] == sorted(cell.depth for cell in of_rpt)
    assert sum(cell.n for cell in of_rpt) == found["rpt"]["positions"]
    assert outcome.share("rpt", 0, lambda depth: True, "standard") == pytest.approx(
        found["rpt"]["summary"]["ntp"]["all"]["value"]
    )
    assert outcome.share("rpt", 0, lambda depth: True, "carried") == pytest.approx(
        found["rpt"]["summary"]["carried"]["all"]["value"], nan_ok=True
    )

    first_step = read_rollouts(run.path, step=1).to_pylist()
    (counts,) = outcome.sampled  # the curriculum begins with the depths that were shown
    assert counts.rollouts == len(first_step) == 16
    assert counts.right == sum(row["exact"] for row in first_step)
    before, drawn = run.evaluation.read_bytes(), (lab.folder / FIGURE).stat().st_size
    (lab.folder / FIGURE).unlink()
    with monkeypatch.context() as none:
        none.setattr(engine, "load_model", None)  # no model is loaded for what is done
        assert run_lab(lab) == outcome and drawn > 0
    assert (lab.folder / FIGURE).stat().st_size == drawn
    assert run.evaluation.read_bytes() == before  # nothing is done twice
    both_seeds = run_lab(replace(lab, seeds=(0, 1)), workers=2)
    assert run.evaluation.read_bytes() == before and both_seeds.seeds == [0, 1]
    assert [cell for cell in both_seeds.cells if cell.seed == 0] == outcome.cells
    # What two processes made of the second seed, one makes, too: a training, a text and what is
    # measured of both.
    second = lab.folder / "seed-1"
    made = {arm: second / place for arm, place in AGAIN.items()}
    weights = {arm: latest_weights(folder) for arm, folder in made.items()}
    forget(existing_run(second / "rpt"), made)
    assert run_lab(replace(lab, seeds=(0, 1))) == both_seeds
    assert {arm: latest_weights(folder) for arm, folder in made.items()} == weights
    assert [row[0] for row in lab_sheet(both_seeds).rows] == list(ARMS)
    assert run_lab(replace(lab, seeds=(1,))) == both_seeds  # of all seeds in the folder
    with pytest.raises(UserError, match="choose another --run"):
        run_lab(replace(lab, world="scan?depth=5&shown=2", seeds=(2,)))
    with pytest.raises(UserError, match=r"train\.steps.*choose another --run"):
        run_lab(replace(lab, changes=SMALL | {"train.steps": 3}))
    tables = (lab.folder / TABLES).read_text(encoding="utf-8")
    assert all(f"| {arm} |" in tables for arm in ARMS) and "odds of p times m" in tables
    (lab.folder / OUTCOME).write_text("{}")
    with pytest.raises(UserError, match="openrpt lab"):
        read_outcome(lab.folder / OUTCOME)


def cell(arm: str, seed: int, depth: int, n: int, accuracy: float) -> Cell:
    return Cell(arm=arm, seed=seed, depth=depth, n=n, accuracy=accuracy, standard=0.2)


def outcome_with(*cells: Cell) -> Outcome:
    return Outcome(
        world="scan", shown=2, chance=0.2, worked_share=0.4, cells=list(cells), sampled=[]
    )


def test_depths_are_weighed_by_their_problems() -> None:
    outcome = outcome_with(cell("rpt", 0, 2, 1, 1.0), cell("rpt", 0, 10, 3, 0.5))
    assert outcome.share("rpt", 0, lambda depth: True) == 0.625
    assert outcome.share("rpt", 0, lambda depth: depth > 2) == 0.5
    assert math.isnan(outcome.share("rpt", 0, lambda depth: depth > 10))
    assert math.isnan(outcome.share("rpt", 0, lambda depth: True, "swapped"))


def test_a_difference_within_its_interval_is_said_to_be_none() -> None:
    found = seed_difference([0.9, 0.8, 0.7], [0.2, 0.2, 0.2])
    # By the table of t: 4.303 with 2 degrees of freedom; s = 0.1.
    assert found.value == pytest.approx(0.6)
    assert found.high - found.value == pytest.approx(4.303 * 0.1 / math.sqrt(3), abs=1e-4)
    assert found.distinguishable and not seed_difference([0.9, 0.1], [0.2, 0.2]).distinguishable
    assert math.isnan(seed_difference([0.9], [0.2]).low)

    seeds = [(0, 1.0, 0.2, 0.8), (1, 0.9, 0.2, 0.9), (2, 1.0, 0.3, 1.1)]
    cells = [
        cell(arm, seed, 1, 10, value)
        for seed, *values in seeds
        for arm, value in zip(("rpt", "ntp", "traces"), values, strict=True)
    ]
    rows = {row[0]: row[1] for row in differences_sheet(outcome_with(*cells)).rows}
    least = {row[0]: row[4] for row in differences_sheet(outcome_with(*cells)).rows}
    own = {"ntp, standard": "+70.0", "rpt, standard": "+70.0"}
    assert least == {"traces": "−10.0", "ntp": "+70.0", **own}
    assert rows["traces"].endswith("not distinguishable")
    assert rows["ntp"].startswith("+73.3 [") and rows["ntp"].endswith("]")
    one = differences_sheet(outcome_with(*cells[:3]))
    assert "one seed" in one.notes[0] and "not" not in one.rows[0][1]


def test_the_figure_has_a_band_over_seeds_and_both_rules() -> None:
    cells = [cell("rpt", seed, depth, 5, 0.5 + 0.1 * seed) for seed in (0, 1) for depth in (10, 2)]
    values = depth_values(outcome_with(*cells))
    assert [value["depth"] for value in values] == [2, 10]
    assert values[0] == pytest.approx(
        {"arm": "rpt", "depth": 2, "accuracy": 55.0, "low": 50.0, "high": 60.0}
    )
    layers = specification(outcome_with(*cells))["layer"]
    assert [layer["data"]["values"] for layer in layers[1:3]] == [
        [{"depth": 2}],
        [{"accuracy": 20}],
    ]


def test_a_budget_is_given_once(tmp_path: Path) -> None:
    config = Lab(folder=tmp_path, world="scan").at(0).deeper(1e9)
    with pytest.raises(UserError, match="flops and match"):
        with_overrides(config, {"pretrain.match": "runs/other"})


def test_seeds_of_another_machine_are_joined() -> None:
    both = outcome_with(cell("rpt", 0, 2, 1, 0.5), cell("rpt", 2, 2, 1, 0.75))
    own = outcome_with(cell("rpt", 1, 2, 1, 1.0), cell("rpt", 2, 2, 1, 0.25))
    joined = own.joined(both)
    assert joined.seeds == [0, 1, 2]
    assert [one.accuracy for one in joined.cells] == [0.5, 1.0, 0.25]  # its own seed 2
    with pytest.raises(UserError, match="lab:scan: the results to join differ in 'shown'"):
        own.joined(both.model_copy(update={"shown": 3}))
