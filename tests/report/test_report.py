"""The report of a made-up run folder, written by the real writers; no browser is needed."""

import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import altair
import numpy as np
import pyarrow as pa
import pytest

from openrpt.config.loading import with_overrides
from openrpt.config.model import ModelConfig
from openrpt.config.reinforcement import TrainConfig
from openrpt.config.rewards import REWARDS
from openrpt.config.sections import Config
from openrpt.config.training import WarmupConfig
from openrpt.data.positions import DIFFICULTIES
from openrpt.data.scored import load_scored
from openrpt.data.token_classes import CLASS_NAMES
from openrpt.evaluation.next_token.results import MEASURES
from openrpt.evaluation.next_token.stage import evaluate_model
from openrpt.evaluation.records import read_evaluation, record
from openrpt.parquet import read_table, write_table
from openrpt.report import documents, specs, stored
from openrpt.report.charts import charts, series_values
from openrpt.report.chunks import pack, unpack
from openrpt.report.curves import (
    columns,
    find_warnings,
    predicted_kinds,
    reward_errors,
    with_errors,
)
from openrpt.report.essentials import essentials
from openrpt.report.glossary import EVALUATION, METRICS, metrics_markdown
from openrpt.report.headline import Grading, figures, what_changed
from openrpt.report.page import render, write_report
from openrpt.report.plans import NTP, PLANS, REASONING
from openrpt.report.stored import read_stored
from openrpt.report.summary import accuracy_rows, difference_verdict, value_rows
from openrpt.runs.metrics import read_metrics
from openrpt.runs.reading import NO_METRICS
from openrpt.runs.rollouts import read_evaluated, read_rollouts, rollout_path, write_rollouts
from openrpt.runs.run import Run
from openrpt.runs.spent import Cost, all_costs, scoring_cost, together
from openrpt.stages.train import train
from openrpt.stages.warmup.warmup import warmup
from tests.helpers.report_run import (
    DEVELOPMENT,
    FIRST,
    HELDOUT,
    HOSTILE,
    POSITIONS,
    SIZE,
    TEXTS,
    WITH_HOSTILE,
    WITH_SCRIPTS,
    evaluation_result,
    fill,
    made_up_run,
    rollout_rows,
    tokens_of,
)
from tests.helpers.tiny_model import tiny_run

ROOT = Path(__file__).parents[2]
EXPECTED = [p for p in PLANS if {"train", "warmup"} & {*p.stages} and p.axis != "money"]
"""The charts of the made-up run, whose machine has no price."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made_up_run(tmp_path / "demo")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run; not to be changed."""
    return fill(made_up_run(tmp_path_factory.mktemp("report") / "demo"))


