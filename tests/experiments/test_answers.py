"""The experiments: every arm at every size, all eight run at their smallest, and what is said."""

import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import pytest
from click.testing import CliRunner

from openrpt.cli.main import cli
from openrpt.config.loading import to_toml
from openrpt.errors import UserError
from openrpt.evaluation.records import read_evaluation
from openrpt.experiments.answers.catalog import EXPERIMENTS, experiment_named
from openrpt.experiments.answers.comparing import ONE_SEED, compare, in_words, with_baseline
from openrpt.experiments.answers.estimating import estimate_experiment, estimate_sheet
from openrpt.experiments.answers.experiment import SIZES, START, Arm, Size, arms_of
from openrpt.experiments.answers.figure import figure_values
from openrpt.experiments.answers.files import FIGURE, PAGE, RESULTS, claim_folder, read_outcome
from openrpt.experiments.answers.ground import LabGround, Origin, ground_of
from openrpt.experiments.answers.outcome import (
    ArmRow,
    Measured,
    Outcome,
    first_rollouts,
    measured_values,
)
from openrpt.experiments.answers.page import page_text
from openrpt.experiments.answers.run import run_experiment
from openrpt.experiments.lab.sampled import SampledCounts
from openrpt.experiments.over_seeds import holm, seed_difference
from openrpt.files import write_text
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import existing_run
from tests.helpers.tiny_model import tiny_config

ORIGIN = Origin(start="runs/start", model="runs/origin")


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_arm_has_a_configuration_and_stands_behind_what_it_needs(
    name: str, size: Size
) -> None:
    ground, seen = ground_of(size, Path("runs/x"), 1), {""}
    for arm in arms_of(EXPERIMENTS[name], size):
        assert {arm.origin, *arm.match} <= seen and arm.name not in seen
        seen.add(arm.name)
        config = ground.config(arm, ORIGIN if arm.origin else Origin())
        assert config.run == f"runs/x/seed-1/{arm.name}" and config.seed == 1
    assert EXPERIMENTS[name].baseline in seen


