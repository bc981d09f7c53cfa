"""Failure signatures: none on healthy runs, each on its own failure, once."""

import random
import re
from typing import Any

import pytest

from openrpt.config.loading import config_keys
from openrpt.runs.signatures import SIGNATURES, findings, new_findings


def series(text: str) -> list[float]:
    return [float(number) for number in text.split()]


# A real run of 15 steps (SmolLM2-135M on CHAMP, learning rate 2e-5), to three digits.
REAL = {
    "reward/mean": series(
        "0.375 0.438 0.342 0.326 0.344 0.363 0.434 0.428 0.531 0.619 0.471 0.396 0.453 0.580 0.447"
    ),
    "group/flat_fraction": series(
        "0.516 0.609 0.484 0.609 0.547 0.719 0.625 0.766 0.656 0.641 0.719 0.750 0.844 0.922 0.875"
    ),
    "completion/closed_fraction": series("1 1 1 0.971 0.998 1 1 1 1 1 1 0.984 0.986 1 1"),
    "policy/entropy": series(
        "0.292 0.295 0.294 0.315 0.248 0.231 0.229 0.193 0.250 0.176 0.238 0.150 0.174 0.084 0.130"
    ),
    "completion/thought_bytes_mean": series(
        "10.1 13.9 12.2 12.3 11.0 13.2 14.2 11.5 13.0 11.4 10.9 14.4 12.4 11.2 14.3"
    ),
}


def healthy(seed: int, steps: int = 60) -> list[dict[str, Any]]:
    """A run that learns slowly, with the noise of a few documents a step."""
    draw = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        row = {
            "stage": "train",
            "step": step,
            "reward/mean": 0.35 + 0.003 * step + draw.gauss(0, 0.07),
            "group/flat_fraction": 0.55 + draw.gauss(0, 0.08),
            "completion/closed_fraction": min(1.0, 0.98 + draw.gauss(0, 0.015)),
            "completion/thought_bytes_mean": 60 + draw.gauss(0, 12),
            "completion/prediction_bytes_mean": 2.6 + draw.gauss(0, 0.3),
            "completion/content_fraction": 0.7 + draw.gauss(0, 0.06),
            "completion/commonest_fraction": 0.08 + abs(draw.gauss(0, 0.03)),
        }
        if row["group/flat_fraction"] < 0.6:  # absent where nothing was run
            row["policy/entropy"] = 0.3 - 0.002 * step + draw.gauss(0, 0.03)
        if step % 10 == 0:
            row["development/reasoning_accuracy"] = 0.42 + 0.001 * step + draw.gauss(0, 0.005)
        rows.append(row)
    return rows