class Page(HTMLParser):
    """Tags with their attributes, the text outside scripts, each script's body by its id, and the
    packed data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.text = ""
        self.in_script = self.in_style = False
        self.feed(text)
        self.close()
        self.data = {id: unpack(body) for id, body in self.scripts if id and id != "chart-library"}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.in_script, self.in_style = tag == "script", tag == "style"
        if self.in_script:
            self.scripts.append((dict(attrs).get("id"), ""))

    def handle_endtag(self, tag: str) -> None:
        self.in_script = self.in_style = False

    def handle_data(self, data: str) -> None:
        if self.in_script:
            id, body = self.scripts[-1]
            self.scripts[-1] = id, body + data
        elif not self.in_style:
            self.text += data

    @property
    def documents(self) -> dict[str, dict[str, Any]]:
        """The index, by document."""
        return {entry["id"]: entry for entry in self.data["data-index"]["documents"]}

    def document(self, document_id: str) -> dict[str, Any]:
        ids = [entry["id"] for entry in self.data["data-index"]["documents"]]
        return self.data[f"data-{ids.index(document_id)}"]


def report_page(run: Run) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(whole: Run) -> Page:
    return Page(render(whole))


def test_report_of_a_whole_run(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    fill(run)
    path = write_report(run)
    assert capfd.readouterr() == ("", "")
    assert path == run.path / "report.html"
    assert not [*run.path.glob("*.partial")]
    assert path.stat().st_size < 2_000_000
    page = report_page(run)
    for name in ("start model", "trained model", "untrained", "after warmup", "after RPT"):
        assert name in page.text
    assert "not distinguishable" in page.text  # against the trained model's own NTP: equal
    assert "beyond noise" in page.text  # against warmup
    assert "Not evaluated" not in page.text
    drawings = page.data["data-curves"]["charts"]
    assert len(drawings) == len(EXPECTED)  # every chart has data
    stages = page.data["data-curves"]["runs"][0]["stages"]
    for drawing in drawings:
        values = [stages[drawing["stage"]][metric] for metric in drawing["series"]]
        assert all(any(v is not None for v in column) for column in values), drawing["id"]
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {drawing["id"] for drawing in drawings} <= ids
    assert "vegaEmbed" in page.scripts[-1][1]


def test_nothing_comes_from_a_network(page: Page) -> None:
    for tag, attributes in page.tags:
        assert "src" not in attributes
        assert tag != "link" or attributes["href"] == "data:,"
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None and policy.startswith("default-src 'none'")


def test_hostile_text_is_inert(tmp_path: Path) -> None:
    """As corpus text, as thought and prediction, as a warning, and as a name in the config."""
    run = fill(made_up_run(tmp_path / "demo", Config(model=ModelConfig(path=HOSTILE))))
    record(run, HOSTILE[2:8], evaluation_result(0.5), model="m", note=HOSTILE, split=HOSTILE)
    page = report_page(run)
    kinds = [attributes.get("type") for tag, attributes in page.tags if tag == "script"]
    blocks = len(page.data)
    assert kinds == [None, *["application/gzip"] * blocks, None, "text/plain"]
    assert "alert(" not in "".join(body for _, body in page.scripts[:-1])
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [name for _, a in page.tags for name in a if name.startswith("on")]
    assert page.text.count("alert(1)") > 3  # seen, as text
    assert HOSTILE in page.document(WITH_HOSTILE)["text"]  # and whole, in the data


def test_packed_data_cannot_end_its_script() -> None:
    value = {"series": f"{HOSTILE}<!-- &\u2028\x00"}
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", pack(value))
    assert unpack(pack(value)) == value


def test_inspector_has_each_token_with_its_scores(page: Page) -> None:
    shown = page.document(FIRST)
    text = shown["text"].encode("latin-1")
    assert text.decode() == TEXTS[FIRST][1]
    tokens = tokens_of(TEXTS[FIRST][1])
    assert shown["lengths"] == [len(token) for token in tokens]
    assert (shown["entropy"][0], shown["surprise"][0], shown["ntp_right"][0]) == (-1, -1, "?")
    assert shown["entropy"][-1] == 260  # hundredths of a nat
    words = [shown["ntp_words"][i].encode("latin-1") for i in shown["ntp"][1:]]
    right = [word == token for word, token in zip(words, tokens[1:], strict=True)]
    assert [mark == "1" for mark in shown["ntp_right"][1:]] == right


def test_inspector_has_each_rollout(page: Page) -> None:
    shown = page.document(FIRST)
    assert [(g["position"], g["step"]) for g in shown["groups"]] == [
        (position, step) for position in POSITIONS for step in range(1, 7)
    ]
    group = shown["groups"][0]
    tokens = tokens_of(TEXTS[FIRST][1])[POSITIONS[0] :]
    assert group["prediction"][0].encode() == tokens[0]
    assert group["matched"] == [1, 2, 0, 0, 0]
    assert group["reward"] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert (group["prediction"][4], group["finish"][4]) == (None, "length")
    assert group["ntp_right"] == 1
    assert math.exp(group["candidate_logprobs"][0]) == pytest.approx(0.5, rel=1e-3)
    for r in range(SIZE):
        assert sum(group["lengths"][r]) == len(group["completion"][r])
        assert len(group["lengths"][r]) == len(group["trained"][r]) == len(group["surprise"][r])
    assert group["trained"][0][:5] == "01110"
    assert group["surprise"][0][:4] == [0, 1, 20, 300]  # hundredths of a nat
    assert "prefix" not in group  # the text is here


def test_evaluated_documents_are_in_the_inspector(page: Page) -> None:
    shown = page.document(HELDOUT)
    assert list(shown["evaluations"]) == ["start", "warmup", "trained"]
    expected = evaluation_result(0.53).columns["reasoning"][:12].tolist()
    assert shown["evaluations"]["trained"]["reasoning"] == expected
    assert shown["evaluations"]["trained"]["position"][0] == 3


def test_what_evaluated_models_thought_is_in_the_inspector(page: Page) -> None:
    """Held out: a group a model; development: one an evaluation during training."""
    groups = page.document(HELDOUT)["groups"]
    assert {g["model"] for g in groups} == {"start", "warmup", "trained"}
    assert len(groups) == 3 * 12 and all(g["evaluated"] for g in groups)
    right = {g["position"]: g["matched"][0] > 0 for g in groups if g["model"] == "trained"}
    evaluated = page.document(HELDOUT)["evaluations"]["trained"]
    assert [float(right[p]) for p in evaluated["position"]] == evaluated["reasoning"]
    assert any(right.values()) and not all(right.values())
    groups = page.document(DEVELOPMENT)["groups"]
    assert [(g["position"], g["step"]) for g in groups] == [
        (p, s) for p in POSITIONS for s in (3, 6)
    ]
    assert all("model" not in g and g["evaluated"] for g in groups)
    assert [g["matched"][0] for g in groups] == [1, 1, 0, 1, 0, 0]
    assert page.documents[DEVELOPMENT]["steps"] == [3, 6]
    assert page.documents[HELDOUT]["steps"] == []


def test_a_model_with_another_tokenizer_is_shown_at_the_same_bytes(run: Run) -> None:
    """Its tokens are the document's in pairs: every second boundary is one of its own."""
    result = evaluation_result(0.5)
    own = [p for p in result.columns["position"][:12].tolist() if p % 2 == 0]
    rows = np.array([result.columns["position"].tolist().index(p) for p in own])
    other = result.at(rows)
    other.columns["position"] = other.columns["position"] // 2
    table = result.rollouts.take(rows)
    halved = pa.array([p // 2 for p in own])
    table = table.set_column(table.column_names.index("position"), "position", halved)
    fill(run)
    record(run, "other", replace(other, rollouts=table), model="other", split="heldout")
    document = report_page(run).document(HELDOUT)
    assert document["evaluations"]["other"]["position"] == own
    assert [g["position"] for g in document["groups"] if g.get("model") == "other"] == own


def test_those_that_were_evaluated_and_those_that_were_trained_on_share_the_page() -> None:
    assert documents.alternating(["a", "b", "c"], ["1"]) == ["a", "1", "b", "c"]
    assert documents.alternating([], ["1", "2"]) == ["1", "2"]


def test_samples_table_has_a_row_a_group(page: Page) -> None:
    samples = page.data["data-index"]["samples"]
    training = 6 * 2 * len(POSITIONS) + len(POSITIONS)
    assert samples["evaluated"].count(0) == training
    assert len(samples["step"]) == training + 3 * 12 + 2 * len(POSITIONS)
    number = list(zip(samples["step"], samples["evaluated"], strict=True)).index((6, 0))
    assert (samples["right"][number], samples["rollouts"][number]) == (3, SIZE)
    assert samples["reward"][number] == 0.6
    assert samples["prediction_right"][number] == 1  # the true token twice: the commonest


def test_rollouts_without_the_scored_texts(run: Run) -> None:
    fill(run, steps=2)
    for path in run.scored.iterdir():
        path.unlink()
    page = report_page(run)
    assert "scored texts of some documents are not in the run folder" in page.text
    group = page.document(FIRST)["groups"][0]
    assert group["prefix"].encode() == b"".join(tokens_of(TEXTS[FIRST][1])[: POSITIONS[0]])
    assert len(group["continuation"]) == 12
    assert group["matched"] == [1, 2, 0, 0, 0]


def test_rollouts_of_an_earlier_version(run: Run) -> None:
    fill(run, steps=2)
    for step in (1, 2):
        table = read_table(rollout_path(run.path, step))
        write_table(rollout_path(run.path, step), table.drop(["tokens", "candidate_logprobs"]))
    page = report_page(run)
    assert "stored by an earlier version, without their tokens" in page.text
    group = page.document(FIRST)["groups"][0]
    assert "completion" not in group and HOSTILE in group["thought"][0]


def test_what_does_not_fit_is_left_out_and_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(run)
    monkeypatch.setattr(documents, "_MAX_CHARACTERS", 4000)
    monkeypatch.setattr(stored, "_MAX_ROLLOUTS", 100)
    page = report_page(run)
    shown = page.data["data-index"]["documents"]
    assert 1 <= len(shown) < len(TEXTS)
    assert f"{len(shown)} of {len(TEXTS)} documents are here" in page.text
    assert "3 of 6 stored steps are here" in page.text
    assert page.data["data-index"]["documents"][0]["id"] == HELDOUT  # what was evaluated first


def test_several_runs_are_overlaid(whole: Run, tmp_path: Path) -> None:
    other = fill(made_up_run(tmp_path / "demo"), steps=3)
    assert "Settings that differ" not in Page(render(whole, [other])).text
    config = other.config.model_copy(update={"seed": 7})
    page = Page(render(whole, [replace(other, config=config)]))
    assert "settingdemodemo (2)" in page.text and "seed07" in page.text  # cells side by side
    runs = page.data["data-curves"]["runs"]
    assert [run["name"] for run in runs] == ["demo", "demo (2)"]
    assert [len(run["stages"]["train"]["step"]) for run in runs] == [6, 3]
    assert "Drawn over one another: demo and demo (2)" in page.text


def test_empty_run_says_what_is_absent(run: Run) -> None:
    (run.path / "environment.json").unlink()
    text = report_page(run).text
    for absent in (
        "No model has been evaluated",
        "No metrics yet",
        "No rollouts are stored",
        "No text to show",
        "environment.json is absent",
        "has not been evaluated",
    ):
        assert absent in text


def test_what_is_known_of_the_folder_is_said(run: Run) -> None:
    assert (
        "config.toml is missing <b>" in Page(render(run, notes=["config.toml is missing <b>"])).text
    )


def test_scored_but_not_trained(run: Run) -> None:
    fill(run)
    for name in ("rollouts", "evaluation"):
        shutil.rmtree(run.path / name)
    page = report_page(run)
    assert "No rollouts are stored" in page.text
    assert page.document(FIRST)["groups"] == []


def test_damaged_files_are_named_and_the_rest_is_shown(run: Run) -> None:
    fill(run)
    run.evaluation.write_text('{"format": 1, "evalu')
    (run.path / "patterns.json").write_text("[]")
    (run.path / "environment.json").write_bytes(b"\xff{")
    rollout_path(run.path, 6).write_bytes(b"PAR1")
    (run.scored / "positions-00000.parquet").write_bytes(b"PAR1")
    with run.metrics.open("a") as file:
        file.write('{"stage": "train", "st')  # a last line that was cut off
    page = report_page(run)
    assert "evaluation.json:1: damaged" in page.text
    assert "patterns.json: damaged or changed by hand" in page.text
    assert "environment.json is absent or not readable" in page.text
    assert "step-000006.parquet: not readable" in page.text
    assert "positions-00000.parquet: not readable" in page.text
    assert len(page.data["data-curves"]["charts"]) == len(EXPECTED)
    assert len(page.data["data-curves"]["runs"][0]["stages"]["train"]["step"]) == 6
    assert {g["step"] for g in page.document(FIRST)["groups"]} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format": 99}', "written by another version"),
        ('{"format": 1}', "damaged (evaluations: Field required)"),
        ("[]", "damaged"),
    ],
)
def test_evaluation_of_another_version(run: Run, text: str, said: str) -> None:
    run.evaluation.write_text(text)
    assert said in report_page(run).text