def test_sizes_differ_in_how_much_alone() -> None:
    for name, experiment in EXPERIMENTS.items():
        smoke, cpu = (arms_of(experiment, SIZES[size]) for size in ("smoke", "cpu"))
        if name != "scaling":  # its model sizes are a size
            assert smoke == cpu[: len(smoke)]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_runs_at_its_smallest_and_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRPT_CACHE", str(tmp_path / "cache"))
    folder, size = tmp_path / name, SIZES["smoke"]
    done = CliRunner().invoke(
        cli,
        ["experiment", name, "--budget", "smoke", "--run", str(folder), "--workers", "1"],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    outcome = read_outcome(folder)
    arms = arms_of(EXPERIMENTS[name], size)
    assert {one.arm for one in outcome.measured} == {arm.name for arm in arms if arm.measured}
    assert outcome.seeds == [0] and all(one.flops > 0 for one in outcome.measured)
    page = (folder / PAGE).read_text(encoding="utf-8")
    assert EXPERIMENTS[name].question in page and (folder / FIGURE).stat().st_size > 0
    assert all(f"| {arm.name} |" in page for arm in arms) and ONE_SEED in page

    seed = folder / "seed-0"
    recorded = read_evaluation(existing_run(seed / "problems").evaluation)["evaluations"]
    asked = {arm.name for arm in arms if arm.measured and arm.stage != "finetune"}
    assert set(recorded) == asked
    for arm in arms:
        if arm.match and arm.stage == "pretrain":  # no more than its last step beyond the budget
            budget = sum(one.flops for one in outcome.measured if one.arm in arm.match)
            steps = [row["flops/update"] for row in read_metrics(seed / arm.name / "metrics.jsonl")]
            assert budget <= sum(steps) < budget + max(steps)

    if name == "init":
        assert outcome.has("rpt", "worked") and not outcome.has(START, "worked")
    if name == "rewards":  # all go on from the start, whose scores are made once
        scored = [seed / arm / "scored/scored.json" for arm in ("problems", arms[1].name)]
        assert scored[0].samefile(scored[1])
    before = (folder / RESULTS).read_bytes(), (seed / "problems/evaluation.json").read_bytes()
    last = arms[-1].name
    (seed / f"{last}.json").unlink()  # stopped before that was written
    again = run_experiment(EXPERIMENTS[name], size, folder)
    assert again.measured == outcome.measured
    assert (seed / "problems/evaluation.json").read_bytes() == before[1]


def test_an_experiment_of_other_settings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRPT_CACHE", str(tmp_path / "cache"))
    size = replace(SIZES["smoke"], most_arms=0)
    experiment = EXPERIMENTS["rewards"]
    run_experiment(experiment, size, tmp_path / "run")
    other = replace(size, changes={**size.changes, "pretrain.tokens_per_step": 300}, most_arms=1)
    with pytest.raises(UserError, match=r"pretrain\.tokens_per_step"):
        run_experiment(experiment, other, tmp_path / "run")


def test_the_same_arms_run_on_real_text(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        corpus__heldout_fraction=0.3,
        warmup__steps=1,
        train__steps=1,
        evaluate__min_entropy=0.0,
        evaluate__positions=10,
        selection__min_entropy=0.0,
        prompt__think_budget=2,
        pretrain__sequence_length=64,
        pretrain__tokens_per_step=64,
        pretrain__eval_every=0,
    )
    write_text(tmp_path / "tiny.toml", to_toml(config))
    size = Size(name="gpu", seeds=1, recipe=str(tmp_path / "tiny.toml"), most_arms=4)
    outcome = run_experiment(EXPERIMENTS["downstream"], replace(size, most_arms=1), tmp_path / "a")
    assert [one.arm for one in outcome.measured] == [START, "rpt"]
    outcome = run_experiment(EXPERIMENTS["cost"], replace(size, shares=(1,)), tmp_path / "b")
    spent = {one.arm: one for one in outcome.measured}
    assert list(spent) == [START, "rpt-1", "ntp-1"] and spent["rpt-1"].steps == 1
    assert spent["ntp-1"].flops >= spent["rpt-1"].flops > 0


def test_a_seed_has_sentences_and_given_thoughts_of_its_own(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        corpus__path="bills?documents=12&bills=1&least=2&most=2&seed=10",
        corpus__heldout_fraction=0.3,
        corpus__development_fraction=0.0,
        prompt__window=32,
        prompt__think_budget=20,
        prompt__prediction_budget=3,
        selection__where="class:computed",
        selection__min_entropy=0.0,
        warmup__traces="traces.jsonl",
        warmup__steps=1,
        train__steps=1,
        train__eval_every=0,
        evaluate__where="class:computed",
        evaluate__min_entropy=0.0,
        evaluate__positions=4,
    )
    write_text(tmp_path / "tiny.toml", to_toml(config))
    size = replace(
        SIZES["text"],
        recipe=str(tmp_path / "tiny.toml"),
        rewards=("prefix",),
        warmups=(1,),
        changes={},
    )
    folder = tmp_path / "rewards"
    outcome = run_experiment(EXPERIMENTS["rewards"], size, folder)
    assert outcome.seeds == [0, 1] and [arm.name for arm in outcome.arms] == [START, "prefix"]
    assert outcome.compared == "span" and all(
        outcome.has("prefix", name) for name in ("accuracy", "first_token", "span", "span_ntp")
    )
    told = set()
    for seed in (0, 1):
        own = folder / f"seed-{seed}"
        started = existing_run(own / START).config
        assert f"&seed={10 + seed}" in started.corpus.path
        assert started.warmup.traces == str(own / "traces.jsonl")
        told.add((own / "traces.jsonl").read_text(encoding="utf-8"))
        assert existing_run(own / "prefix").config.reward.terms == {"prefix": 1.0}
    assert len(told) == 2
    page = (folder / PAGE).read_text(encoding="utf-8")
    assert page.startswith("# rewards, text\n")
    assert "| arm | whole, % | right, % | first token, % |" in page
    assert "a program makes them from a few templates" in page and "laboratory" not in page
    again = run_experiment(EXPERIMENTS["rewards"], size, folder)  # nothing is left to do
    assert again.measured == outcome.measured

    arms = {arm.name: arm for arm in arms_of(EXPERIMENTS["init"], size)}
    assert list(arms) == [START, "rpt", "form", "rpt-form", "given-1", "rpt-given-1"]
    ground = ground_of(size, folder, 0)
    assert ground.config(arms["form"], Origin()).warmup.traces == ""
    assert ground.config(arms["given-1"], Origin()).warmup.traces == str(
        folder / "seed-0/traces.jsonl"
    )


def test_an_estimate_counts_what_the_steps_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRPT_CACHE", str(tmp_path / "cache"))
    size = replace(SIZES["smoke"], most_arms=1, seeds=3)
    experiment = EXPERIMENTS["rewards"]
    found = estimate_experiment(experiment, size, gpu="h200")
    outcome = run_experiment(experiment, size, tmp_path / "run", seeds=[0])
    spent = {one.arm: one.flops for one in outcome.measured}
    planned = {one.arm: one.flops for one in found.arms}
    assert 0.8 < planned[START] / spent[START] < 1.5  # with its evaluation
    assert planned["prefix"] > spent["prefix"]  # all of a thought's budget, no two alike
    assert found.flops == pytest.approx(3 * sum(planned.values()))
    rows = estimate_sheet(experiment, found).rows
    assert [row[0] for row in rows] == [START, "prefix", "3 seeds"]


def test_a_folder_is_of_one_experiment(tmp_path: Path) -> None:
    rewards, init = EXPERIMENTS["rewards"], EXPERIMENTS["init"]
    for _ in range(2):
        claim_folder(tmp_path / "a", rewards, SIZES["cpu"])
    with pytest.raises(UserError, match="holds the experiment rewards at budget cpu"):
        claim_folder(tmp_path / "a", init, SIZES["cpu"])
    with pytest.raises(UserError, match="budget cpu; choose another --run"):
        claim_folder(tmp_path / "a", rewards, SIZES["smoke"])
    (tmp_path / "b").mkdir()
    (tmp_path / "b/thesis.tex").touch()
    for folder in (tmp_path / "b", tmp_path / "b/thesis.tex"):
        with pytest.raises(UserError, match="choose another --run"):
            claim_folder(folder, rewards, SIZES["cpu"])


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_an_arm_can_be_sent_to_another_process(size: Size) -> None:
    ground = ground_of(size, Path("runs/x"), 1)
    for experiment in EXPERIMENTS.values():
        for arm in arms_of(experiment, size):
            assert pickle.loads(pickle.dumps((ground, arm))) == (ground, arm)


def test_questions_stand_on_the_side_of_their_lines(tmp_path: Path) -> None:
    ground = ground_of(SIZES["smoke"], tmp_path, 0)
    assert isinstance(ground, LabGround)
    rows = ground.question_rows()
    world = ground.lab.lab.opened
    assert rows and len({row["question"] for row in rows}) == len(rows)
    for row in rows:
        problem = world.solved(row["question"].removesuffix("="))
        assert problem.answer == row["answer"]
        assert len(row["question"].strip("_=")) - 1 > world.shown


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["rewrds"], "rewards"),
        (["rewards", "--budget", "huge"], "smoke, cpu, text, gpu, paper"),
        (["rewards", "--gpu", "h200"], "say --estimate"),
        (["rewards", "--estimate", "--utilisation", "0.5"], "name one with --gpu"),
        (["rewards", "--estimate", "--budget", "gpu", "--gpu", "h9000"], "h9000"),
    ],
)
def test_what_is_asked_wrongly_is_said_in_one_line(command: list[str], said: str) -> None:
    with pytest.raises(UserError) as error:
        CliRunner().invoke(cli, ["experiment", *command], catch_exceptions=False)
    assert said in str(error.value) and "\n" not in str(error.value)


