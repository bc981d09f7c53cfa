"""Comparisons as tables: the paper's layouts, in cells that can be counted by hand."""

import io
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from openrpt.evaluation.next_token.compare import compare, mean_over_difficulties
from openrpt.evaluation.next_token.figure import mean_values, specification
from openrpt.evaluation.next_token.recorded import Recorded
from openrpt.evaluation.next_token.results import EvaluationResult
from openrpt.evaluation.next_token.tables import differences_sheet, figure_4, table_1, table_8
from openrpt.evaluation.statistics import mean_by_document, mean_of_slices
from openrpt.sheets import (
    Sheet,
    interval,
    markdown,
    parts_of,
    percent,
    points,
    print_sheet,
    share_with_n,
)

ENTROPY = [0.7, 0.7, 1.2, 1.2, 1.7, 1.7, 1.7, 1.7]
COST = {"flops": 2e12, "seconds": 90.0, "joules": 5850.0, "money": None, "steps_without_flops": 0}


def evaluated(name: str, right: list[float], *, samples: int = 0, **entry: Any) -> Recorded:
    count = len(right)
    columns = {
        "document_id": np.array([f"d{i % 4}" for i in range(count)]),
        "position": np.arange(count),
        "byte_offset": np.arange(count),
        "entropy": np.array(ENTROPY),
        "document_kind": np.array(["algebra"] * 5 + ["geometry"] * 2 + [""]),
        "token_class": np.array(["number"] * count),
        "ntp": np.array([1.0, 0, 0, 0, 0, 0, 0, 0]),
        "reasoning": np.array(right),
        "any_right": np.minimum(1.0, 2 * np.array(right)),
        "agrees_start": np.array([1.0] * 4 + [0.0] * 4),
        "closed": np.ones(count),
    }
    result = EvaluationResult(columns=columns, has_reasoning=True, samples=samples)
    run = Path("runs") / "maths"
    return Recorded(
        name=name, run=run, label=name, result=result, entry={"model": "m", "cost": COST} | entry
    )


RIGHT = [1.0, 0, 1.0, 0, 1.0, 0, 0, 0]


def test_table_1_has_both_modes_by_difficulty_with_costs() -> None:
    models = [evaluated("start", [0.0] * 8), evaluated("trained", RIGHT)]
    sheet = table_1(compare(models))
    assert sheet.headings[2:5] == ["easy (n = 8)", "medium (n = 6)", "hard (n = 4)"]
    assert [row[:2] for row in sheet.rows] == [
        ["standard NTP", "start"],
        ["standard NTP", "trained"],
        ["next-token reasoning", "start"],
        ["next-token reasoning", "trained"],
    ]
    last = sheet.rows[-1]
    shares = [float(cell.split(" ± ")[0]) for cell in last[2:5]]
    assert shares == [37.5, 33.3, 25.0]
    assert last[5:] == ["2.00 × 10¹²", "1 min 30 s"]
    console = Console(width=140, record=True, file=io.StringIO())
    print_sheet(sheet, console)
    assert "next-token reasoning" in console.export_text()


def test_figure_4_is_the_mean_over_difficulties_the_best_first() -> None:
    models = [evaluated("start", [0.0] * 8), evaluated("trained", RIGHT)]
    comparison = compare(models)
    line = comparison.lines[-1]
    mean = mean_over_difficulties(line)
    assert mean.value == pytest.approx((3 / 8 + 2 / 6 + 1 / 4) / 3)
    sheet = figure_4(comparison)
    assert sheet.rows[0][:3] == ["trained", "next-token reasoning", sheet.rows[0][2]]
    assert sheet.rows[0][2].startswith("31.9 ± ")
    drawn = mean_values(comparison)
    assert max(drawn, key=lambda one: one["accuracy"])["line"] == "trained reasoning"
    titles = str(specification(comparison))
    assert "mean of easy, medium and hard" in titles