def test_partial_evaluation(run: Run) -> None:
    record(run, "start", evaluation_result(0.0), model="tiny", split="heldout")
    record(run, "other", evaluation_result(0.2, documents=1), model="tiny", split="heldout")
    text = report_page(run).text
    assert "Not evaluated: Standard NTP of the trained model; Reasoning after" in text
    assert "other, reasoning" in text
    assert "± ?" in text  # one document gives no error


def test_evaluated_under_other_settings_is_said_to_be(tmp_path: Path) -> None:
    """Neither "not evaluated" nor "not computed": by which label, and where to see it."""
    run = made_up_run(tmp_path / "demo", Config(warmup=WarmupConfig(target="truth")))
    for label, rate in (("start", 0.0), ("warmup-positions=9", 0.4), ("trained-positions=9", 0.5)):
        record(run, label, evaluation_result(rate), model="tiny", split="heldout")
    page = Page(render(run))
    assert "Not evaluated" not in page.text and "has not been evaluated" not in page.text
    assert "Reasoning after warmup (see warmup-positions=9, reasoning)" in page.text
    assert "evaluated under other settings than the run's own, as trained-positions=9" in page.text
    see = "openrpt compare RUN --against trained-positions=9 shows them"
    assert page.text.count(see) == 2  # in the summary, and in the place of the table
    assert "positions, easy and harder, as trained-positions=9" in page.text
    assert "[95 % interval], evaluated as trained-positions=9." in page.text  # what thought adds
    tags = sum(attributes.get("class") == "tag" for _, attributes in page.tags)
    assert tags == 2 * (1 + 2)  # NTP and reasoning; supervised; trained with an NTP loss
    record(run, "trained", evaluation_result(0.5), model="tiny", split="heldout")
    text = Page(render(run)).text
    assert see not in text and "(see trained-positions=9" not in text