def measured(arm: str, seed: int, accuracy: float, **more: float) -> Measured:
    return Measured(
        arm=arm,
        seed=seed,
        values={"accuracy": accuracy} | more,
        parameters=1000,
        steps=2,
        flops=1e9,
        seconds=1.0,
        joules=1.0,
        warnings=["entropy_collapse at step 4: low"] if arm == "b" else [],
    )


def outcome_of(values: dict[str, list[float]], *, planned: int = 3) -> Outcome:
    return Outcome(
        experiment="rewards",
        budget="cpu",
        planned=planned,
        setting={"text": "a world"},
        environment={"date": "today", "openrpt": "0", "commit": "", "torch": "2", "cpus": 2},
        arms=[ArmRow(name=name, what="", origin="", series="") for name in values],
        measured=[
            measured(name, seed, value)
            for name, own in values.items()
            for seed, value in enumerate(own)
        ],
    )


def test_holm_is_statsmodels_and_a_p_value_is_scipys() -> None:
    from scipy import stats

    a, b = [0.9, 0.8, 0.95, 0.7], [0.5, 0.6, 0.4, 0.65]
    assert seed_difference(a, b).p == pytest.approx(float(stats.ttest_rel(a, b).pvalue))
    p = [0.02, 0.001, 0.03, 0.5]
    # By hand: 4 · 0.001, 3 · 0.02, then 2 · 0.03 and 0.5, none below the one before.
    assert holm(p) == pytest.approx([0.06, 0.004, 0.06, 0.5])
    assert holm([]) == [] and seed_difference([1, 1], [1, 1]).p == 1.0