def test_table_8_is_by_template_and_by_samples() -> None:
    cost = {"flops": 1e12, "seconds": 12.0}
    models = [
        evaluated("start-v0", RIGHT, samples=8, template="v0", evaluation_cost=cost),
        evaluated("start-v6", [0.5] * 8, samples=8, template="v6"),
        evaluated("trained", RIGHT, template="minimal"),
    ]
    sheet = table_8(models)
    assert sheet.headings[5] == "Pass@8"
    assert [row[:3] for row in sheet.rows] == [
        ["start-v0", "v0", "Random@1"],
        ["start-v6", "v6", "Random@1"],
        ["trained", "minimal", "greedy"],
    ]
    assert sheet.rows[1][3].startswith("50.0") and sheet.rows[1][5].startswith("100.0")
    assert sheet.rows[2][5] == ""
    assert sheet.rows[0][6:] == ["1.00 × 10¹²", "12 s"] and sheet.rows[1][6:] == ["–", "–"]


def test_table_8_without_reasoning_says_so() -> None:
    plain = replace(evaluated("start", RIGHT).result, has_reasoning=False)
    sheet = table_8([replace(evaluated("start", RIGHT), result=plain)])
    assert sheet.rows == [] and "evaluated in reasoning" in sheet.notes[0]


def test_differences_show_what_is_only_copied() -> None:
    sheet = differences_sheet(compare([evaluated("trained", RIGHT)], "trained ntp"))
    copied = sheet.headings.index("= start's argmax")
    by_mode = {row[1]: row for row in sheet.rows}
    assert by_mode["reasoning"][copied].startswith("50.0") and by_mode["ntp"][copied] == ""
    assert by_mode["ntp"][5] == "" and by_mode["reasoning"][5].startswith("+25.0")


def test_markdown() -> None:
    text = markdown(table_1(compare([evaluated("a|b", RIGHT)])))
    lines = text.splitlines()
    assert lines[2].startswith("| mode | model | easy (n = 8) |")
    assert lines[3] == "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    assert "a\\|b" in lines[4] and "±" in lines[-1]


def test_values_are_written_in_one_way_each() -> None:
    estimate = {"value": 0.529, "standard_error": 0.0161, "n": 1400}
    assert percent(estimate) == "52.9 ± 1.6 %" and share_with_n(estimate) == "52.9 ± 1.6 (1,400)"
    alone = estimate | {"standard_error": math.nan}
    assert percent(alone) == "52.9 %" and percent(alone | {"n": 0}) == "–"
    assert points({"value": 0.012, "low": -0.003, "high": 0.027}) == "+1.2 [−0.3, +2.7]"
    assert points({"value": 0.012, "low": math.nan, "high": math.nan}) == "+1.2"
    recorded = {"value": 0.0, "low": 0.0, "high": 0.0, "documents": 11}  # before it had a width
    assert points(recorded) == "+0.0 [−28.5, +28.5]"
    assert interval({"value": None, "low": None, "high": None}) == "–"
    assert interval({"value": -2573.4, "low": -26100.0, "high": 0.5}, ".4g") == (
        "−2573 [−2.61e+04, 0.5]"
    )


def printed(sheet: Sheet, width: int, *, pasted: bool = False) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    print_sheet(sheet, console, pasted=pasted)
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_a_printed_sheet_keeps_brackets_and_does_not_tear_words() -> None:
    rows = [["a-rather-long-name", "pip install 'openrpt[lora]'", "12.5 [10.1, 14.9] % " * 3]]
    sheet = Sheet(title="", headings=["name", "[what]", "%"], rows=rows, labels=2)
    lines = printed(sheet, 60)
    assert "a-rather-long-name" in "\n".join(lines) and all(len(line) <= 60 for line in lines)
    assert "'openrpt[lora]'" in "\n".join(lines) and "[what]" in lines[1]
    pasted = printed(sheet, 140, pasted=True)
    assert re.fullmatch(r"\| name +\| \[what\] +\| +% \|", pasted[0] or pasted[1])
    assert markdown(sheet).startswith("| name | [what] | % |\n| --- | --- | ---: |")