def test_kinds_of_prediction_are_counted(run: Run) -> None:
    """At position 5 standard prediction is the true token, which two rollouts of the late policy
    say; at 14 it is a wrong one, which one says, and the true token is another candidate."""
    write_rollouts(run.path, 4, rollout_rows(4, positions=(5, 14)))
    table = read_stored(run.path, [], [])
    assert table is not None
    kinds = predicted_kinds(table)[4]
    assert kinds["predicted/standard"] == pytest.approx((2 + 1) / 10)
    assert kinds["predicted/candidate"] == pytest.approx(2 / 10)
    assert kinds["predicted/other"] == pytest.approx((2 + 1) / 10)
    assert kinds["predicted/none"] == pytest.approx(2 / 10)
    assert kinds["predicted_right/candidate"] == 1.0
    assert kinds["predicted_right/standard"] == pytest.approx(2 / 3)


def test_rollouts_without_a_mark_of_exactness_are_right_where_they_were_rewarded(run: Run) -> None:
    rows = [row | {"exact": None} for row in rollout_rows(4, positions=(5, 14))]
    write_rollouts(run.path, 4, rows)
    table = read_stored(run.path, [], [])
    assert table is not None
    kinds = predicted_kinds(table)[4]
    assert kinds["predicted/standard"] == pytest.approx((2 + 1) / 10)
    assert kinds["predicted_right/candidate"] == 1.0


def test_warnings_come_from_the_metrics(whole: Run, page: Page) -> None:
    (warning,) = find_warnings(read_metrics(whole.metrics))
    assert (warning["stage"], warning["step"], warning["name"]) == ("train", 6, "flat_groups")
    assert "alert(1)" in warning["text"] and "What usually helps: look" in warning["text"]
    assert page.data["data-curves"]["runs"][0]["warnings"] == [warning]
    assert "flat_groups, step 6 of train" in page.text


def test_bands_are_binomial_errors() -> None:
    row = {"development/reasoning_accuracy": 0.5, "development/positions": 100.0}
    half = with_errors([row])[0]["development/reasoning_accuracy_error"]
    assert half == pytest.approx(0.05, rel=0.01)
    sure = with_errors([row | {"development/reasoning_accuracy": 0.0}])[0]
    assert 0 < sure["development/reasoning_accuracy_error"] < 0.01
    assert with_errors([{"development/reasoning_accuracy": 0.5}])[0].keys() == {
        "development/reasoning_accuracy"
    }


def test_columns_have_gaps_where_rows_have_none() -> None:
    rows = [{"stage": "train", "step": 1, "a": 1}, {"stage": "train", "step": 2, "b": math.inf}]
    assert columns(rows) == {"train": {"step": [1, 2], "a": [1, None], "b": [None, None]}}


def test_patterns_of_this_run_are_shown(run: Run) -> None:
    fill(run, steps=1)
    numbers = {"value": 0.123, "low": 0.1, "high": 0.15}
    bins = [
        {"run": str(run.path), "first_step": 1, "last_step": 3, "measures": {"hedging": numbers}},
        {"run": "other", "first_step": 7, "last_step": 9, "measures": {"hedging": numbers}},
    ]
    never = {"value": 0.0, "low": 0.0, "high": 0.0, "n": 96, "documents": 24}
    bins[0]["measures"] = {"hedging": numbers, "keywords/never": never}
    document = {"format": 1, "measures": {"hedging": "share with perhaps"}, "bins": bins}
    (run.path / "patterns.json").write_text(json.dumps(document))
    text = report_page(run).text
    assert "0.0 [0.0, 14.2] %" in text  # no document of 24: as an accuracy of 0
    assert "12.3 [10.0, 15.0] %" in text and "steps 1–3" in text and "share with perhaps" in text
    assert "steps 7–9" not in text