def test_seeds_that_differ_alike_have_no_interval() -> None:
    found = seed_difference([0.9, 0.8, 0.5], [0.6, 0.5, 0.2])  # 0.30000000000000004 and 0.3
    assert found.p == 0.25 and not found.distinguishable  # three heads in a row, either way
    assert found.text == "+30.0 at each of 3 seeds"


def test_a_difference_is_said_only_after_the_correction() -> None:
    values = {"prefix": [0.50, 0.52, 0.51], "a": [0.90, 0.91, 0.92], "b": [0.56, 0.52, 0.58]}
    values |= {"c": [0.2, 0.21, 0.2]}
    found = with_baseline(outcome_of(values), "accuracy", "prefix")
    assert [one.arm for one in found] == ["a", "b", "c"]
    assert [one.said for one in found] == [True, False, True]
    text = in_words(found)
    assert text.startswith("Ahead of prefix: a +40.0 [") and "; behind prefix: c −30.7 [" in text
    assert "not told apart from prefix: b (points" in text
    one_seed = outcome_of({name: own[:1] for name, own in values.items()})
    alone = with_baseline(one_seed, "accuracy", "prefix")
    assert in_words(alone) == ONE_SEED and all(math.isnan(one.p) for one in alone)
    assert compare(outcome_of(values), "beyond", [("a", "b")]) == []


def answered(name: str, accuracy: Callable[[Arm, int], float]) -> str:
    """The answer of an experiment whose arms have these accuracies, at five seeds."""
    arms = arms_of(EXPERIMENTS[name], SIZES["cpu"])
    outcome = outcome_of({}, planned=5).model_copy(
        update={
            "arms": [ArmRow(name=a.name, what="", origin="", series=a.series) for a in arms],
            "measured": [
                measured(arm.name, seed, accuracy(arm, seed)).model_copy(
                    update={"flops": 1e9 * (float(arm.name.rsplit("-")[-1]) if arm.series else 1)}
                )
                for arm in arms
                if arm.measured
                for seed in range(5)
            ],
        }
    )
    return EXPERIMENTS[name].answer(outcome)


def noise_of(arm: Arm, seed: int) -> int:
    """0 to 4, differently from one seed to the next in each arm."""
    return crc32(f"{arm.name} {seed}".encode()) % 5


def test_scaling_says_where_reinforcement_is_ahead() -> None:
    def accuracy(arm: Arm, seed: int) -> float:
        noise = 0.001 * noise_of(arm, seed)
        if arm.series == "RPT-64" and arm.share >= 0.25:
            return 0.8 + noise
        return (0.1 if arm.series == "RPT-32" else 0.3) + noise

    text = answered("scaling", accuracy)
    assert "(RPT-64): ahead at 4 of 6 budgets, from 2.5e+08 FLOPs on, behind at 0" in text
    assert "(RPT-32): ahead at 0 of 6 budgets, behind at 6" in text
    assert "(RPT-96): ahead at 0 of 6 budgets, behind at 0" in text


def test_starts_and_failures_are_said_by_pairs() -> None:
    def started(arm: Arm, seed: int) -> float:
        gains = {"rpt": 0.6, "rpt-worked-5": 0.5, "rpt-base": -0.1}
        return 0.2 + gains.get(arm.name, 0.0) + 0.004 * noise_of(arm, seed)

    text = answered("init", started)
    gained, _, rest = text.partition("No gain is shown from: ")
    assert "start +" in gained and "worked-5 +" in gained and "base" not in gained
    assert (
        rest == "base, chat, worked-0.1, worked-1, worked-15, traces-100, traces-500, traces-2000."
    )

    def broken(arm: Arm, seed: int) -> float:
        lost = {"collapse": 0.6, "collapse-repaired": 0.1, "no-support": 0.5}
        lost["no-support-repaired"] = 0.5
        return 0.9 - lost.get(arm.name, 0.0) + 0.004 * noise_of(arm, seed)

    text = answered("failure", broken)
    assert text.startswith("Collapse cost accuracy (−") and "its repair gave some back (+" in text
    assert "no-support cost accuracy" in text and text.count("gave nothing back") == 2
    assert "shortening cost nothing shown" in text