def seen(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Name → step of its first finding, as a stage would come upon them."""
    found: dict[str, int] = {}
    for end in range(1, len(rows) + 1):
        fresh = new_findings(rows[:end])
        if fresh:
            rows[end - 1]["warnings"] = [finding.as_dict() for finding in fresh]
        assert not {finding.name for finding in fresh} & found.keys(), "said twice"
        found |= {finding.name: finding.step for finding in fresh}
    return found


@pytest.mark.parametrize("seed", range(5))
def test_healthy_runs_are_left_alone(seed: int) -> None:
    assert seen(healthy(seed)) == {}


def test_a_real_short_run_is_left_alone() -> None:
    columns = zip(*REAL.values(), strict=True)
    rows = [{"step": i} | dict(zip(REAL, values, strict=True)) for i, values in enumerate(columns)]
    assert seen(rows) == {}


FAILING = {
    "no_reward": {"reward/mean": 0.0, "group/flat_fraction": 1.0},
    "all_flat": {"group/flat_fraction": 0.98},
    "reward_falling": {"reward/mean": 0.2},
    "closed_box_falling": {"completion/closed_fraction": 0.8, "reward/mean": 0.2},
    "thoughts_shorten": {"completion/thought_bytes_mean": 5.0},
    "entropy_collapse": {"policy/entropy": 0.01, "reward/mean": 0.2},
    "games_the_verifier": {"completion/content_fraction": 0.2, "reward/mean": 0.6},
}


@pytest.mark.parametrize("name", FAILING)
def test_each_failure_is_seen_once_and_alone(name: str) -> None:
    """Alone but for the fall of the reward, where the failure is one."""
    rows = healthy(0)
    for row in rows[29:]:
        row |= FAILING[name]
    found = seen(rows)
    falls = FAILING[name].get("reward/mean", 1.0) < 0.3
    assert set(found) == {name} | ({"reward_falling"} if falls else set())
    assert 30 <= found[name] <= 36


@pytest.mark.parametrize("name", ["closed_box_falling", "entropy_collapse"])
def test_what_looks_bad_while_the_reward_rises_is_no_failure(name: str) -> None:
    rows = healthy(0)
    for row in rows[29:]:
        row |= FAILING[name] | {"reward/mean": row["reward/mean"] + 0.2}
    assert seen(rows) == {}


def steady(*, flat: float, rise: float = 0.0) -> list[dict[str, Any]]:
    """A run whose reward stays where it is, or rises from step 20 to 30 by `rise`."""
    draw = random.Random(1)
    return [
        {
            "step": step,
            "reward/mean": 0.2 + rise * min(max(step - 20, 0) / 10, 1.0) + draw.gauss(0, 0.03),
            "group/flat_fraction": flat,
            "policy/entropy": 0.06,
        }
        for step in range(1, 81)
    ]


def test_a_reward_that_stays_where_it_is() -> None:
    rows = steady(flat=0.1)
    assert seen(rows) == {"reward_not_rising": 50}
    (recorded,) = rows[49]["warnings"]
    assert "has not risen in 50 steps, though 90% of the groups" in recorded["seen"]
    assert "warmup.traces" in recorded["helps"]
    assert seen(steady(flat=0.1, rise=0.1)) == {}
    assert seen(steady(flat=0.8)) == {}  # there is little to learn from: the groups are the cause
    sure = steady(flat=0.1)
    for row in sure:
        row["policy/entropy"] = 0.01
    assert seen(sure) == {"reward_not_rising": 50, "entropy_collapse": 50}


def test_a_dip_of_the_size_of_the_noise_is_no_fall() -> None:
    draw = random.Random(2)
    rewards = [0.3 + draw.gauss(0, 0.15) for _ in range(60)]
    rows = [{"step": i, "reward/mean": reward} for i, reward in enumerate(rewards)]
    assert seen(rows) == {}
    fallen = [{"step": i, "reward/mean": 0.3 if i < 30 else 0.15} for i in range(60)]
    assert seen(fallen) == {"reward_falling": 33}


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("completion/prediction_bytes_mean", 1.0, "bytes in the mean"),
        ("completion/commonest_fraction", 0.5, "50% are the step's commonest"),
    ],
)
def test_gaming_shows_in_other_ways_too(key: str, value: float, text: str) -> None:
    rows = healthy(0)
    for row in rows[29:]:
        row[key] = value
    (found,) = findings(rows)
    assert found.name == "games_the_verifier" and text in found.seen


def test_reward_up_and_accuracy_flat() -> None:
    rows = healthy(0)
    for row in rows:
        row["reward/mean"] += 0.004 * row["step"]
        if "development/reasoning_accuracy" in row:
            row["development/reasoning_accuracy"] = 0.43 - 0.0001 * row["step"]
    assert seen(rows) == {"reward_without_accuracy": 40}  # the fourth evaluation
    (recorded,) = rows[39]["warnings"]
    assert "held-out accuracy did not: 42.9%" in recorded["seen"] and recorded["helps"]


def test_right_more_often_and_no_wiser() -> None:
    """Only where the information gain is measured, and only where it does not rise as well."""
    rows = healthy(0)
    for row in rows:
        row["reward/exact"] = 0.3 + 0.004 * row["step"]
    assert seen(rows) == {}
    for row in rows:
        row["reward/information_gain"] = 0.05 - 0.001 * row["step"]
    found = seen(rows)
    assert list(found) == ["reward_without_information"]
    assert 10 <= found["reward_without_information"] <= 20
    rows = healthy(0)
    for row in rows:
        row["reward/exact"] = 0.3 + 0.004 * row["step"]
        row["reward/information_gain"] = 0.05 + 0.001 * row["step"]
    assert seen(rows) == {}


def test_one_better_evaluation_is_enough() -> None:
    rows = healthy(0)
    for row in rows:
        row["reward/mean"] += 0.004 * row["step"]
        if "development/reasoning_accuracy" in row:
            row["development/reasoning_accuracy"] = 0.45 if row["step"] == 20 else 0.43
    assert seen(rows) == {}


def test_failure_from_the_start_and_rows_without_the_metrics() -> None:
    rows = [{"step": i, **FAILING["no_reward"]} for i in range(1, 9)]
    assert seen(rows) == {"no_reward": 5}
    right = [{"step": i, "reward/mean": 0.6, "group/flat_fraction": 1.0} for i in range(1, 9)]
    assert seen(right) == {"all_flat": 5}  # flat because all are right
    assert findings([]) == []
    assert findings([{"step": i, "loss/imitation": 1.0} for i in range(40)]) == []
    assert all(signature.when and signature.helps for signature in SIGNATURES.values())


def test_what_helps_names_keys_that_there_are() -> None:
    named = {
        key
        for signature in SIGNATURES.values()
        for key in re.findall(
            r"\b(?:train|prompt|selection|warmup|reward|score)\.\w+", signature.helps
        )
    }
    assert len(named) > 5 and named <= set(config_keys())


def test_a_value_that_is_no_number_is_left_out() -> None:
    rows = healthy(0)
    rows[40] |= {name: float("nan") for name in REAL}
    assert seen(rows) == {}