def test_supervised_warmup_is_labelled(run: Run) -> None:
    evaluations = read_evaluation(fill(run, steps=1).evaluation)["evaluations"]
    truth = WarmupConfig(target="truth")
    for warmed, ntp_weight, tags in (
        (WarmupConfig(), 0.0, 0),
        (truth, 0.0, 3),
        (WarmupConfig(ntp_weight=0.1), 0.0, 3),
        (WarmupConfig(), 0.5, 2),
    ):
        config = Config(warmup=warmed, train=TrainConfig(ntp_weight=ntp_weight))
        assert sum(len(row.tags) for row in accuracy_rows(evaluations, config)) == tags
    page = Page(render(replace(run, config=Config(warmup=truth, train=TrainConfig(ntp_weight=0)))))
    assert sum(attributes.get("class") == "tag" for _, attributes in page.tags) == 3


def test_what_the_thought_adds_is_shown_by_class(run: Run) -> None:
    fill(run, steps=1)
    assert [row.name for row in value_rows(read_evaluation(run.evaluation)["evaluations"])] == [
        "all"
    ]
    result = evaluation_result(0.53)
    columns = result.columns | {
        "token_class": np.array(["number", "word start"] * 144),
        "computed": np.array([True, False, False, False] * 72),
        "span": np.ones(288),
    }
    result = replace(result, columns=columns)
    record(run, "trained", result, model="tiny", split="heldout")
    rule = "before:<i>= "
    extra = result.at(np.arange(20))
    record(run, "trained-where", extra, model="tiny", split="heldout", where=rule)
    record(run, "other-where", extra, model="other", split="heldout", where=rule)
    rows = value_rows(read_evaluation(run.evaluation)["evaluations"])
    found = [(row.name, row.n) for row in rows]
    by_class = [("all", 288), ("word start", 144), ("number", 144), ("computed", 72)]
    assert found == [*by_class, (f"only at positions of {rule}", 20)]
    inside = columns["computed"]
    gain = 100 * float((columns["reasoning"] - columns["ntp"])[inside].mean())
    cell = rows[3].cells[0]
    assert cell is not None and cell.text.startswith(f"{gain:+.1f} [".replace("-", "−"))
    spans = [cells[2].text for row in rows if (cells := row.cells) and cells[2]]
    # All alike: in 24 documents 14.2 % might be unlike them, in 2 any.
    assert spans == ["+100.0 [+71.5, +100.0]"] * 4 + ["+100.0 [−68.4, +100.0]"]
    page = report_page(run)
    assert "only at positions of before:<i>= " in page.text and "whole span" in page.text


def test_verdicts() -> None:
    base = {"value": 0.02, "low": 0.01, "high": 0.03, "n": 99, "documents": 40}
    assert difference_verdict(base | {"distinguishable": True}) == "beyond noise"
    assert (
        difference_verdict(base | {"low": -0.01, "distinguishable": False}) == "not distinguishable"
    )
    assert "one document" in difference_verdict(base | {"documents": 1, "distinguishable": True})
    assert "only 4 documents" in difference_verdict(
        base | {"documents": 4, "distinguishable": True}
    )


def test_sentence_gives_value_and_interval() -> None:
    easy = {"value": 0.5, "standard_error": 0.02, "n": 1024, "documents": 50}
    difference = {"value": -0.013, "low": -0.03, "high": 0.004, "n": 1024, "documents": 50}
    entry = {
        "a": {"label": "trained", "mode": "reasoning"},
        "b": {"label": "trained", "mode": "ntp"},
        "difference": {"easy": difference | {"distinguishable": False}},
    }
    sentence = what_changed({"trained": {"summary": {"reasoning": {"easy": easy}}}}, [entry])
    assert "50.0 ± 2.0 % of 1,024 positions" in sentence
    against = "points against standard NTP of the trained model"
    assert f"−1.3 [−3.0, +0.4] {against}, not distinguishable" in sentence


def test_what_the_reward_pays_stands_first() -> None:
    """A run rewarded for whole numbers, evaluated by a rule: by whole span, at all positions."""
    found = {"n": 160, "documents": 75}
    summary = {
        name: {part: found | {"value": value, "standard_error": 0.02} for part in ("all", "easy")}
        for name, value in {"reasoning": 0.3, "span": 0.8}.items()
    }
    evaluations = {"trained": {"summary": summary, "where": "class:computed"}}
    difference = found | {"low": 0.5, "high": 0.7, "distinguishable": True}
    entry = {
        "a": {"label": "trained", "mode": "reasoning"},
        "b": {"label": "trained", "mode": "ntp"},
        "difference": {part: difference | {"value": -0.1} for part in ("all", "easy")},
        "by_span": {"all": difference | {"value": 0.6}},
    }
    spans = with_overrides(Config(), {"reward.terms": {"span": 1.0}})
    grading = Grading.of(spans, evaluations)
    sentence = what_changed(evaluations, [entry], grading)
    assert "80.0 ± 2.0 % of 160 positions, by whole numbers and words: +60.0 [+50.0" in sentence
    right, against = figures(evaluations, [entry], Cost(stage="all"), grading)
    assert (
        right.value == "80.0 ± 2.0 %"
        and right.detail == "160 positions, by whole numbers and words"
    )
    assert against.value == "+60.0" and against.tone == "right"
    del entry["by_span"]  # of an earlier version
    assert "No paired difference is recorded" in what_changed(evaluations, [entry], grading)
    grading = Grading.of(Config(), {"trained": {"summary": summary, "where": ""}})
    assert "30.0 ± 2.0 % of 160 positions (easy and harder): −10.0" in what_changed(
        evaluations, [entry], grading
    )


