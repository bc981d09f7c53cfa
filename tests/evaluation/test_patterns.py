"""Reasoning patterns: each measure on thoughts written for it, intervals against scipy's."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import bootstrap

from openrpt.errors import UserError
from openrpt.evaluation.intervals import difference_of_means, mean_interval
from openrpt.evaluation.patterns.bins import run_bins
from openrpt.evaluation.patterns.measures import (
    KEYWORDS,
    contains,
    copied_share,
    distinct,
    free_thought,
    keyword_patterns,
    named_answers,
    read_keywords,
    switched,
    target_text,
    words_of,
)
from openrpt.evaluation.patterns.table import print_patterns, write_patterns
from openrpt.loaded import load_run
from openrpt.rl.completions import has_content
from openrpt.runs.rollouts import write_rollouts
from tests.helpers.fake_run import fake_run, rollout


def groups_in(text: str) -> set[str]:
    return {name for name, p in keyword_patterns(KEYWORDS).items() if p.search(text)}


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("Wait, let me break\n down the sum.", {"reflection", "breakdown"}),
        ("ALTERNATIVELY: probably x, etc.", {"transition", "hypothesis", "divergent"}),
        ("neither awaits; an optional etcetera", set()),  # parts of words are none
        ("", set()),
    ],
)
def test_keywords(text: str, groups: set[str]) -> None:
    assert groups_in(text) == groups


def test_every_keyword_of_the_paper_is_found_in_its_own_group() -> None:
    for group, words in KEYWORDS.items():
        for word in words:
            assert group in groups_in(f"so {word} then"), word


def test_leakage_has_its_chance_control() -> None:
    assert target_text([b" even", b" x"]) == "even"
    assert target_text([b"\n"]) == target_text([b" ,"]) == target_text([]) == ""
    assert contains("it is even", "even") == 1.0
    assert contains("it is odd", "even") == 0.0
    assert contains("  ", "even") is None and contains("it", "") is None


def test_the_seed_is_no_thought_of_the_models() -> None:
    seed = [b" the", b" a"]
    assert free_thought(b" the | a, so", seed, b" |") == b", so"
    assert free_thought(b" the | a", seed, b" |") == b""
    assert free_thought(b"so", [], b" |") == b"so"


def test_copying() -> None:
    prefix = words_of("We know that the sum, of two")
    assert copied_share(words_of("THAT the sum is x"), prefix) == 3 / 5
    assert copied_share(prefix, prefix) == 1.0
    assert copied_share(["new"], prefix) == 0.0
    assert copied_share([], prefix) is None


@pytest.mark.parametrize(
    ("thought", "answers", "changed"),
    [
        (r"\boxed{a} no, \boxed{b}", ["a", "b"], 1.0),
        ("The answer is 4. Wait, the answer is: 4.", ["4", "4"], 0.0),
        ("the next word is 'the', or the next token is \"of\"", ["the", "of"], 1.0),
        ("a, b, a: the next word is a", ["a"], 0.0),
        ("no candidate", [], 0.0),
    ],
)
def test_answer_switching(thought: str, answers: list[str], changed: float) -> None:
    assert named_answers(thought) == answers
    assert switched(thought) == changed
    assert switched(" ") is None


def test_distinct_and_content() -> None:
    assert distinct([["a", "b", "a"], ["a", "b"]], 1) == 2 / 5
    assert distinct([["a", "b", "a"], ["a", "b"]], 2) == 2 / 3
    assert distinct([["a"], []], 2) is None
    assert has_content(b" x") and has_content(b"=") and has_content("数".encode())
    assert not has_content(b" \n.") and not has_content(b"\\{")


def test_a_users_own_groups(tmp_path: Path) -> None:
    toml, js = tmp_path / "mine.toml", tmp_path / "mine.json"
    toml.write_text('doubt = ["not sure"]\n')
    js.write_text('{"doubt": ["not sure"]}')
    assert read_keywords(toml) == read_keywords(js) == {"doubt": ["not sure"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("doubt = 'x'", "'doubt' must be a list"),
        ("doubt = []", "'doubt' must be a list"),
        ("doubt = [' ']", "'doubt' must be a list"),
        ("", "no groups"),
        ("doubt = [", "not valid TOML"),
    ],
)
def test_a_users_own_groups_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(said)):
        read_keywords(path)
    with pytest.raises(UserError, match="not readable"):
        read_keywords(tmp_path / "nowhere.toml")


def test_intervals_agree_with_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 1.0, 80), rng.normal(0.4, 2.0, 60)
    ours = mean_interval(a, np.arange(80).astype(str))  # one a document: the ordinary bootstrap
    theirs = bootstrap((a,), np.mean, n_resamples=4000, method="percentile", rng=1)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.03)
    ours = difference_of_means(a, np.arange(80).astype(str), b, np.arange(100, 160).astype(str))
    theirs = bootstrap(
        (a, b),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        n_resamples=4000,
        method="percentile",
        rng=1,
    )
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.06)
    assert ours.value == a.mean() - b.mean()


def test_intervals_resample_documents() -> None:
    values = np.repeat([0.0, 1.0, 0.0, 1.0], 50)
    by_value = mean_interval(values, np.arange(200).astype(str))
    by_document = mean_interval(values, np.repeat(list("abcd"), 50))
    assert by_document.high - by_document.low > 3 * (by_value.high - by_value.low)
    shared = difference_of_means(
        values, np.repeat(list("abcd"), 50), values, np.repeat(list("abcd"), 50)
    )
    assert shared.low == shared.high == 0.0  # a document is drawn for both sides
    alone = mean_interval(np.ones(3), np.array(["a"] * 3))
    assert alone.value == 1.0 and np.isnan(alone.low)
    assert np.isnan(mean_interval(np.array([]), np.array([])).value)


def test_over_steps_and_between_runs(tmp_path: Path) -> None:
    first = fake_run(tmp_path / "a", steps=6, prompt__think_budget=8)
    second = fake_run(tmp_path / "b", steps=2, prompt__think_budget=8)
    rows = [
        rollout(d, 3, n, step=3, thought=b" the | a wait, etc.", prediction=p, reward=0.0)
        for d in ("d0", "d1", "d2")
        for n, p in enumerate([b" the", b".", None])
    ]
    write_rollouts(second, 3, rows)
    runs = [run_bins(load_run(first).run, bins=2), run_bins(load_run(second).run, bins=3)]
    assert [bin.name for bins in runs for bin in bins] == ["1–3", "4–6", "1", "2", "3"]
    early, late = runs[1][0].measures, runs[1][2].measures
    assert early["keywords/hypothesis"].interval().value == 1.0
    assert late["keywords/hypothesis"].interval().value == 0.0
    assert late["keywords/reflection"].interval().value == 1.0
    assert early["thought_bytes"].interval().value == len(b", probably the sum")
    assert late["closed"].interval().value == pytest.approx(2 / 3)
    assert late["prediction_content"].interval().value == 0.5
    assert late["equals_ntp"].interval().value == 0.5
    assert late["closed"].interval().documents == 3
    assert len(late["distinct_1"].values) == 3  # one a group
    assert early["contains_target"].interval().value == 1.0  # "the", in "the sum"
    assert late["contains_target"].interval().value == 0.0

    paths = write_patterns(runs, tmp_path / "out" / "both")
    document = json.loads(paths[0].read_text())  # NaN would be no JSON for others
    assert "NaN" not in paths[0].read_text()
    assert len(document["bins"]) == 5 and len(document["differences"]) == 3
    with paths[1].open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 5 * len(runs[0][0].measures)
    assert {row["run"] for row in table} == {str(first), str(second)}


def test_printed_patterns(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "a", steps=2, prompt__think_budget=8)
    rows = [rollout(d, step=3, thought=b" the | a", reward=0.0) for d in ("d0", "d1")]
    write_rollouts(run, 3, rows)
    console = Console(width=200, record=True, file=io.StringIO())
    print_patterns([run_bins(load_run(run).run, bins=3)], console)
    text = console.export_text()
    (reward,) = [line for line in text.splitlines() if line.startswith("│ reward")]
    assert "1.000 [1.000" in reward and "−1.000" in reward
    assert "keywords/hypothesis" in text and "keywords/…: thoughts" in text

    for step in (1, 2):
        write_rollouts(run, step, rows)
    console = Console(width=200, record=True, file=io.StringIO())
    print_patterns([run_bins(load_run(run).run, bins=3)], console)
    text = console.export_text()
    assert "copied_from_prefix" not in text and "keywords" not in text  # no thought, no row


def test_long_runs_are_read_in_part(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "a", steps=0)
    for step in range(1, 41):
        write_rollouts(run, step, [rollout(step=step)])
    (one,) = run_bins(load_run(run).run, bins=1)
    assert len(one.steps) == 10 and one.steps[0] == 1 and one.steps[-1] == 40
    assert len(one.measures["reward"].values) == 10


def test_no_rollouts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no rollouts are stored"):
        run_bins(load_run(fake_run(tmp_path / "a", steps=0)).run)