def test_the_page_says_how_many_seeds_are_done() -> None:
    values = {"prefix": [0.5, 0.6], "b": [0.7, 0.9]}
    page = page_text(EXPERIMENTS["rewards"], outcome_of(values, planned=5))
    assert "2 of 5 seeds: mean ± standard error" in page
    assert "The budget has 5 seeds; 2 are done." in page
    assert "| b | entropy_collapse in 2 |" in page
    assert "| prefix | 55.0 ± 5.0 |" in page
    (first, second) = figure_values(outcome_of(values), "accuracy")
    assert (first["value"], second["low"], second["high"]) == pytest.approx((55.0, 70.0, 90.0))


def test_seeds_of_two_machines_are_joined_and_nothing_else_is() -> None:
    both = outcome_of({"prefix": [0.5, 0.6], "b": [0.7, 0.9]}, planned=5)

    def part(seed: int, commit: str, value: float = 0.1) -> Outcome:
        found = [measured(arm, seed, value) for arm in ("prefix", "b")]
        environment = {**both.environment, "commit": commit}
        return both.model_copy(update={"measured": found, "environment": environment})

    joined = part(1, "new").joined(both)
    assert joined.seeds == [0, 1] and joined.environment["commit"] == "new"
    assert joined.values("prefix", "accuracy") == [0.5, 0.1]  # its own seed 1, the other's seed 0
    third = part(2, "third").joined(joined)
    assert third.seeds == [0, 1, 2] and third.environment["commit"] == "new, third"
    assert part(2, "third").joined(part(2, "old", 0.9)) == part(2, "third")
    for name, other in {"budget": "gpu", "setting": {"text": "another"}}.items():
        with pytest.raises(UserError, match=f"differ in '{name}'"):
            joined.joined(both.model_copy(update={name: other}))


def test_both_sides_of_what_was_shown_weigh_their_problems() -> None:
    def part(value: float, n: int) -> dict[str, float]:
        return {"value": value, "n": n}

    right = {"all": part(0.5, 8), "kind: 1": part(1.0, 1), "kind: 2": part(0.0, 3)}
    right |= {"kind: 3": part(0.5, 4)}
    summary = {"reasoning": right, "ntp": {"all": part(0.25, 8)}}
    assert measured_values(summary, 2) == pytest.approx(
        {"accuracy": 0.5, "standard": 0.25, "within": 0.25, "beyond": 0.5}
    )
    assert set(measured_values(summary, None)) == {"accuracy", "standard"}


def test_answers_of_several_tokens_are_measured_on_text() -> None:
    def all_of(value: float, n: int) -> dict[str, dict[str, float]]:
        return {"all": {"value": value, "n": n}}

    summary = {"reasoning": all_of(0.5, 8), "ntp": all_of(0.25, 8), "first_token": all_of(0.75, 8)}
    summary |= {"span": all_of(0.125, 8), "predicted_tokens": all_of(1.5, 4)}
    both = {"accuracy": 0.5, "standard": 0.25}
    assert measured_values(summary, None) == pytest.approx(
        both | {"first_token": 0.75, "span": 0.125, "predicted_tokens": 0.015}
    )
    assert measured_values(summary, 2) == both
    summary["predicted_tokens"] = all_of(math.nan, 0)  # none was right
    assert "predicted_tokens" not in measured_values(summary, None)


def test_what_the_first_rollouts_were() -> None:
    def counts(rollouts: int, worked: int, worked_right: int) -> dict[str, float]:
        return first_rollouts(
            SampledCounts(
                seed=0, rollouts=rollouts, worked=worked, right=9, worked_right=worked_right
            )
        )

    assert counts(20, 5, 4) == {"worked": 0.25, "read": 0.8}
    assert counts(20, 0, 0) == {"worked": 0.0} and counts(0, 0, 0) == {}


def test_an_unknown_experiment_is_told_its_nearest_name() -> None:
    with pytest.raises(UserError, match="nearest: 'failure'"):
        experiment_named("failures")
    assert START in {arm.name for arm in arms_of(EXPERIMENTS["cost"], SIZES["cpu"])}