def test_what_is_evaluated_later_is_compared_with_the_trained_model(tmp_path: Path) -> None:
    run = fill(made_up_run(tmp_path / "run"))
    trained, control = evaluation_result(0.53), evaluation_result(0.3)
    columns = trained.columns | {"emptied": np.zeros(288), "swapped": trained.columns["ntp"]}
    record(run, "trained", replace(trained, columns=columns), model="tiny", split="heldout")
    record(run, "random-reward", control, model="tiny", split="heldout")
    few = evaluation_result(0.4, documents=3)
    record(run, "few", few, model="tiny", split="heldout")  # at other positions: not compared
    found = read_evaluation(run.evaluation)["differences"]
    assert all(pair["a"] == {"label": "trained", "mode": "reasoning"} for pair in found)
    assert [tuple(pair["b"].values()) for pair in found] == [
        ("warmup", "reasoning"),
        ("trained", "ntp"),
        ("start", "ntp"),
        ("random-reward", "reasoning"),
    ]
    expected = trained.columns["reasoning"].mean() - control.columns["reasoning"].mean()
    assert found[-1]["difference"]["all"]["value"] == pytest.approx(expected)
    spans = trained.columns["span"].mean() - control.columns["span"].mean()
    assert found[-1]["by_span"]["all"]["value"] == pytest.approx(spans)
    text = Page(render(run)).text
    assert "points against random-reward, reasoning, " in text
    assert "Thinking is not said to help: the real thought does not beat" in text
    assert "openrpt control RUN thought no-thought" not in text


def test_a_chart_is_told_in_words_with_signs_and_units_as_it_is_drawn() -> None:
    rows = [{"stage": "train", "step": 1, "loss/policy": -0.0143, "energy/joules": 4200.0}]
    told = {chart.title: chart for chart in charts(rows)}
    assert told["Policy loss"].description == "Step 1: −0.0143"
    assert told["Energy a step"].description == "Step 1: 4,200"
    assert told["Energy a step"].plan.meaning.unit == "joules"


def test_values_that_are_no_numbers_leave_a_gap() -> None:
    rows = [{"stage": "train", "step": s, "reward/mean": v} for s, v in ((1, 0.5), (2, math.nan))]
    (chart,) = charts(rows)
    assert [value["step"] for value in series_values(rows, chart.plan)] == [1]
    pack(chart.spec)  # would raise for NaN


@pytest.mark.parametrize("kind", ["one line", "lines of two runs", "stacked", "dots"])
def test_charts_are_vega_lite(kind: str) -> None:
    """By the schema that altair brings: it refuses what the library would pass over in silence."""
    look: dict[str, Any] = {"unit": "nats", "axis": "", "tooltip": ".4~g"}
    spec = {
        "one line": lambda: specs.lines(
            names=["a"], named=False, runs=["x"], line_names=["a"], zero=True, **look
        ),
        "lines of two runs": lambda: specs.lines(
            names=["a", "b"],
            named=True,
            runs=["x", "y"],
            line_names=["a", "b", "c", "d"],
            zero=False,
            **look,
        ),
        "stacked": lambda: specs.stacked(names=["a", "b"], axis_title=None, **look),
        "dots": lambda: specs.dots_by_band(
            [{"band": "1", "model": "m", "value": 0.5, "low": 0.4, "high": 0.6, "n": 9}],
            ["1"],
            ["m"],
        ),
    }[kind]()
    altair.Chart.from_dict(spec)
    with pytest.raises(Exception, match="nominl"):
        altair.Chart.from_dict(json.loads(json.dumps(spec).replace('"nominal"', '"nominl"')))


def test_charts_of_the_other_stages() -> None:
    """Fine-tuning writes train's metrics; plain pre-training its own; money needs a price."""
    row = {"step": 1, "time/step": 5.0, REASONING: 0.5, NTP: 0.4, "loss/ntp": 2.0}
    tuned = charts([row | {"stage": "finetune"}])
    assert {chart.stage for chart in tuned} == {"finetune"}
    titles = [chart.title for chart in tuned]
    assert "Development accuracy (fine-tuning)" in titles
    assert "Accuracy against time (fine-tuning)" in titles
    assert not any("money" in title or "FLOPs" in title for title in titles)
    priced = charts([row | {"stage": "train"}], price=2.0)
    assert "Accuracy against money" in [chart.title for chart in priced]
    plain = charts([row | {"stage": "pretrain", "development/perplexity": 9.0}])
    assert {chart.plan.section for chart in plain} == {"pretrain"}
    assert "Perplexity" in [chart.title for chart in plain]


def test_costs_of_all_that_ran(run: Run) -> None:
    fill(run)
    spent = {"tokens": 100, "flops": 2e12, "seconds": 60.0, "joules": 7200.0}
    (run.scored / "cost.json").write_text(json.dumps(spent | {"energy_measured": False}))
    rows = read_metrics(run.metrics)
    evaluations = {"start": {"evaluation_cost": spent}, "old": {}}
    found = {cost.stage: cost for cost in all_costs(scoring_cost(run.scored), rows, evaluations)}
    assert list(found) == ["score", "warmup", "train", "development evaluations", "evaluations"]
    assert found["score"].joules == 7200 and not found["score"].measured
    assert found["evaluations"].seconds == {"start": 60.0}
    total = together(list(found.values()))
    assert total.joules == sum(cost.joules for cost in found.values()) and not total.measured
    text = report_page(run).text
    assert "2 Wh" in text and "estimated" in text  # of scoring