def test_names_are_broken_behind_their_signs_and_brackets_stay_whole() -> None:
    name = "general-text/trained-template=v0,positions=60"
    rows = [[name, "reasoning", "52.9 ± 1.6 %", "+1.2 [−0.3, +2.7]"]]
    headings = ["model", "mode", "all", "difference [95 %]"]
    lines = printed(Sheet(title="", headings=headings, rows=rows, labels=2), 80)
    shown = [line.split("│")[1].strip() for line in lines if "│" in line]
    assert "".join(shown) == name and len(shown) > 1
    assert all(part[-1] in "-/=," for part in shown[:-1])
    assert "[95 %]" in "\n".join(lines)


def test_kinds_are_slices_the_commonest_first() -> None:
    parts = evaluated("trained", RIGHT).result.slices()
    kinds = {name: int(mask.sum()) for name, mask in parts.items() if name.startswith("kind: ")}
    assert list(kinds.items()) == [("kind: algebra", 5), ("kind: geometry", 2)]
    found = evaluated("trained", RIGHT).result.summary()["reasoning"]["kind: algebra"]
    assert found["value"] == pytest.approx(3 / 5) and found["n"] == 5


def test_the_error_of_a_mean_of_slices_is_that_of_resampled_documents() -> None:
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(200), 5)
    entropy = rng.exponential(1.0, size=1000)
    shift = rng.normal(0, 0.3, size=200)[documents]
    values = (rng.random(1000) < 0.5 + shift - 0.1 * entropy).astype(float)
    masks = [entropy > least for least in (0.5, 1.0, 1.5)]
    found = mean_of_slices(values, masks, documents)
    rows = [np.flatnonzero(documents == d) for d in range(200)]
    resampled = []
    for _ in range(800):
        at = np.concatenate([rows[d] for d in rng.integers(200, size=200)])
        resampled.append(np.mean([values[at][m[at]].mean() for m in masks]))
    assert found.standard_error == pytest.approx(np.std(resampled), rel=0.1)
    one = mean_of_slices(values, [np.full(1000, True)], documents)
    whole = mean_by_document(values, documents)
    assert one.value == pytest.approx(whole.value) and one.n == whole.n == 1000
    assert one.standard_error == pytest.approx(whole.standard_error)
    assert np.isnan(mean_of_slices(values, [np.full(1000, False)], documents).value)


@pytest.mark.parametrize("width", [50, 60, 80, 120])
@pytest.mark.parametrize("pasted", [False, True])
def test_a_name_longer_than_its_column_keeps_every_character(width: int, pasted: bool) -> None:
    names = ["x" * 45 + "y" * 45, "for openrpt.integrations.trl", "no more than that"]
    sheet = Sheet(
        title="",
        headings=["", "what", "found", "what to do"],
        rows=[["ok", "extra: reasoning-gym", "word " * 12, name] for name in names],
        labels=4,
    )
    lines = printed(sheet, width, pasted=pasted)
    assert all(len(line) <= width for line in lines)
    last = "".join(re.split("[│|]", line)[-2] for line in lines if re.search("[│|]", line))
    last = last.replace(" ", "")
    assert all(name.replace(" ", "") in last for name in names)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("pasted", [False, True])
def test_no_number_is_cut_at_any_width(width: int, pasted: bool) -> None:
    """What does not fit beside the labels is a table of its own, with the same labels."""
    models = [evaluated("start", [0.0] * 8), evaluated("a-trained-model-of-a-long-name", RIGHT)]
    comparison = compare(models)
    for sheet in (table_1(comparison), figure_4(comparison), differences_sheet(comparison)):
        lines = printed(sheet, width, pasted=pasted)
        tables = [line for line in lines if "│" in line or "|" in line]
        assert all(len(line) <= width for line in tables)
        cells = {cell.strip() for line in tables for cell in re.split("[│|]", line)}
        values = {cell for row in sheet.rows for cell in row[sheet.labels :] if cell}
        assert values <= cells
    assert len(parts_of(table_1(comparison), 200)) == 1 < len(parts_of(table_1(comparison), 60))