def test_a_damaged_cost_of_scoring_is_said(run: Run) -> None:
    fill(run)
    (run.scored / "cost.json").write_text('{"flops": 2e12, "seco')
    text = report_page(run).text
    assert f"{run.scored}/cost.json:1: damaged; delete it" in text
    assert "Time of all stages" in text  # the rest is there


def test_key_figures_come_first(page: Page) -> None:
    summary = page.text[page.text.index("Summary") :]
    names = ["Reasoning after RPT", "against warmup", "against its own NTP", "Time of all stages"]
    places = [summary.index(name) for name in names]
    assert places == sorted(places) and places[-1] < summary.index("Model")


def test_docs_come_from_the_glossary() -> None:
    assert (ROOT / "docs/metrics.md").read_text(encoding="utf-8") == metrics_markdown() + "\n"


def test_glossary_has_every_metric_that_the_code_writes() -> None:
    """Read from the source: literal keys, and those made of a phase or a difficulty."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "openrpt").rglob("*.py"))
    sections = "|".join(sorted({key.split("/")[0] for key in METRICS}))
    written = set(re.findall(rf'"((?:{sections})/[a-z_]+)"', source))
    written |= {f"time/{phase}" for phase in re.findall(r'timer\("(\w+)"\)', source)}
    written |= {f"pass_rate/{name}" for name in DIFFICULTIES}
    written |= {f"development/positions/{name}" for name in DIFFICULTIES}
    written |= {f"reward/{name}" for name in REWARDS}
    for key in ("share", "tokens", "reward_with", "reward_without"):
        written |= {f"thought/{key}/{name}" for name in CLASS_NAMES.values()}
    for mode in ("reasoning", "ntp"):
        written |= {f"development/{mode}_accuracy/{name}" for name in DIFFICULTIES}
    written |= {f"efficiency/{phase}" for phase in ("generate", "update")}
    written |= {
        f"efficiency/lost_{phase}" for phase in ("generate", "hand_over", "update", "store")
    }
    assert written == METRICS.keys()
    assert EVALUATION.keys() == set(MEASURES)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two real steps of a tiny model, and its evaluation."""
    run = tiny_run(
        tmp_path_factory.mktemp("trained"),
        corpus__heldout_fraction=0.3,
        corpus__development_fraction=0.3,
        warmup__steps=1,
        train__steps=2,
        train__eval_every=1,
        train__eval_positions=8,
        prompt__think_budget=3,
        evaluate__min_entropy=0.0,
        evaluate__positions=40,
    )
    warmup(run)
    train(run)
    evaluate_model(run, "trained", run.config)
    return run


def test_the_glossary_has_every_key_of_a_real_run(trained: Run) -> None:
    known = METRICS.keys() | NO_METRICS | {"stage", "step", "seconds", "sha256"}
    rows = read_metrics(trained.metrics)
    assert {row["stage"] for row in rows} == {"warmup", "train"}
    for row in rows:
        assert row.keys() <= known


def test_report_of_a_real_run(trained: Run) -> None:
    """Every rollout that is stored stands in the report, at its place in the real text."""
    page = Page(render(trained))
    corpus = load_scored(trained.scored)
    rows = [row for step in (1, 2) for row in read_rollouts(trained.path, step).to_pylist()]
    assert len(rows) == 2 * 2 * 4 * 4
    for row in rows:
        shown = page.document(row["document_id"])
        here = row["position"]
        (group,) = (g for g in shown["groups"] if (g["position"], g["step"]) == (here, row["step"]))
        assert "evaluated" not in group
        r = group["rollout"].index(row["rollout"])
        assert group["reward"][r] == row["reward"] == float(group["matched"][r] > 0)
        assert group["completion"][r].encode("latin-1") == b"".join(row["tokens"])
        assert len(row["tokens"]) == len(row["token_ids"]) == len(row["sampler_logprobs"])
        forced = [mark == "0" for mark in group["trained"][r]]
        assert forced == [not mask for mask in row["loss_mask"]]
        start = sum(shown["lengths"][:here])
        text = shown["text"].encode("latin-1")
        assert text[:start].endswith(row["prefix_end"])
        assert text[start:].startswith(b"".join(row["continuation"]))
        scored = corpus.document(row["document_id"])
        assert shown["entropy"][here] == round(100 * float(scored.entropy[here]))
        assert group["entropy"] == pytest.approx(float(scored.entropy[here]), rel=1e-4)
    evaluated = 0
    for name, facts in page.documents.items():
        groups = [g for g in page.document(name)["groups"] if g.get("evaluated")]
        evaluated += len(groups)
        assert facts["split"] != "train" or not groups
        for group in groups:
            assert group.get("model", "") == ("trained" if facts["split"] == "heldout" else "")
            assert group["advantage"] == [None]
    development = read_rollouts(trained.path, 2, development=True).num_rows
    assert evaluated == read_evaluated(trained.path, "trained").num_rows + 2 * development > 0


def test_the_same_curve_is_drawn_once() -> None:
    rows = [
        {"stage": "train", "step": step, "reward/mean": step / 9, "reward/exact": step / 9}
        | {"pass_rate/easy": step / 9, "loss/policy": step / 9}
        for step in (1, 2, 3)
    ]
    alone = charts(rows)
    assert [chart.title for chart in alone] == ["Reward", "Policy loss"]
    assert alone[0].also == ("Exactly right in training", "Pass rate by difficulty")
    assert [len(charts(rows, "one", {"other": other})) for other in (rows, rows[:2])] == [2, 2]
    differs = [row | {"reward/exact": 0.1} for row in rows]  # another run's may
    assert len(charts(rows, "one", {"other": differs})) == 3
    rows[1]["pass_rate/medium"] = 0.1
    assert [chart.title for chart in charts(rows)][1] == "Pass rate by difficulty"


def test_a_curve_is_drawn_once_where_the_reward_is_no_prefix_match() -> None:
    """The reward is its one term, the share exactly right is the pass rate of all positions, each
    the mean of the same numbers in another order."""
    rows = [
        {"stage": "train", "step": step, "reward/mean": step / 9, "reward/first_token": step / 9}
        | {"reward/exact": step / 10, "pass_rate/easy": step / 10 + 1e-17, "pass_rate/hard": 0.01}
        for step in (1, 2, 3)
    ]
    drawn = charts(rows)
    assert [chart.title for chart in drawn] == ["Reward", "Pass rate by difficulty"]
    assert drawn[0].also == ("Terms of the reward",)
    assert drawn[1].also == ("Exactly right in training (easy)",)


def test_equal_series_are_one_line_with_both_names() -> None:
    row = {"stage": "train", "step": 1, REASONING: 0.5, NTP: 0.5, "time/step": 1.0}
    row |= {"time/generate": 2.0, "time/update": 2.0}
    drawn = {chart.title: chart for chart in charts([row])}
    accuracy, time = drawn["Development accuracy"], drawn["Time by phase"]
    assert accuracy.drawing["series"] == {REASONING: "reasoning = standard (NTP)"}
    assert accuracy.description == "Step 1: reasoning = standard (NTP) 50.0%"
    assert "standard (NTP): does not fall" in accuracy.plan.healthy
    (line,) = (layer for layer in accuracy.spec["layer"] if layer["name"] == "line")
    assert line["encoding"]["strokeDash"]["legend"] is not None
    assert list(time.drawing["series"].values()) == ["generate", "update"]  # parts of a sum
    (other,) = charts([row], "one", {"other": [row | {NTP: 0.4}]})[:1]
    assert list(other.lines.values()) == ["reasoning", "standard (NTP)"]


def test_the_reward_has_a_band_by_document(whole: Run) -> None:
    found = read_stored(whole.path, [], [])
    assert found is not None
    errors = reward_errors(found)
    assert errors.keys() == {*range(1, 7)}
    rewards = {
        name: np.mean([row["reward"] for row in rollout_rows(6, name)])
        for name in (FIRST, WITH_HOSTILE, WITH_SCRIPTS)
    }
    sizes = len(rollout_rows(6))
    off = np.array([*rewards.values()]) - np.mean([*rewards.values()])
    assert errors[6] == pytest.approx(math.sqrt((off**2).sum() * sizes**2 * 3 / 2) / (3 * sizes))
    page = Page(render(whole))
    column = page.data["data-curves"]["runs"][0]["stages"]["train"]["reward/mean_error"]
    assert column == pytest.approx([*errors.values()])


def test_all_wrong_has_an_interval(whole: Run) -> None:
    """The start model is never right: 0 of 24 documents leave up to 14.2 % open."""
    assert pytest.approx(0.025, rel=0.01) == (1 - 0.1425) ** 24
    page = Page(render(whole))
    assert "0.0 [0.0, 14.2]" in page.text and "0.0 ± 0.0" not in page.text
    values = page.data["data-curves"]["accuracy"]["data"]["values"]
    assert all(v["high"] > 0 for v in values if v["model"] == "start, reasoning")


def test_what_made_the_run_stands_on_top(whole: Run) -> None:
    made = json.loads((whole.path / "environment.json").read_text())
    top = Page(render(whole)).text.split("Summary")[0]
    for name in ("date", "command", "host", "commit"):
        assert made[name] in top


def test_a_limit_is_drawn_where_it_was_left() -> None:
    def limits(flat: float) -> list[dict[str, float]]:
        rows = [
            {"stage": "train", "step": step, "group/flat_fraction": flat, "policy/entropy": 0.5}
            for step in (1, 2)
        ]
        found = {chart.title: chart.spec["layer"] for chart in charts(rows)}
        assert "limits" not in [layer["name"] for layer in found["Entropy of the policy"]]
        drawn = [layer for layer in found["Flat groups"] if layer["name"] == "limits"]
        return drawn[0]["data"]["values"] if drawn else []

    assert limits(0.95) == [{"limit": 0.9}]
    assert limits(0.85) == []


def test_settings_are_said_in_words() -> None:
    def said(changes: dict[str, Any]) -> dict[str, str]:
        return dict(essentials(with_overrides(Config(), changes)))

    one = said({"prompt.candidates": 1, "selection.strategy": "random"})
    assert one["Thought"].startswith("seeded with 1 candidate of the policy itself, ")
    assert one["Positions"] == "at random"
    where = {"selection.where": "class:computed", "prompt.candidate_source": "start"}
    assert said(where)["Positions"] == "by entropy, above 0.5 nats, where class:computed"
    assert said(where)["Thought"].startswith("seeded with 3 candidates of the start model, ")
    own = said({"selection.strategy": "mine:weights"})
    assert own["Positions"] == "by mine:weights"
